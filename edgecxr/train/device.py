"""Device, precision and parallel processes of a training run."""

from __future__ import annotations

import logging
import warnings
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from edgecxr.errors import UsageError, brief
from edgecxr.launcher import place
from edgecxr.machine.cores import lacks_bfloat16
from edgecxr.train.bfloat16 import Float32Products
from edgecxr.train.float32 import full_float32

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A torch device with the precision of its matrix products.

    Attributes:
        torch: the device.
        precision: "fp32", "bf16" or "fp16".
        compiled: whether torch.compile is applied to the training step.
    """

    torch: torch.device
    precision: str
    compiled: bool = False

    @classmethod
    def choose(cls, name: str, precision: str, compiled: bool = False) -> Device:
        """Resolve a device name and a precision, "auto" included.

        Args:
            name: "auto" (a GPU if there is one), "cpu", "cuda" or "cuda:N"; one of several processes uses the GPU of
                its own number.
            precision: "auto", "fp32", "bf16" or "fp16".
            compiled: whether torch.compile is applied to the training step.

        Raises:
            UsageError: there is no such device, it does not support the precision, or a launcher left the variables
                that tell processes apart incomplete.
        """
        here = place()
        if name.isdecimal() or name == "gpu":
            meant = f"cuda:{name}" if name.isdecimal() else "cuda"
            raise UsageError(f"--device {name}: did you mean {meant}? There are auto, cpu, cuda and cuda:N")
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cuda" and here.local_rank is not None:
            name = f"cuda:{here.local_rank}"
        try:
            device = torch.device(name)
            if device.type not in ("cpu", "cuda"):
                raise UsageError(f"--device {name}: there are auto, cpu, cuda and cuda:N")
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", torch.cuda.current_device())
            # Run a real kernel: allocation works even on a GPU that this build of torch has no code for.
            torch.zeros(1, device=device).add_(1).item()
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
        if device.type == "cuda":
            # Volta and Turing emulate bf16, slowly.
            bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
            precision = ("bf16" if bf16 else "fp16") if precision == "auto" else precision
            full_float32()
        elif precision == "auto":
            precision = "fp32"
        elif precision == "fp16":
            raise UsageError("--precision fp16 needs a GPU: on the CPU use fp32 or bf16")
        if compiled:
            _probe_compiler(device)
        return cls(device, precision, compiled)

    @cached_property
    def fabric(self) -> Fabric:
        """Fabric that connects the processes that torchrun started.

        A single process is connected to nothing. Fabric's own precision stays at 32 bits: its mixed ones round the
        inputs of the training step, including images and soft labels. `autocast` and `scaler` do that work instead.
        """
        here = place()
        ranks, local = here.ranks, here.local_ranks
        alone = [self.torch.index] if self.torch.type == "cuda" else 1
        fabric = Fabric(
            accelerator=self.torch.type,
            devices=local if ranks > 1 else alone,
            num_nodes=ranks // local,
            # Each process keeps its own running statistics of batch norms until `average_statistics`.
            strategy=DDPStrategy(broadcast_buffers=False) if ranks > 1 else "auto",
            plugins=[TorchElasticEnvironment() if ranks > 1 else LightningEnvironment()],
        )
        logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # else every process logs a greeting
        fabric.launch()
        return fabric

    def distributed(self, learner: nn.Module) -> nn.Module:
        """Return the training step, ready to be called on the device.

        It is compiled if `compiled` is set, and its gradients are averaged over the processes.
        """
        learner.to(self.torch)
        # The warning concerns the few hundred bytes of class token and position embeddings, whose gradients are slices.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        if self.fabric.world_size > 1 and self.torch.type == "cuda":  # torch has no SyncBatchNorm for CPUs
            learner = nn.SyncBatchNorm.convert_sync_batchnorm(learner)
        step: Any = torch.compile(learner) if self.compiled else learner
        return self.fabric.setup_module(step)

    def average_statistics(self, model: nn.Module) -> None:
        """Average the batch norms' running statistics over all processes, in place."""
        if self.fabric.world_size > 1:
            for statistic in model.buffers():
                if statistic.is_floating_point():
                    statistic.copy_(self.all_reduce(statistic, "mean"))

    def leave(self) -> None:
        """Disconnect from the other processes at the end of a run."""
        if self.fabric.world_size > 1:
            self.fabric.barrier()  # the first one may still write the card
            torch.distributed.destroy_process_group()

    def all_reduce(self, value: Tensor, how: str) -> Tensor:
        """Return the "mean", "sum" or "min" of a tensor over all processes."""
        reduced: Any = self.fabric.all_reduce(value, reduce_op=how)
        return reduced

    def all_gather(self, value: Tensor) -> Tensor:
        """Return a tensor (...) of all processes, stacked as (ranks, ...).

        It must have the same shape in all processes.
        """
        # Not Fabric's all_gather, which uses a torch function that is going to be removed.
        gathered = [value]
        if self.fabric.world_size > 1:
            gathered = [torch.empty_like(value) for _ in range(self.fabric.world_size)]
            torch.distributed.all_gather(gathered, value)
        return torch.stack(gathered)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which matrix products run in the chosen precision."""
        context = ExitStack()
        context.enter_context(
            torch.autocast(self.torch.type, _DTYPES[self.precision], enabled=self.precision != "fp32")
        )
        if self.torch.type == "cpu" and self.precision == "bf16" and not self.compiled and lacks_bfloat16():
            context.enter_context(Float32Products())
        return context

    def scaler(self) -> GradScaler:
        """Return the gradient scaler; it does nothing unless the precision is fp16."""
        return GradScaler(self.torch.type, enabled=self.precision == "fp16")

    def synchronize(self) -> None:
        """Wait for the device, so that timings are correct."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)


def _probe_compiler(device: torch.device) -> None:
    """Refuse --compile if torch.compile does not work here.

    It may find no compiler, or a GPU that it cannot generate code for.
    """
    try:
        torch.compile(lambda x: x * 2 + 1)(torch.zeros(8, device=device))
    except Exception as error:  # dynamo, inductor, Triton and the C++ compiler raise their own errors
        raise UsageError(f"--compile does not work here ({brief(error)}): leave it out") from error

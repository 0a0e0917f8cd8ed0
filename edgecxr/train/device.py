"""Where a training runs and in which arithmetic."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch.amp.grad_scaler import GradScaler

from edgecxr.errors import UsageError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A torch device with the precision of its matrix products.

    Attributes:
        torch: the device.
        precision: "fp32", "bf16" or "fp16".
    """

    torch: torch.device
    precision: str

    @classmethod
    def choose(cls, name: str, precision: str) -> Device:
        """Resolve "auto" in both.

        Args:
            name: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:N".
            precision: "auto", "fp32", "bf16" or "fp16".

        Raises:
            UsageError: there is no such device, or it does not have the precision.
        """
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(name)
            if device.type not in ("cpu", "cuda"):
                raise UsageError(f"--device {name}: there are auto, cpu, cuda and cuda:N")
            if device.type == "cuda" and device.index is None:
                device = torch.device("cuda", torch.cuda.current_device())
            # A real kernel: memory can be had on a GPU that this build of torch has no code for.
            torch.zeros(1, device=device).add_(1).item()
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
        if device.type == "cuda":
            # Volta and Turing emulate bf16, slowly.
            bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
            precision = ("bf16" if bf16 else "fp16") if precision == "auto" else precision
            if precision != "fp32":
                torch.set_float32_matmul_precision("high")
        elif precision == "auto":
            precision = "fp32"
        elif precision == "fp16":
            raise UsageError("--precision fp16 needs a GPU: on the CPU use fp32 or bf16")
        return cls(device, precision)

    def autocast(self) -> AbstractContextManager[None]:
        """Return a context in which matrix products run in the chosen precision."""
        return torch.autocast(self.torch.type, _DTYPES[self.precision], enabled=self.precision != "fp32")

    def scaler(self) -> GradScaler:
        """Return the gradient scaler; it does nothing unless the precision is fp16."""
        return GradScaler(self.torch.type, enabled=self.precision == "fp16")

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read afterwards is true."""
        if self.torch.type == "cuda":
            torch.cuda.synchronize(self.torch)

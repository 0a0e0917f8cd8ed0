"""`--devices` and `--nodes`: the same command in one process for each device, by torch's own elastic launcher.

It is what torchrun runs, so that `torchrun --nproc-per-node 8 -m edgecxr distill ...` and `edgecxr distill --devices 8
...` are one mechanism. A process that ends badly ends all of them.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from typing import NoReturn

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from edgecxr.errors import EdgeCxrError, UsageError, brief
from edgecxr.machine.cores import cores

RUN_ID = "edgecxr"
LAUNCHED = "EDGECXR_LAUNCHED"
"""Set for the processes that `launch` starts."""

_PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def launch(devices: int, nodes: int, rendezvous: str | None, device: str) -> None:
    """Run this very command once for each device of this node, and wait for all.

    Args:
        devices: processes on this node.
        nodes: machines, on each of which the same command is typed.
        rendezvous: HOST[:PORT] of one of them, where they meet; needed for more than one node.
        device: what --device says.

    Raises:
        UsageError: there are not as many GPUs, or no rendezvous was given.
        EdgeCxrError: a process was killed.
        SystemExit: a process ended with an error, which it has printed; the exit code is its own.
    """
    _check(devices, nodes, rendezvous, device)
    # Each process would take all cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // devices)))
    os.environ[LAUNCHED] = "1"
    # What the launcher has to say of a failure or an interruption is said below, in one line.
    logging.disable(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=devices,
        run_id=RUN_ID,
        rdzv_backend="c10d",
        rdzv_endpoint=rendezvous or "localhost:0",
        local_addr="localhost" if nodes == 1 else None,
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "edgecxr", *sys.argv[1:])
    except SignalException as error:
        if error.sigval == signal.SIGINT:
            raise KeyboardInterrupt from error
        raise EdgeCxrError(f"ended by {error.sigval.name}, all processes with it: the same command goes on") from error
    except RendezvousError as error:
        raise UsageError(
            f"no rendezvous at {rendezvous} ({brief(error)}): name one of the nodes and a free port of it, and type "
            f"the same command on all {nodes} of them"
        ) from error
    except ChildFailedError as error:
        _report(error.failures, devices * nodes)


def follow_launcher() -> None:
    """Let this process end with the one that launched it; it would otherwise train on, and hold its run."""
    if LAUNCHED in os.environ:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _check(devices: int, nodes: int, rendezvous: str | None, device: str) -> None:
    if nodes > 1 and not rendezvous:
        raise UsageError(
            f"--nodes {nodes} needs --rendezvous HOST[:PORT], one of the nodes, the same in the command on each of them"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"--device {device} names one GPU: with --devices it is auto, cpu or cuda")
    gpus = torch.cuda.device_count()
    if device != "cpu" and devices > gpus and (gpus or device == "cuda"):
        raise UsageError(f"--devices {devices}: this machine has {gpus} GPUs")


def _report(failures: dict[int, ProcessFailure], ranks: int) -> NoReturn:
    """End for the reason of the process that failed first: the launcher then ends the others by SIGTERM."""
    killed = [rank for rank, failure in failures.items() if failure.exitcode < 0]
    first = [rank for rank in killed if failures[rank].exitcode != -signal.SIGTERM]
    own = [failure.exitcode for failure in failures.values() if failure.exitcode > 0]
    if own and not first:
        sys.exit(max(own))  # 1 is also what a broken connection ends with
    rank = (first or killed)[0]
    cause = signal.Signals(-failures[rank].exitcode).name
    raise EdgeCxrError(
        f"process {rank} of {ranks} was ended by {cause}, and the others with it: "
        "the same command goes on after the last whole epoch, with any number of processes"
    )

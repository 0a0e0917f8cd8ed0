"""Training in several processes, for `--devices` and `--nodes`.

torch's elastic launcher runs the same command in one process for each device. torchrun uses it too, so `torchrun
--nproc-per-node 8 -m edgecxr distill ...` and `edgecxr distill --devices 8 ...` work the same way. If one process
fails, all of them end.
"""

from __future__ import annotations

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
from edgecxr.workers.new_python import command
from edgecxr.workers.template import end_with_parent

RUN_ID = "edgecxr"
LAUNCHED = "EDGECXR_LAUNCHED"
"""Environment variable of the processes that `launch` starts."""


def launch(devices: int, nodes: int, rendezvous: str | None, device: str) -> None:
    """Run this command once for each device of this node, and wait.

    Args:
        devices: number of processes on this node.
        nodes: number of machines; the same command is typed on each.
        rendezvous: HOST[:PORT] of the machine where they meet; required for more than one node.
        device: value of --device.

    Raises:
        UsageError: there are too few GPUs, or no rendezvous was given.
        EdgeCxrError: a process was killed.
        SystemExit: a process ended with an error, which it has printed; the exit code is its own.
    """
    _check(devices, nodes, rendezvous, device)
    # By default each process would use all cores.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // devices)))
    os.environ[LAUNCHED] = "1"
    # Silence the launcher: the code below reports failures and interruptions in one line.
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
    python, *arguments = command("edgecxr.cli:main", *sys.argv[1:])
    try:
        elastic_launch(config, python)(*arguments)
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
    """End this process when its launcher ends.

    Otherwise it would go on training, and keep its run locked.
    """
    if LAUNCHED in os.environ:
        end_with_parent(signal.SIGTERM)


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
    """Exit with the error of the process that failed first.

    After that failure the launcher ends the other processes by SIGTERM.
    """
    killed = [rank for rank, failure in failures.items() if failure.exitcode < 0]
    not_by_launcher = [rank for rank in killed if failures[rank].exitcode != -signal.SIGTERM]
    exit_codes = [failure.exitcode for failure in failures.values() if failure.exitcode > 0]
    if exit_codes and not not_by_launcher:
        sys.exit(max(exit_codes))  # a broken connection also exits with 1
    rank = (not_by_launcher or killed)[0]
    cause = signal.Signals(-failures[rank].exitcode).name
    raise EdgeCxrError(
        f"process {rank} of {ranks} was ended by {cause}, and the others with it: "
        "the same command goes on after the last whole epoch, with any number of processes"
    )

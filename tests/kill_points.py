"""Kills a command before every change that it makes on the disk, one after the other, and types it again.

    python -m tests.kill_points WORKSPACE REPORT FIRST STEP COMMAND...

The workspace stays as it is: each attempt has a copy. Attempt k ends by SIGKILL just before the k-th call that opens a
file for writing, brings it to the disk, renames, removes or makes something in the workspace; k runs from FIRST in
steps of STEP until a command comes to its end. Half-written files come from a limit on their size, which kills as well.
REPORT receives a JSON list, one object per attempt.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecxr.bundle.bundle import Bundle
from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError
from edgecxr.storage.folders import CARD
from edgecxr.workspace import Workspace
from tests.cli_workspace import CommandResult, edgecxr

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.utime")
SIZES = (5_000, 1_500_000)
# They differ between any two runs: how long an epoch took, and what the optimiser's file format says of the moment.
TIMED = ("history.csv", "last.pt")


def main(workspace: Path, report: Path, first: int, step: int, command: list[str]) -> None:
    """Make the attempts and write the report."""
    if command[0] != "prepare":
        importlib.import_module("torch").set_num_threads(1)  # other threads would not survive the forks
    with tempfile.TemporaryDirectory(dir=report.parent) as scratch:
        runs = Path(scratch, "runs")  # always the same, for some results hold their path

        def begin() -> None:
            shutil.rmtree(runs, ignore_errors=True)
            shutil.copytree(workspace, runs, symlinks=True)

        begin()
        # Here, so that the forks find everything imported.
        typed = edgecxr(*command, runs=runs)
        assert typed.code == 0, typed
        whole = contents(runs)
        attempts = []
        kills: list[tuple[str, int]] = [("size", size) for size in SIZES]
        while kills or first:
            kind, number = kills.pop() if kills else ("call", first)
            begin()
            prepare_death = limit if kind == "size" else count
            ended = in_child(lambda: (prepare_death(number, runs), edgecxr(*command, runs=runs))[1])  # noqa: B023
            if isinstance(ended, CommandResult) and kind == "call":
                break
            attempt: dict[str, Any] = {"kill": f"{kind} {number}", "signal": ended if isinstance(ended, int) else 0}
            attempt["half"] = half(runs)
            again = in_child(lambda: edgecxr(*command, runs=runs))
            attempt["again"] = again.err if isinstance(again, CommandResult) and again.code else ""
            now = contents(runs)
            attempt["others"] = sorted(set(whole) ^ set(now))
            attempt["differ"] = [name for name in whole if name in now and whole[name] != now[name]]
            attempts.append(attempt)
            if kind == "call":
                first += step
    report.write_text(json.dumps(attempts, indent=1))


def in_child(work: Callable[[], CommandResult]) -> CommandResult | int:
    """Do `work` in a forked process; return what it typed, or the signal that ended it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        typed = work()
        with open(write, "wb") as pipe:  # noqa: PTH123
            pipe.write(json.dumps([typed.code, typed.out, typed.err]).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as pipe:  # noqa: PTH123
        answer = pipe.read()
    status = os.waitpid(child, 0)[1]
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else CommandResult(*json.loads(answer))


def count(last: int, runs: Path) -> None:
    """Kill this process just before its change number `last` in the folder `runs`."""
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[0], (str, os.PathLike)) and Path(args[0]).is_relative_to(runs):
            if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                one_more()
        elif event in CHANGES:
            place = Path(os.fsdecode(args[0]))
            if not place.is_absolute() or place.is_relative_to(runs):
                one_more()

    sys.addaudithook(hook)
    sync = os.fsync

    def counted(descriptor: Any) -> None:
        one_more()
        sync(descriptor)

    os.fsync = counted
    artefact = importlib.import_module("edgecxr.storage.folders")
    exchange = artefact._exchange

    def swapped(path: Path, other: Path) -> bool:
        one_more()
        result: bool = exchange(path, other)
        one_more()
        return result

    artefact._exchange = swapped


def limit(size: int, runs: Path) -> None:
    """Let this process die when it writes more than `size` bytes into a file."""
    del runs
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def contents(runs: Path) -> dict[str, str]:
    """Return every file of a workspace, hidden ones too, with its bytes, or nothing where they are not comparable."""
    by_name = {}
    for path in runs.rglob("*"):
        name = str(path.relative_to(runs))
        by_name[name] = "" if path.is_dir() or path.name in TIMED else path.read_bytes().hex()
    return by_name


def half(runs: Path) -> list[str]:
    """Return what is wrong with the artefacts that other commands would take from this workspace now."""
    wrong = []
    workspace = Workspace(runs)
    for folder in sorted(runs.glob("data/[!.]*")):
        try:
            Prepared.open(folder).check()
        except EdgeCxrError as error:
            wrong.append(str(error))
    for folder in sorted(runs.glob("export/[!.]*")):
        try:
            Bundle.open(folder).artefact()
        except EdgeCxrError as error:
            wrong.append(str(error))
    for folder in workspace.finished_runs():
        try:
            importlib.import_module("edgecxr.train.checkpoint").load_run(folder)
        except EdgeCxrError as error:
            wrong.append(str(error))
    for folder in runs.iterdir():
        card = folder / CARD
        if card.exists() and not isinstance(json.loads(card.read_text()), dict):
            wrong.append(f"{card} is no object")
    return wrong


if __name__ == "__main__":
    where, to, begin_at, stride, *typed_command = sys.argv[1:]
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, write_through=True)
    main(Path(where), Path(to), int(begin_at), int(stride), typed_command)

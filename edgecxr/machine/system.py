"""Files and programs of the operating system, run with a timeout."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProgramOutcome:
    """Outcome of a program.

    Attributes:
        code: its exit code; None if it did not start or did not answer in time.
        out: standard output.
        problem: why there is no good answer, in one line; "" if the exit code is 0.
    """

    code: int | None
    out: str = ""
    problem: str = ""


def run(command: Sequence[str], timeout: float, variables: Mapping[str, str] = os.environ) -> ProgramOutcome:
    """Run a program, and kill it and its children after `timeout` seconds.

    Raises nothing.
    """
    environment = {**variables, "LC_ALL": "C"}
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        return ProgramOutcome(None, problem=f"cannot be started ({error})")
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # A process that hangs inside a driver cannot be killed: do not wait for it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return ProgramOutcome(None, problem=f"did not answer within {timeout:g} s")
    if process.returncode == 0:
        return ProgramOutcome(0, out)
    if process.returncode < 0:
        return ProgramOutcome(process.returncode, out, f"was killed by {_signal(-process.returncode)}")
    first = next((line.strip() for line in (*out.splitlines(), *err.splitlines()) if line.strip()), "")
    return ProgramOutcome(process.returncode, out, first or f"ended with code {process.returncode}")


def program(name: str) -> str | None:
    """Return the path of an installed program.

    Entries of PATH that are empty or relative are not followed: they mean the folder that a user stands in.
    """
    places = (place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if os.path.isabs(place))  # noqa: PTH117
    return shutil.which(name, path=os.pathsep.join(places))


def text_of(path: Path) -> str:
    """Return a file's text; "" if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def distribution(root: Path) -> str | None:
    """Return the name of the Linux distribution, such as "Ubuntu 22.04.4 LTS"."""
    match = re.search(r'^PRETTY_NAME="?([^"\n]+)', text_of(root / "etc/os-release"), flags=re.MULTILINE)
    return match[1] if match else None


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

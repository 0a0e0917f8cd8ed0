"""Files and programs of the operating system, asked with patience that ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ended:
    """How a program ended.

    Attributes:
        code: its exit code; None where it did not start or did not answer in time.
        out: standard output.
        problem: why there is no good answer, in one line; "" if it ended with 0.
    """

    code: int | None
    out: str = ""
    problem: str = ""


def run(command: Sequence[str], timeout: float) -> Ended:
    """Run a program; it and its children are killed after `timeout` seconds. Raises nothing."""
    environment = os.environ | {"LC_ALL": "C"}
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
        return Ended(None, problem=f"cannot be started ({error})")
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        # A process that hangs inside a driver cannot even be killed: it is not waited for.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        return Ended(None, problem=f"did not answer within {timeout:g} s")
    if process.returncode == 0:
        return Ended(0, out)
    if process.returncode < 0:
        return Ended(process.returncode, out, f"was killed by {_signal(-process.returncode)}")
    first = next((line.strip() for line in (*out.splitlines(), *err.splitlines()) if line.strip()), "")
    return Ended(process.returncode, out, first or f"ended with code {process.returncode}")


def text_of(path: Path) -> str:
    """Return a file's text; "" where it cannot be read."""
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

"""Other programs, asked with patience that ends; and Python packages, imported where a crash does no harm."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MARK = "edgecxr-doctor:"
"""Begins the line with a child's answer: libraries print on standard output what they like."""


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


@dataclass(frozen=True)
class Answer:
    """What a child process found out about a package: `facts`, or in one line the `problem` that it had."""

    facts: dict[str, Any] = field(default_factory=dict)
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


def there(module: str) -> bool:
    """Whether a top-level package can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def ask(probe: str, timeout: float) -> Answer:
    """Run one of `edgecxr.doctor.child.PROBES` in a Python with this one's import path. Raises nothing.

    Native libraries can end the process that imports them: a wheel for another CPU, a driver that does not match.
    """
    code = (
        f"import sys; sys.path[:] = {[str(entry) for entry in sys.path]!r}; "
        f"from edgecxr.doctor.child import main; main({probe!r})"
    )
    ended = run([sys.executable, "-c", code], timeout)
    lines = [line for line in ended.out.splitlines() if line.startswith(MARK)]
    if not lines:
        return Answer(problem=ended.problem or "gave no answer")
    answer = json.loads(lines[-1].removeprefix(MARK))
    return Answer(answer["facts"], answer["problem"])


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

"""Python packages, imported where a crash does no harm."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from edgecxr.machine.system import run

MARK = "edgecxr-doctor:"
"""Begins the line with a child's answer: libraries print on standard output what they like."""


@dataclass(frozen=True)
class Answer:
    """What a child process found out about a package: `facts`, or in one line the `problem` that it had."""

    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


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

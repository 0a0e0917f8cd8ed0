"""Imports of packages in child processes, which may crash."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from edgecxr.machine.system import run
from edgecxr.storage.json_values import parse_json
from edgecxr.workers.new_python import command, environment

MARK = "edgecxr-doctor:"
"""Marks the line with a child's answer, since libraries print to standard output too."""


@dataclass(frozen=True)
class Answer:
    """The answer of a child process about a package.

    Attributes:
        facts: what it found out; empty if there was a problem.
        problem: why there are no facts, in one line; "" if there are.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def there(module: str) -> bool:
    """Whether a top-level package can be found, without importing it."""
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError, AttributeError):
        return False


def ask(probe: str, timeout: float) -> Answer:
    """Run one of `edgecxr.doctor.child.PROBES` in a child process.

    The child has this process's import path. Nothing is raised. Importing native libraries can kill a process: the
    wheel may be for another CPU, or the driver may not match.
    """
    outcome = run(command("edgecxr.doctor.child:main", probe), timeout, environment())
    lines = [line for line in outcome.out.splitlines() if line.startswith(MARK)]
    if not lines:
        return Answer(problem=outcome.problem or "gave no answer")
    try:
        answer = parse_json(lines[-1].removeprefix(MARK))
        return Answer(answer["facts"], answer["problem"])
    except (ValueError, KeyError, TypeError):
        return Answer(problem="gave no answer")

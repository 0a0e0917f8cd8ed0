"""What doctor found: rows, and how they are shown to people and to programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import edgecxr
from edgecxr.errors import MissingPackage, ModelError, brief
from edgecxr.terminal import printable

FORMAT = 1
"""Raised when a key of the JSON object changes its meaning or goes."""
STATUSES = ("ok", "absent", "warn", "error")
"""From good to bad; "absent" is something optional that is not there."""
INSTALLATION, BUNDLE = MissingPackage.exit_code, ModelError.exit_code


@dataclass(frozen=True)
class Row:
    """One thing that was looked at.

    Attributes:
        section: "system", "gpu", "engines", "decoders", "workspace" or "packages".
        name: of the thing, unique in its section.
        status: one of `STATUSES`.
        value: what was found, one line for people.
        remedy: what to do; never empty unless the status is "ok".
        commands: what to type, in this order, as far as commands do it.
        facts: the value for programs.
        exit_code: of the process, if the status is "error".
    """

    section: str
    name: str
    status: str
    value: str
    remedy: str = ""
    commands: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    exit_code: int = INSTALLATION

    def __post_init__(self) -> None:
        if self.status not in STATUSES or (self.status != "ok" and not self.remedy):
            raise ValueError(f"row {self.name!r} is {self.status!r} and its remedy {self.remedy!r}")


def guarded(section: str, name: str, probe: Callable[[], Iterable[Row]]) -> list[Row]:
    """Return a probe's rows; if it raises, those it gave so far and one that says why."""
    rows: list[Row] = []
    try:
        for row in probe():
            rows.append(row)
    except Exception as error:
        rows.append(
            Row(section, name, "warn", f"cannot be looked at: {one_line(error)}", "report this with edgecxr --version")
        )
    return rows


def one_line(error: BaseException) -> str:
    """Return an exception as its type and the first line of its message."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {brief(first)}" if first else type(error).__name__


def exit_code(rows: list[Row]) -> int:
    """Return 0 without errors; 5 if the installation has one; 4 if only bundles have."""
    return max((row.exit_code for row in rows if row.status == "error"), default=0)


def as_json(rows: list[Row]) -> dict[str, Any]:
    """Return the object of --json; docs/device.md describes it."""
    worst = max((row.status for row in rows), key=STATUSES.index, default="ok")
    entries = [{key: value for key, value in asdict(row).items() if key != "exit_code"} for row in rows]
    return {
        "format": FORMAT,
        "edgecxr": edgecxr.__version__,
        "status": "ok" if worst == "absent" else worst,
        "exit_code": exit_code(rows),
        "rows": entries,
    }


def as_text(rows: list[Row]) -> str:
    """Return lines for people: the rows by section, then what to mend, the worst last."""
    lines: list[str] = []
    section, width = "", 0
    for row in rows:
        if row.section != section:
            section = row.section
            width = max(len(other.name) for other in rows if other.section == section)
            lines += ["", section] if lines else [section]
        hint = f" ({(row.commands or (row.remedy,))[0]})" if row.status == "absent" else ""
        lines.append(f"  {row.status:<7} {printable(row.name):<{width}}  {printable(row.value + hint)}")
    troubles = sorted((r for r in rows if r.status in ("warn", "error")), key=lambda row: STATUSES.index(row.status))
    lines += ["", "to mend:"] if troubles else ["", "nothing to mend"]
    told: set[tuple[str, ...]] = set()
    for row in troubles:
        lines.append(f"  {row.status}: {printable(row.name)}: {printable(row.remedy)}")
        if row.commands not in told:
            lines += [f"      {command}" for command in row.commands]
            told.add(row.commands)
    return "\n".join(lines)

"""Rows with doctor's findings, and their output as text and JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import edgecxr
from edgecxr.errors import MissingPackage, ModelError, brief
from edgecxr.terminal import aligned, joined

FORMAT = 1
"""Version of the JSON object, raised when a key changes its meaning or is removed."""
STATUSES = ("ok", "absent", "warn", "error")
"""From best to worst; "absent" means that something optional is not installed."""
INSTALLATION, BUNDLE = MissingPackage.exit_code, ModelError.exit_code


@dataclass(frozen=True)
class Row:
    """One thing that doctor checked.

    Attributes:
        section: "system", "gpu", "engines", "decoders", "workspace", "packages" or "node".
        name: of the thing, unique in its section.
        status: one of `STATUSES`.
        value: what was found, one line for people.
        remedy: what to do; never empty unless the status is "ok".
        commands: commands that help, in order; there may be none.
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
    """Return a probe's rows, whether or not it raises.

    If it raises, the rows it yielded so far are returned, and one with the error.
    """
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
    """Return an exception's type and the first line of its message."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {brief(first)}" if first else type(error).__name__


def exit_code(rows: list[Row]) -> int:
    """Return the exit code of the process.

    Returns:
        0 without errors, 5 if the installation has one, 4 if only bundles have one.
    """
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
    """Return the rows as text, by section.

    Warnings and errors follow with their remedies, the worst last.
    """
    lines = [f"edgecxr {edgecxr.__version__}"]
    for section in dict.fromkeys(row.section for row in rows):
        cells = []
        for row in rows:
            if row.section == section:
                hint = f" ({(row.commands or (row.remedy,))[0]})" if row.status == "absent" else ""
                cells.append([f"  {row.status:<6}", row.name, row.value + hint])
        lines += ["", section]
        lines += aligned(cells)
    troubles = sorted((r for r in rows if r.status in ("warn", "error")), key=lambda row: STATUSES.index(row.status))
    lines += ["", "to mend:"] if troubles else ["", "nothing to mend"]
    printed: set[tuple[str, ...]] = set()
    for row in troubles:
        lines.append(f"  {row.status}: {row.name}: {row.remedy}")
        if row.commands not in printed:
            lines += [f"      {command}" for command in row.commands]
            printed.add(row.commands)
    return joined(lines)

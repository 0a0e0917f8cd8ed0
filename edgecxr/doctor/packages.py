"""Rows about the extras of edgecxr, and the commands that complete them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edgecxr.doctor.engines import onnxruntime_flavours
from edgecxr.doctor.listing import Row
from edgecxr.extras import BASE, command, installed, requirements

if TYPE_CHECKING:
    from packaging.requirements import Requirement


def rows() -> Iterator[Row]:
    """Yield one row per extra."""
    stated = requirements()
    if not stated:
        yield Row("packages", "edgecxr", "warn", "runs from a folder without being installed", "install it",
                  (command(BASE),))  # fmt: skip
    for extra, needs in stated.items():
        yield _row(extra, needs)


def _row(extra: str, needs: list[Requirement]) -> Row:
    faults = [fault for need in needs if (fault := _fault(need))]
    name = f"extra {extra}" if extra else "base install"
    facts = {"extra": extra, "complete": not faults, "faults": faults}
    if not faults:
        return Row("packages", name, "ok", "complete", facts=facts)
    value = ", ".join(faults[:4]) + (f" and {len(faults) - 4} more" if len(faults) > 4 else "")
    if extra == BASE:
        remedy = "edgecxr does not work without these"
        return Row("packages", name, "error", f"missing {value}", remedy, (command(BASE),), facts)
    return Row("packages", name, "absent", f"missing {value}", "optional", (command(extra),), facts)


def _fault(need: Requirement) -> str:
    """Return what is wrong with a requirement; "" if it is fulfilled."""
    version = installed(need.name)
    if version is None and need.name == "onnxruntime":
        version = next(iter(onnxruntime_flavours().values()), None)  # any flavour provides the module
    if version is None:
        return need.name
    fits = need.specifier.contains(version, prereleases=True)
    return "" if fits else f"{need.name}{need.specifier} (there is {version})"

"""The workspace: whether it can be written, what is in it, and whether its bundles are whole."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from edgecxr.doctor.listing import BUNDLE, Row
from edgecxr.errors import EdgeCxrError, ModelError
from edgecxr.storage.folders import CARD, DATASET
from edgecxr.workspace import Workspace

GIB = 2**30
PATIENCE = 10.0
"""Seconds after which no further bundle is read."""


def place() -> Iterator[Row]:
    """Yield where the workspace is and whether it can be written, with the space that is free there."""
    set_by = "EDGECXR_RUNS" if os.environ.get("EDGECXR_RUNS") else "the current folder"
    elsewhere = "set EDGECXR_RUNS to a folder that can be written"
    try:
        root = Workspace.default().root.absolute()
    except EdgeCxrError as error:
        yield Row("workspace", "place", "warn", str(error), elsewhere)
        return
    existing = next(folder for folder in (root, *root.parents) if os.path.isdir(folder))
    problem = _cannot_write(existing)
    free = shutil.disk_usage(existing).free
    facts = {"path": str(root), "set_by": set_by, "exists": existing == root, "writable": not problem}
    facts |= {"free_bytes": free}
    value = f"{root} (from {set_by}" + ("" if existing == root else ", not made yet") + f"), {free / GIB:.1f} GiB free"
    if problem:
        yield Row("workspace", "place", "warn", f"{value}, cannot be written: {problem}", elsewhere, facts=facts)
    elif free < GIB:
        yield Row(
            "workspace", "place", "warn", value, f"less than 1 GiB is free: free some, or {elsewhere}", facts=facts
        )
    else:
        yield Row("workspace", "place", "ok", value, facts=facts)


def contents() -> Iterator[Row]:
    """Yield the data sets and the runs."""
    workspace = Workspace.default()
    data = sorted(path.parent.name for path in (workspace.root / "data").glob(f"[!.]*/{DATASET}"))
    finished = sorted(path.name for path in workspace.finished_runs())
    begun = sorted(path.parent.name for path in workspace.root.glob("[!.]*/config.json"))
    unfinished = [name for name in begun if name not in finished]
    yield Row("workspace", "data sets", "ok", _names(data), facts={"names": data})
    value = _names(finished) + (f"; not finished: {_names(unfinished)}" if unfinished else "")
    yield Row("workspace", "runs", "ok", value, facts={"finished": finished, "unfinished": unfinished})


def bundles() -> Iterator[Row]:
    """Yield each bundle of the workspace, and that of EDGECXR_MODEL, with the state of its checksums."""
    root = Workspace.default().root
    found = {path.parent.name: path.parent for path in sorted((root / "export").glob(f"[!.]*/{CARD}"))}
    # A bundle whose card is lost is no bundle to other commands, but somebody will look for it here.
    found |= {path.parent.name: path.parent for path in sorted((root / "export").glob("[!.]*/SHA256SUMS"))}
    named = os.environ.get("EDGECXR_MODEL")
    if named:
        yield _named(Workspace(root), named)
    elif not found:
        yield Row("workspace", "bundles", "ok", "none", facts={"names": []})
    started = time.monotonic()
    for name, folder in found.items():
        if time.monotonic() - started > PATIENCE:
            yield Row("workspace", f"bundle {name}", "absent", "not checked, for want of time", "it checks one bundle",
                      (f"edgecxr bundle verify {name}",))  # fmt: skip
        else:
            yield _bundle(name, folder)


def _named(workspace: Workspace, named: str) -> Row:
    from edgecxr import resolve

    try:
        folder = resolve.bundle(workspace, named)
    except EdgeCxrError as error:
        remedy = "give EDGECXR_MODEL the path of a bundle, or unset it"
        return Row("workspace", "bundle EDGECXR_MODEL", "error", str(error), remedy, exit_code=BUNDLE)
    return _bundle("EDGECXR_MODEL", folder)


def _bundle(name: str, folder: Path) -> Row:
    from edgecxr.bundle.bundle import Bundle

    facts = {"path": str(folder), "whole": False}
    try:
        card = Bundle.open(folder).card
    except ModelError as error:
        problem, _, remedy = str(error).rpartition(": ")
        return Row("workspace", f"bundle {name}", "error", problem, remedy, facts=facts, exit_code=BUNDLE)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    precisions = sorted({str(entry.get("precision")) for entry in card.artefacts.values()})
    value = f"whole, {', '.join(precisions) or 'no model'}, {size / 2**20:.1f} MiB"
    return Row("workspace", f"bundle {name}", "ok", value,
               facts=facts | {"whole": True, "precisions": precisions, "bytes": size})  # fmt: skip


def _cannot_write(folder: Path) -> str:
    """Return why no file can be made in a folder, "" if one can; none is left there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _names(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"

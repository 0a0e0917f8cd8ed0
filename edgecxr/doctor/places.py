"""Rows about the workspace: write access, contents, and intact bundles."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edgecxr.doctor.listing import BUNDLE, INSTALLATION, Row
from edgecxr.errors import EdgeCxrError, ModelError
from edgecxr.storage.folders import CARD, DATASET
from edgecxr.storage.walk import names_below
from edgecxr.workspace import Workspace

GIB = 2**30
PATIENCE = 10.0
"""Seconds after which no further bundle is read."""


def place() -> Iterator[Row]:
    """Yield the workspace's path, write access and free space."""
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


def signed() -> Iterator[Row]:
    """Yield whether only signed bundles run."""
    from edgecxr.bundle.signature import TRUSTED, keys_folder, trusted_keys

    facts: dict[str, object] = {"only_signed": True, "keys": []}
    try:
        folder = keys_folder()
        if folder is None:
            value = f"any bundle runs, signed or not ({TRUSTED} is not set)"
            yield Row("workspace", "signed bundles", "ok", value, facts=facts | {"only_signed": False})
            return
        keys = sorted(trusted_keys(folder))
    except EdgeCxrError as error:
        problem, _, remedy = str(error).rpartition(": ")
        yield Row("workspace", "signed bundles", "error", f"no bundle runs: {problem}", remedy, facts=facts)
        return
    value = f"only those run that one of {len(keys)} keys in {folder} has signed"
    yield Row("workspace", "signed bundles", "ok", value, facts=facts | {"folder": str(folder), "keys": keys})


def bundles() -> Iterator[Row]:
    """Yield whether each bundle's checksums match.

    These are the bundles of the workspace and the one of EDGECXR_MODEL. After `PATIENCE` seconds the remaining bundles
    are reported as not checked.
    """
    root = Workspace.default().root
    folders = {path.parent.name: path.parent for path in sorted((root / "export").glob(f"[!.]*/{CARD}"))}
    # Other commands ignore a bundle without a card, but doctor should report it.
    folders |= {path.parent.name: path.parent for path in sorted((root / "export").glob("[!.]*/SHA256SUMS"))}
    model = os.environ.get("EDGECXR_MODEL")
    if model:
        yield _named(Workspace(root), model)
    elif not folders:
        yield Row("workspace", "bundles", "ok", "none", facts={"names": []})
    started = time.monotonic()
    for name, folder in folders.items():
        if time.monotonic() - started > PATIENCE:
            yield Row("workspace", f"bundle {name}", "absent", "not checked, for want of time", "it checks one bundle",
                      (f"edgecxr bundle verify {name}",))  # fmt: skip
        else:
            yield _bundle(name, folder)


def shipped_bundles() -> Iterator[Row]:
    """Yield whether the bundles that come with edgecxr are whole.

    Commands take such a bundle where there is no other one. It is not signed, so it never runs where only signed ones
    do; that is no fault.
    """
    from edgecxr import resolve
    from edgecxr.bundle.signature import TRUSTED

    for folder in resolve.shipped():
        name = f"bundle {folder.name} of edgecxr"
        if TRUSTED in os.environ:
            value = f"comes with edgecxr, and does not run here: {TRUSTED} lets only signed bundles run"
            yield Row("workspace", name, "ok", value, facts={"path": str(folder)})
            continue
        row = _bundle(folder.name, folder)
        again = "install edgecxr again, or use a bundle of your own"
        yield replace(row, name=name, remedy=again if row.remedy else "", exit_code=INSTALLATION)


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
    size = sum(_size(folder / name) for name in names_below(folder))
    precisions = sorted({str(entry.get("precision")) for entry in card.artefacts.values()})
    value = f"whole, {', '.join(precisions) or 'no model'}, {size / 2**20:.1f} MiB"
    return Row("workspace", f"bundle {name}", "ok", value,
               facts=facts | {"whole": True, "precisions": precisions, "bytes": size})  # fmt: skip


def _size(path: Path) -> int:
    with suppress(OSError):  # removed meanwhile, or its name is too long
        return path.lstat().st_size
    return 0


def _cannot_write(folder: Path) -> str:
    """Return why a folder cannot be written, "" if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _names(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "") if names else "none"

"""From what a user types after `prepare` to a data set."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecxr.data.dataset import CxrDataset
from edgecxr.data.tables.labels import is_finding
from edgecxr.errors import UsageError
from edgecxr.registry import DATASETS, resolve
from edgecxr.workspace import Workspace

_OWN_LABELS = ("folder", "phantom")
"""Whose labels are columns of a user's table, or made up: sets of labels mean nothing there."""


def open_source(
    kind: str,
    path: Path | None,
    options: dict[str, Any],
    listed: dict[str, str | None],
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None],
    workspace: Workspace,
) -> CxrDataset:
    """Open a data set by the name of its adapter.

    Args:
        kind: a key of `edgecxr.registry.DATASETS`.
        path: where it lies; a phantom without one is made in the workspace.
        options: what the user gave, None where nothing.
        listed: the same for options that are lists, "A,B,C".
        seed: of random splits and phantom films.
        workers: processes that make a phantom.
        progress: told how many phantom films there are.
        workspace: where a phantom is made.

    Raises:
        UsageError: an unknown adapter, one that does not take a given option, or a missing path.
        InputError: the data set is not as the adapter expects.
    """
    adapter = resolve(DATASETS, kind, "data set")
    given = {key: value for key, value in options.items() if value is not None}
    for key, text in listed.items():
        if text is not None:
            items = [item.strip() for item in text.split(",") if item.strip()]
            given[key] = items[0] if key == "labels" and kind not in _OWN_LABELS and _is_label_set(items) else items
    name = given.pop("name", "phantom") if kind == "phantom" else ""
    known = inspect.signature(adapter).parameters
    wrong = [f"--{key.replace('_', '-')}" for key in given if key not in known]
    if wrong:
        raise UsageError(f"data set {kind} takes no {', '.join(wrong)}")
    if kind == "phantom":
        source = adapter(path or workspace.root / name, **given, seed=seed, workers=workers, progress=progress)
        source.name = name
        return source
    if path is None:
        raise UsageError(f"where does the {kind} data set lie? edgecxr prepare {kind} PATH")
    return adapter(path, **given, seed=seed)


def _is_label_set(items: list[str]) -> bool:
    """Whether what was typed names a set of labels or a file, or was meant to, rather than a single finding."""
    return len(items) == 1 and not is_finding(items[0])

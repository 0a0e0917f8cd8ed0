"""Opening of the data set that a user names after `prepare`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.labels import is_finding
from edgecxr.errors import UsageError
from edgecxr.registry import DATASETS, resolve
from edgecxr.workspace import Workspace

_OWN_LABELS = ("folder", "phantom")
"""Adapters whose labels are columns of a user's table or made up: label sets mean nothing to them."""


def open_source(
    kind: str,
    path: Path | None,
    options: dict[str, Any],
    listed: dict[str, str | None],
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None],
    workspace: Workspace,
) -> Dataset:
    """Open a data set by the name of its adapter.

    Args:
        kind: a key of `edgecxr.registry.DATASETS`.
        path: location of the data set; a phantom without a path is made in the workspace.
        options: the user's options; None for those not given.
        listed: the same for options that are lists, "A,B,C".
        seed: seed of random splits and phantom films.
        workers: number of processes that make a phantom.
        progress: called with (phantom films done, phantom films in all).
        workspace: where a phantom is made.

    Raises:
        UsageError: an unknown adapter, an option that the adapter does not have, or a missing path.
        InputError: the data set is not as the adapter expects.
    """
    adapter = resolve(DATASETS, kind, "data set")
    given_options = {key: value for key, value in options.items() if value is not None}
    for key, text in listed.items():
        if text is not None:
            items = [item.strip() for item in text.split(",") if item.strip()]
            given_options[key] = items[0] if key == "labels" and _is_label_set(kind, items) else items
    name = given_options.pop("name", "phantom") if kind == "phantom" else ""
    parameters = inspect.signature(adapter).parameters
    wrong = [f"--{key.replace('_', '-')}" for key in given_options if key not in parameters]
    if wrong:
        raise UsageError(f"data set {kind} takes no {', '.join(wrong)}")
    if kind == "phantom":
        source = adapter(path or workspace.root / name, **given_options, seed=seed, workers=workers, progress=progress)
        return dataclasses.replace(source, name=name)
    if path is None:
        raise UsageError(f"where does the {kind} data set lie? edgecxr prepare {kind} PATH")
    return adapter(path, **given_options, **({"seed": seed} if "seed" in parameters else {}))


def _is_label_set(kind: str, items: list[str]) -> bool:
    """Return whether the items name a label set or a file.

    Any single item that is not a known finding counts, since it may be a mistyped name of a set. For a folder only a
    file does.
    """
    if kind in _OWN_LABELS:
        return kind == "folder" and len(items) == 1 and items[0].lower().endswith(".toml")
    return len(items) == 1 and not is_finding(items[0])

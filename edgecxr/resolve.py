"""Which data set, teacher, run or bundle a command takes when none is named, and what stands behind a name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecxr.bundle.bundle import SUMS
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.storage.folders import CARD
from edgecxr.workspace import Workspace

if TYPE_CHECKING:
    from edgecxr.data.prepared import Prepared


def dataset(workspace: Workspace, name: str | None) -> Prepared:
    """Open the prepared data set `name`, or the latest; a name that ends in .npz is the path of a pack.

    Raises:
        InputError: there is none.
    """
    from edgecxr.data.pack import SUFFIX, open_pack
    from edgecxr.data.prepared import Prepared

    if name and name.endswith(SUFFIX):
        return open_pack(Path(name))
    return Prepared.open(workspace.latest_dataset(name))


def dataset_of(workspace: Workspace, card: ModelCard, name: str | None) -> Prepared:
    """Open the data set `name`, or the one that the model of `card` was trained on.

    Raises:
        InputError: it is gone, or its contents are others by now.
    """
    own = card.data.get("name")
    if name is None and own is None:
        raise InputError(
            f"{card.name} does not say what data it was trained on: name a data set with --data", "dataset"
        )
    prepared = dataset(workspace, name or str(own))
    if name is None and prepared.hash != card.data.get("hash"):
        raise InputError(
            f"data set {prepared.name} in {prepared.path} is not the one that {card.name} was trained on: name "
            "one with --data to use it anyway",
            "dataset",
        )
    return prepared


def run(
    workspace: Workspace, name: str | None, prefix: str = "", fits: Callable[[ModelCard], bool] | None = None
) -> Path:
    """Return the folder of a finished run.

    Args:
        workspace: where to look.
        name: of a run in the workspace, or a path; None takes the latest.
        prefix: what the names of the runs in question begin with, such as "teacher-".
        fits: a condition on the card, if none is named.

    Raises:
        ModelError: there is none, or the one that was named is not finished.
    """
    if name is None:
        return workspace.latest_run(prefix, (lambda folder: fits(read_card(folder))) if fits else None)
    for folder in (workspace.root / name, Path(name)):
        if os.path.isfile(folder / CARD):
            return folder
    _refuse_unfinished((workspace.root / name, Path(name)))
    raise ModelError(f"{name} is no finished run, neither in {workspace.root} nor as a path{_choice(workspace)}")


def teacher(workspace: Workspace, name: str | None, prepared: Prepared) -> Path:
    """Return the teacher `name`, or the latest that was trained on this data set for these labels.

    Raises:
        ModelError: there is none.
    """

    def fits(card: ModelCard) -> bool:
        return card.method == "teacher" and card.labels == prepared.labels and card.data.get("hash") == prepared.hash

    try:
        folder = run(workspace, name, "teacher-", fits)
    except ModelError as error:
        if name is not None:
            raise
        raise ModelError(
            f"no finished teacher for data set {prepared.name} in {workspace.root}: make one with "
            f"`edgecxr train --data {prepared.name}`"
        ) from error
    card = read_card(folder)
    if card.method != "teacher":
        raise UsageError(f"{card.name} is a student: --teacher takes a run of `edgecxr train`")
    if card.labels == prepared.labels and card.data.get("hash") != prepared.hash:
        # Another division of the same films would let the student learn from its own test films.
        raise UsageError(
            f"teacher {card.name} was trained on other data than {prepared.name} in {prepared.path}: "
            f"edgecxr train --data {prepared.name}"
        )
    return folder


def bundle(workspace: Workspace, name: str | None) -> Path:
    """Return the folder of a bundle: the path or name that was given, EDGECXR_MODEL, or the latest.

    Raises:
        ModelError: there is none.
    """
    name = name or os.environ.get("EDGECXR_MODEL")
    if not name:
        try:
            return workspace.latest_bundle()
        except ModelError as error:
            raise ModelError(
                f"no bundle in {workspace.root / 'export'}: name one with --model or EDGECXR_MODEL"
                f"{_bundles(workspace)}, or make one with `edgecxr export`"
            ) from error
    try:
        inside = workspace.export_dir(name)
    except UsageError:  # a path, which cannot be a name
        inside = Path(name)
    if os.path.exists(name):
        return Path(name)
    if not os.path.isdir(inside):
        raise ModelError(
            f"{name} does not exist, nor is it a bundle in {workspace.root / 'export'}: name another"
            f"{_bundles(workspace)}, or make one with `edgecxr export`"
        )
    return inside


def run_or_bundle(workspace: Workspace, name: str | None) -> Path:
    """Return the folder of the run or bundle `name` (a run, where both have the name), or of the latest run.

    Raises:
        ModelError: there is none.
    """
    if name is None:
        return run(workspace, None)
    places = (workspace.root / name, Path(name), workspace.root / "export" / name)
    for folder in places:
        if os.path.isfile(folder / CARD):
            return folder
    _refuse_unfinished(places)
    looked = ", ".join(map(str, places))
    raise ModelError(f"{name} is neither a finished run nor a bundle (looked at {looked}){_choice(workspace)}")


def runs_and_bundles(workspace: Workspace, name: str) -> list[Path]:
    """Return the folders of the run and of the bundle `name`; of one of them, where the other is not there.

    Raises:
        ModelError: there is neither.
    """
    first = run_or_bundle(workspace, name)
    other = workspace.root / "export" / name
    return [first, *([other] if other != first and os.path.isfile(other / CARD) else [])]


def _refuse_unfinished(places: Iterable[Path]) -> None:
    for folder in places:
        if os.path.isfile(folder / "config.json"):
            raise ModelError(f"{folder} is not finished: the command that began it goes on with it")


def _choice(workspace: Workspace) -> str:
    """Return the end of a message: the runs that there are, or how to make one."""
    names = [folder.name for folder in workspace.finished_runs()]
    return f": there are {', '.join(sorted(names))}" if names else ": make one with `edgecxr train`"


def _bundles(workspace: Workspace) -> str:
    """Return what a message says of the bundles in the workspace and in the current folder; "" where there are none."""
    places = [folder for parent in (workspace.root / "export", Path()) for folder in sorted(parent.glob("*"))]
    whole = [folder for folder in places if os.path.isfile(folder / SUMS) and os.path.isfile(folder / CARD)]
    found = dict.fromkeys(folder.name for folder in whole)
    return f" (there are {', '.join(found)})" if found else ""

"""Lookup of data sets, teachers, runs and bundles, by name or default."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from edgecxr.bundle.bundle import SUMS
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.storage.folders import CARD
from edgecxr.terminal import say
from edgecxr.workspace import Workspace

if TYPE_CHECKING:
    from edgecxr.data.prepared import Prepared

SHIPPED = Path(__file__).parent / "bundles"
"""Where the bundles are that come with edgecxr."""


def dataset(workspace: Workspace, name: str | None) -> Prepared:
    """Open the prepared data set `name`, or the latest.

    It says which one is the latest.

    A name that ends in .npz is the path of a pack.

    Raises:
        InputError: there is none.
    """
    from edgecxr.data.pack import SUFFIX, open_pack
    from edgecxr.data.prepared import Prepared

    if name and name.endswith(SUFFIX):
        return open_pack(Path(name))
    folder = workspace.latest_dataset(name)
    if name is None:
        say(f"using data set {folder.name}, the latest")
    return Prepared.open(folder)


def dataset_of(workspace: Workspace, card: ModelCard, name: str | None) -> Prepared:
    """Open the data set `name`, or the training data of a model.

    The model is the one that `card` describes.

    Raises:
        InputError: the data set is missing or not named in the card, or its contents changed since the training.
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


def training_data(workspace: Workspace, name: str | None, teacher: str | None) -> Prepared:
    """Open the data set `name`, a teacher's, or the latest.

    Raises:
        InputError: there is none, or the teacher's has changed since its training.
        ModelError: there is no such teacher.
    """
    if name is None and teacher is not None:
        prepared = dataset_of(workspace, read_card(run(workspace, teacher)), None)
        say(f"using data set {prepared.name}, that of {teacher}")
        return prepared
    return dataset(workspace, name)


def run(
    workspace: Workspace, name: str | None, kind: str = "", fits: Callable[[ModelCard], bool] | None = None
) -> Path:
    """Return the folder of a finished run.

    If none is named, it says which one it is.

    Args:
        workspace: where to look.
        name: name of a run in the workspace, or a path; None means the latest.
        kind: if no run is named, "teacher", "student" or "" for any.
        fits: if no run is named, a condition on its card.

    Raises:
        ModelError: there is none, or the named run is not finished.
    """
    if name is None:
        for folder in workspace.finished_runs():
            card = read_card(folder)
            if kind in ("", "teacher" if card.method == "teacher" else "student") and (fits is None or fits(card)):
                say(f"using {folder.name}, the latest {kind or 'run'}")
                return folder
        command = "edgecxr distill" if kind == "student" else "edgecxr train"
        raise ModelError(
            f"no finished run of a fitting {kind or 'model'} in {workspace.root}: make one with `{command}`"
        )
    for folder in (workspace.root / name, Path(name)):
        if os.path.isfile(folder / CARD):
            return folder
    _refuse_unfinished((workspace.root / name, Path(name)))
    raise ModelError(f"{name} is no finished run, neither in {workspace.root} nor as a path{_choice(workspace)}")


def teacher(workspace: Workspace, name: str | None, prepared: Prepared) -> Path:
    """Return the teacher `name`, or the latest that fits this data set.

    A teacher fits if it was trained on the same data for the same labels.

    Raises:
        ModelError: there is none.
        UsageError: the named run is a student, or was trained for the same labels on other data.
    """

    def fits(card: ModelCard) -> bool:
        return card.labels == prepared.labels and card.data.get("hash") == prepared.hash

    missing = f"no finished teacher for data set {prepared.name} in {workspace.root}: make one with "
    folder = _run_or(f"{missing}`edgecxr train --data {prepared.name}`", workspace, name, "teacher", fits)
    card = read_card(folder)
    if card.method != "teacher":
        raise UsageError(f"{card.name} is a student: --teacher takes a run of `edgecxr train`")
    if card.labels == prepared.labels and card.data.get("hash") != prepared.hash:
        # With another split of the same films, the teacher may have learnt from the student's test films.
        raise UsageError(
            f"teacher {card.name} was trained on other data than {prepared.name} in {prepared.path}: "
            f"edgecxr train --data {prepared.name}"
        )
    return folder


def undistilled(workspace: Workspace, name: str | None, prepared: Prepared, size: int) -> Path:
    """Return an undistilled student: `name`, or the latest that fits.

    It fits if it was trained on the same data, and sees images of the same size.

    Raises:
        ModelError: there is none.
        UsageError: the named run does not fit.
    """

    def fits(card: ModelCard) -> bool:
        return card.method == "none" and card.size == size and card.data.get("hash") == prepared.hash

    remedy = f"make one with `edgecxr distill --res {size} --method none --data {prepared.name}`"
    missing = f"no finished student of {size} px without a teacher on {prepared.name} in {workspace.root}: {remedy}"
    folder = _run_or(missing, workspace, name, "student", fits)
    if not fits(read_card(folder)):
        raise UsageError(f"{folder} is no student of {size} px that learnt {prepared.name} without a teacher: {remedy}")
    return folder


def _run_or(missing: str, workspace: Workspace, name: str | None, kind: str, fits: Callable[[ModelCard], bool]) -> Path:
    """Return a run as `run` does, or raise `missing` where none fits."""
    try:
        return run(workspace, name, kind, fits)
    except ModelError as error:
        if name is not None:
            raise
        raise ModelError(missing) from error


def bundle(workspace: Workspace, name: str | None, own: bool = False) -> Path:
    """Return the folder of a bundle.

    It is the given path or name, else EDGECXR_MODEL, else the latest bundle, else the one that comes with edgecxr.

    Args:
        workspace: where to look.
        name: name of a bundle there or of one that comes with edgecxr, or a path.
        own: take none that comes with edgecxr, unless it is named.

    Raises:
        ModelError: there is none.
        UsageError: its name is empty.
    """
    if name == "":
        raise UsageError("the name of the bundle is empty: give one, or None for the latest")
    name = name or os.environ.get("EDGECXR_MODEL")
    if not name:
        try:
            return workspace.latest_bundle()
        except ModelError as error:
            for folder in [] if own else shipped():
                say(
                    f"no bundle in {workspace.root / 'export'}: taking {folder.name}, which comes with edgecxr for a "
                    f"first try (edgecxr bundle show {folder.name} says how weak it is)"
                )
                return folder
            raise ModelError(
                f"no bundle in {workspace.root / 'export'}: name one, or set EDGECXR_MODEL"
                f"{_bundles(workspace)}, or make one with `edgecxr export`{_shipped()}"
            ) from error
    try:
        exported = workspace.export_dir(name)
    except UsageError:  # a path, not a name
        exported = Path(name)
    if os.path.exists(name):
        return Path(name)
    if not os.path.isdir(exported):
        for folder in shipped():
            if folder.name == name:
                return folder
        raise ModelError(
            f"{name} does not exist, nor is it a bundle in {workspace.root / 'export'}: name another"
            f"{_bundles(workspace)}, or make one with `edgecxr export`{_shipped()}"
        )
    return exported


def chosen_bundle(workspace: Workspace, name: str | None, own: bool = False) -> Path:
    """Return a bundle as `bundle` does, and print an unnamed one's name.

    Arguments and errors are those of `bundle`.
    """
    folder = bundle(workspace, name, own)
    if name is None and os.environ.get("EDGECXR_MODEL"):
        say(f"using {folder.name}, which EDGECXR_MODEL names")
    elif name is None and folder.parent == workspace.root / "export":
        others = len(workspace.bundles())
        say(
            f"using {folder.name}, "
            + (f"the latest of {others} bundles" if others > 1 else "the only bundle")
            + f" in {folder.parent}"
        )
    return folder


def refuse_shipped(workspace: Workspace, folder: Path) -> None:
    """Refuse to add files to a bundle that comes with edgecxr.

    Raises:
        UsageError: it is one; says how to copy it.
    """
    if folder.resolve() in [each.resolve() for each in shipped()]:
        exports = workspace.root / "export"
        place, copied = shlex.quote(str(exports)), shlex.quote(str(exports / f"my-{folder.name}"))
        raise UsageError(
            f"{folder.name} comes with edgecxr, whose files stay as they are: take a copy "
            f"(`mkdir -p {place} && cp -r {shlex.quote(str(folder))} {copied}`)"
        )


def shipped() -> list[Path]:
    """Return the folders of the bundles that come with edgecxr."""
    return sorted(folder for folder in SHIPPED.glob("*") if os.path.isfile(folder / CARD))


def _shipped() -> str:
    """Return a message's ending: the bundles that come with edgecxr."""
    names = ", ".join(folder.name for folder in shipped())
    return f"; for a first try, name {names}, which comes with edgecxr" if names else ""


def run_or_bundle(workspace: Workspace, name: str | None) -> Path:
    """Return the folder of the run or bundle `name`.

    A run comes before a bundle of the same name, and that before one that comes with edgecxr. None means the latest
    run.

    Raises:
        ModelError: there is none.
    """
    if name is None:
        return run(workspace, None)
    places = (workspace.root / name, Path(name), workspace.root / "export" / name)
    for folder in places:
        if os.path.isfile(folder / CARD):
            return folder
    for folder in shipped():
        if folder.name == name:
            return folder
    _refuse_unfinished(places)
    searched = ", ".join(map(str, places))
    raise ModelError(
        f"{name} is neither a finished run nor a bundle (looked at {searched}){_choice(workspace)}{_shipped()}"
    )


def runs_and_bundles(workspace: Workspace, name: str) -> list[Path]:
    """Return the folders of the run and the bundle called `name`.

    If only one of them exists, only that one is returned.

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
    """Return a message's ending: the existing runs, or how to make one."""
    names = [folder.name for folder in workspace.finished_runs()]
    return f": there are {', '.join(sorted(names))}" if names else ": make one with `edgecxr train`"


def _bundles(workspace: Workspace) -> str:
    """Return the part of a message that names the existing bundles.

    It looks in the workspace and in the current folder, and returns "" if there are none.
    """
    places = [folder for parent in (workspace.root / "export", Path()) for folder in sorted(parent.glob("*"))]
    whole = [folder for folder in places if os.path.isfile(folder / SUMS) and os.path.isfile(folder / CARD)]
    names = dict.fromkeys(folder.name for folder in whole)
    return f" (there are {', '.join(names)})" if names else ""

"""Which models are compared when none is named: a teacher and its students, on one data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecxr import select
from edgecxr.bench.evaluation import Answered, answer
from edgecxr.errors import InputError, ModelError
from edgecxr.runtime.types import ModelCard
from edgecxr.workspace import Workspace


def answers(
    workspace: Workspace,
    names: list[str],
    data: str | None,
    split: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answered]:
    """Run several models over the same split of one data set.

    Args:
        workspace: where to look.
        names: runs or bundles.
        data: prepared data set; None takes the one that the first was trained on.
        split: its split.
        progress: called with (images done, images in all), from 0 again for each model.

    Raises:
        InputError: two models answer different labels.
    """
    first = answer(workspace, names[0], data, split, progress)
    others = [answer(workspace, name, first.prepared.name, split, progress) for name in names[1:]]
    for other in others:
        if other.card.labels != first.card.labels:
            raise InputError(
                f"{other.card.name} answers other labels than {first.card.name}: compare like with like", "dataset"
            )
    return [first, *others]


def every_resolution(workspace: Workspace, data: str | None) -> list[str]:
    """Return the latest teacher of a data set, and its latest distilled student at each resolution, largest first.

    Raises:
        ModelError: there is no teacher or no student.
    """
    runs = _runs(workspace, data)
    teacher = _first(runs, lambda card: card.method == "teacher", "edgecxr train")
    found: dict[int, str] = {}
    for folder, card in runs:
        if card.method not in ("teacher", "none"):
            found.setdefault(card.size, folder.name)
    if not found:
        raise ModelError(f"no distilled student in {workspace.root}: make one with `edgecxr distill --res 28`")
    return [teacher[0].name, *(found[size] for size in sorted(found, reverse=True))]


def figure_three(workspace: Workspace, data: str | None) -> list[str]:
    """Return the latest MLCAK student's teacher, the undistilled student of the same size, and that student.

    Raises:
        ModelError: one of them is missing; the message has the command that makes it.
    """
    runs = _runs(workspace, data)
    folder, card = _first(runs, lambda card: card.method == "mlcak", "edgecxr distill --res 28")
    again = f"edgecxr distill --res {card.size} --method none"
    plain = _first(runs, lambda other: other.method == "none" and other.size == card.size, again)
    teacher = _first(runs, lambda other: other.name == card.teacher, "edgecxr train")
    return [teacher[0].name, plain[0].name, folder.name]


def _runs(workspace: Workspace, data: str | None) -> list[tuple[Path, ModelCard]]:
    """Return the finished runs of one data set, the latest first; of the latest run's, if none is named."""
    runs = [(folder, select.card_of(folder)) for folder in workspace.finished_runs()]
    wanted = data or next((card.data.get("name") for _, card in runs), None)
    return [(folder, card) for folder, card in runs if card.data.get("name") == wanted]


def _first(
    runs: list[tuple[Path, ModelCard]], fits: Callable[[ModelCard], bool], command: str
) -> tuple[Path, ModelCard]:
    for folder, card in runs:
        if fits(card):
            return folder, card
    raise ModelError(f"a model to compare with is missing: make it with `{command}`, or name the models")

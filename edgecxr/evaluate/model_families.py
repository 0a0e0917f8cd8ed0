"""Which models are compared when none is named: a teacher and its students, on one data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecxr import resolve
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import ModelError
from edgecxr.evaluate.evaluation import Answered, answer, check_same_data
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
        data: prepared data set; None takes the one that they were trained on.
        split: its split.
        progress: called with (images done, images in all), from 0 again for each model.

    Raises:
        InputError: they were trained on different data, and none is named; or the data set has other labels.
    """
    models = [answer(workspace, name, data, split, progress) for name in names]
    check_same_data(models)
    return models


def every_resolution(workspace: Workspace, data: str | None) -> list[str]:
    """Return the teacher of the latest distilled student, and its latest students of every resolution, largest first.

    Those have that student's architecture, blocks and tokens, and its teacher.

    Raises:
        ModelError: there is no student, or its teacher is gone.
    """
    runs = _runs(workspace, data)
    _, latest = _first(runs, lambda card: card.method not in ("teacher", "none"), "edgecxr distill --res 28")
    teacher, _ = _first(runs, lambda card: _taught(card, latest), "edgecxr train")
    found: dict[int, str] = {}
    for folder, card in runs:
        if card.method not in ("teacher", "none") and _is_alike(card, latest) and _teacher(card) == _teacher(latest):
            found.setdefault(card.size, folder.name)
    return [teacher.name, *(found[size] for size in sorted(found, reverse=True))]


def figure_three(workspace: Workspace, data: str | None) -> list[str]:
    """Return the latest MLCAK student's teacher, an undistilled student that is like it, and that student.

    Raises:
        ModelError: one of them is missing; the message has the command that makes it.
    """
    runs = _runs(workspace, data)
    folder, card = _first(runs, lambda card: card.method == "mlcak", "edgecxr distill --res 28")
    teacher, _ = _first(runs, lambda other: _taught(other, card), "edgecxr train")
    again = f"edgecxr distill --res {card.size} --method none --teacher {teacher.name} --arch {card.arch}"
    again += f" --depth {card.depth} --tokens {card.tokens} --input {card.input} --stem {card.stem}"
    plain, _ = _first(runs, lambda o: o.method == "none" and o.size == card.size and _is_alike(o, card), again)
    return [teacher.name, plain.name, folder.name]


def _is_alike(card: ModelCard, other: ModelCard) -> bool:
    return all(getattr(card, key) == getattr(other, key) for key in ("arch", "depth", "tokens", "input", "stem"))


def _teacher(card: ModelCard) -> str | None:
    """Return the hash of the weights that a student learnt from."""
    return card.training.get("teacher_sha256")


def _taught(card: ModelCard, student: ModelCard) -> bool:
    return card.method == "teacher" and card.sha256 == _teacher(student)


def _runs(workspace: Workspace, data: str | None) -> list[tuple[Path, ModelCard]]:
    """Return the finished runs of one data set, the latest first; of the latest run's, if none is named."""
    runs = [(folder, read_card(folder)) for folder in workspace.finished_runs()]
    wanted = resolve.dataset(workspace, data).hash if data else next((card.data.get("hash") for _, card in runs), None)
    return [(folder, card) for folder, card in runs if card.data.get("hash") == wanted]


def _first(
    runs: list[tuple[Path, ModelCard]], fits: Callable[[ModelCard], bool], command: str
) -> tuple[Path, ModelCard]:
    for folder, card in runs:
        if fits(card):
            return folder, card
    raise ModelError(f"a model to compare with is missing: make it with `{command}`, or name the models")

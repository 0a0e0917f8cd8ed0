"""Choice of models to compare if none is named.

They are a teacher and its students, on one data set.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgecxr import resolve
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import ModelError
from edgecxr.evaluate.evaluation import ModelOutputs, answer, check_same_data
from edgecxr.terminal import say
from edgecxr.workspace import Workspace


def answers(
    workspace: Workspace,
    names: list[str],
    data: str | None,
    split: str,
    progress: Callable[[int, int], None] | None = None,
) -> list[ModelOutputs]:
    """Run several models over the same split of one data set.

    Args:
        workspace: where to look for models and data set.
        names: runs or bundles.
        data: prepared data set; None means the one that they were trained on.
        split: name of the split.
        progress: called with (images done, images in all), from 0 again for each model.

    Raises:
        InputError: the models were trained on different data and `data` is None; or the data set has other labels.
    """
    models = [answer(workspace, name, data, split, progress) for name in names]
    check_same_data(models)
    return models


def every_resolution(workspace: Workspace, data: str | None) -> list[str]:
    """Return the names of a teacher and its students of every resolution.

    The teacher is that of the latest distilled student. The others are the latest distilled students of each resolution
    that have this teacher and the same architecture, blocks, tokens, input and stem.

    Returns:
        The teacher, then the students, the largest resolution first.

    Raises:
        ModelError: there is no distilled student, or its teacher is missing.
    """
    runs = _runs(workspace, data)
    _, latest = _first(runs, lambda card: card.method not in ("teacher", "none"), "edgecxr distill --res 28")
    teacher, _ = _first(runs, lambda card: _taught(card, latest), "edgecxr train")
    students: dict[int, str] = {}
    for folder, card in runs:
        if card.method not in ("teacher", "none") and _is_alike(card, latest) and _teacher(card) == _teacher(latest):
            students.setdefault(card.size, folder.name)
    return [teacher.name, *(students[size] for size in sorted(students, reverse=True))]


def figure_three(workspace: Workspace, data: str | None) -> list[str]:
    """Return the models of Figure 3 that are there.

    A message says which they are, and how to make those that are missing.

    Returns:
        Teacher, undistilled student and MLCAK student: the latest three that belong together. If no three do, the
        latest student, and before it its teacher and an undistilled one like it, if they are there. Without one, the
        latest teacher.

    Raises:
        ModelError: there is no run.
    """
    runs = _runs(workspace, data)
    students = [(folder, card) for folder, card in runs if card.method not in ("teacher", "none")]
    students.sort(key=lambda pair: pair[1].method != "mlcak")  # the latest of each stay first
    families = [_family(runs, folder, card) for folder, card in students]
    families += [_family(runs, folder, card) for folder, card in runs if card.method in ("none", "teacher")]
    if not families:
        raise ModelError(f"no finished run in {workspace.root}: make one with `edgecxr train`, or name the models")
    names, missing = next((family for family in families if not family[1]), families[0])
    say(f"using {', '.join(names)}")
    for command in missing:
        say(f"to draw more models, make one by `{command}`")
    return names


def _family(runs: list[tuple[Path, ModelCard]], folder: Path, card: ModelCard) -> tuple[list[str], list[str]]:
    """Return a model with its relatives in the order of Figure 3.

    Returns:
        The names of the models, and the commands that make the missing ones.
    """
    names, missing = [folder.name], []
    if card.method in ("teacher", "none"):
        return names, ["edgecxr distill --res 28" if card.method == "teacher" else f"edgecxr distill --res {card.size}"]
    teacher = next((other.name for other, its in runs if _taught(its, card)), None)
    plain = next(
        (o.name for o, its in runs if its.method == "none" and its.size == card.size and _is_alike(its, card)), None
    )
    if plain is None:
        command = f"edgecxr distill --res {card.size} --method none --arch {card.arch} --depth {card.depth}"
        command += f" --tokens {card.tokens} --input {card.input} --stem {card.stem}"
        missing.append(command + (f" --teacher {teacher}" if teacher else ""))
    if teacher is None:
        missing.append("edgecxr train")
    return [name for name in (teacher, plain) if name] + names, missing


def _is_alike(card: ModelCard, other: ModelCard) -> bool:
    return all(getattr(card, key) == getattr(other, key) for key in ("arch", "depth", "tokens", "input", "stem"))


def _teacher(card: ModelCard) -> str | None:
    """Return the SHA-256 of the weights of a student's teacher."""
    return card.training.get("teacher_sha256")


def _taught(card: ModelCard, student: ModelCard) -> bool:
    return card.method == "teacher" and card.sha256 == _teacher(student)


def _runs(workspace: Workspace, data: str | None) -> list[tuple[Path, ModelCard]]:
    """Return the finished runs of one data set, the latest first.

    If `data` is None, the data set is that of the latest run.
    """
    runs = [(folder, read_card(folder)) for folder in workspace.finished_runs()]
    digest = resolve.dataset(workspace, data).hash if data else next((card.data.get("hash") for _, card in runs), None)
    return [(folder, card) for folder, card in runs if card.data.get("hash") == digest]


def _first(
    runs: list[tuple[Path, ModelCard]], fits: Callable[[ModelCard], bool], command: str
) -> tuple[Path, ModelCard]:
    for folder, card in runs:
        if fits(card):
            return folder, card
    raise ModelError(f"a model to compare with is missing: make it with `{command}`, or name the models")

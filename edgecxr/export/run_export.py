"""Steps of `edgecxr export`: find run and data, export, report progress."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgecxr import resolve
from edgecxr.bundle.card import read_card
from edgecxr.data.prepared import Prepared
from edgecxr.engines.target import Target
from edgecxr.errors import ModelError
from edgecxr.export import sensitivity
from edgecxr.export.export_bundle import export_bundle, layer_costs
from edgecxr.export.recipe import Recipe
from edgecxr.films.radiograph import FilmRead
from edgecxr.storage.atomic import writing
from edgecxr.terminal import joined, say
from edgecxr.workspace import Workspace


def export(
    workspace: Workspace,
    run: str | None,
    data: str | None,
    recipe: Recipe,
    target: Target | None,
    with_teacher: bool,
    not_chest: Sequence[FilmRead] = (),
    out: str | None = None,
) -> list[Path]:
    """Export a run, and its teacher first if `with_teacher` is set.

    Args:
        workspace: where runs are looked for and bundles are written.
        run: name of a run; None means the latest student.
        data: name of the data set for the checks; None means the one the model was trained on.
        recipe: what to build.
        target: the device; None for any.
        with_teacher: export the run's teacher too.
        not_chest: images that are no frontal chest films, to count how many the quality gates refuse.
        out: name of the run's bundle, or a path, which has a "/"; None makes the name of the run's and the target's.

    Returns:
        Paths of the bundles, that of the run last.

    Raises:
        ModelError: there is no such run, or it has no teacher.
        UsageError: `out` cannot be a name.
    """
    folder = resolve.run(workspace, run, "student")
    card = read_card(folder)
    recipe.check(card)
    dest = place(workspace, folder.name, target, out)
    prepared = resolve.dataset_of(workspace, card, data)
    bundles = []
    if with_teacher:
        if card.teacher is None:
            raise ModelError(f"{card.name} was made without a teacher: leave --with-teacher out")
        # The recipe's size and tokens are those of the student.
        teacher_recipe = replace(recipe, size=None, tokens=None)
        teacher_run = resolve.run(workspace, card.teacher)
        teacher_dest = place(workspace, teacher_run.name, target)
        bundles.append(_export(teacher_dest, teacher_run, prepared, teacher_recipe, target, not_chest))
    return [*bundles, _export(dest, folder, prepared, recipe, target, not_chest)]


def place(workspace: Workspace, run: str, target: Target | None, out: str | None = None) -> Path:
    """Return the folder of a bundle, which need not exist.

    Each target has a bundle of its own, so that no export removes the files of another device.

    Args:
        workspace: where bundles are kept.
        run: name of the run.
        target: the device; None for any.
        out: a name, or a path, which has a "/".

    Raises:
        UsageError: `out` cannot be a name.
    """
    if out is not None:
        return Path(out) if "/" in out else workspace.export_dir(out)
    return workspace.export_dir(f"{run}-{target.name}" if target else run)


def _export(
    dest: Path,
    folder: Path,
    prepared: Prepared,
    recipe: Recipe,
    target: Target | None,
    not_chest: Sequence[FilmRead],
) -> Path:
    suffix = f" for {target.name}" if target else ""
    say(f"export {folder.name} to ONNX{suffix} and compare it on {prepared.name}")
    return export_bundle(folder, prepared, dest, recipe, target, say, not_chest, dest.name).path


def analyze(workspace: Workspace, run: str | None, data: str | None, recipe: Recipe) -> str:
    """Measure what INT8 costs, layer by layer.

    Writes a table and a picture into the run's folder.

    Args:
        workspace: where the run is.
        run: its name; None means the latest student.
        data: name of the data set; None means the one the model was trained on.
        recipe: how to calibrate.

    Returns:
        Text: a table of the worst layers and the paths of the written files.
    """
    folder = resolve.run(workspace, run, "student")
    card = read_card(folder)
    recipe.check(card)
    prepared = resolve.dataset_of(workspace, card, data)
    say(f"quantise the layers of {folder.name} one at a time, on {prepared.name}")
    with writing(folder):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".analyse-") as scratch:
            costs = layer_costs(folder, prepared, recipe, Path(scratch))
        written = sensitivity.write(costs, folder, f"{folder.name} on {prepared.name}")
    return "\n".join([sensitivity.table(costs), joined(map(str, written))])

"""`edgecxr export`: which run, which data, and what is said meanwhile."""

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
from edgecxr.terminal import say
from edgecxr.workspace import Workspace


def export(
    workspace: Workspace,
    run: str | None,
    data: str | None,
    recipe: Recipe,
    target: Target | None,
    with_teacher: bool,
    not_chest: Sequence[FilmRead] = (),
) -> list[Path]:
    """Export a run, and before it its teacher if that is wanted.

    Args:
        workspace: where runs are looked for and bundles are written.
        run: name of a run; None takes the latest student.
        data: name of the data set of the checks; None takes the model's own.
        recipe: what to make.
        target: for which device; None for any.
        with_teacher: export the run's teacher too.
        not_chest: files to count how many of them the quality gates find.

    Returns:
        The bundles, the run's own last.

    Raises:
        ModelError: no such run, or it had no teacher.
    """
    folder = resolve.run(workspace, run, "student-")
    card = read_card(folder)
    recipe.check(card)
    prepared = resolve.dataset_of(workspace, card, data)
    bundles = []
    if with_teacher:
        if card.teacher is None:
            raise ModelError(f"{card.name} was made without a teacher: leave --with-teacher out")
        # What the recipe says of size and tokens is about the student.
        of_teacher = replace(recipe, size=None, tokens=None)
        of_run = resolve.run(workspace, card.teacher)
        bundles.append(_export(workspace, of_run, prepared, of_teacher, target, not_chest))
    return [*bundles, _export(workspace, folder, prepared, recipe, target, not_chest)]


def _export(
    workspace: Workspace,
    folder: Path,
    prepared: Prepared,
    recipe: Recipe,
    target: Target | None,
    not_chest: Sequence[FilmRead],
) -> Path:
    place = f" for {target.name}" if target else ""
    say(f"export {folder.name} to ONNX{place} and compare it on {prepared.name}")
    return export_bundle(folder, prepared, workspace.export_dir(folder.name), recipe, target, say, not_chest).path


def analyze(workspace: Workspace, run: str | None, data: str | None, recipe: Recipe) -> str:
    """Say what INT8 costs layer by layer; writes a table and a picture into the run's folder.

    Args:
        workspace: where the run is looked for.
        run: its name; None takes the latest student.
        data: name of the data set; None takes the model's own.
        recipe: how to calibrate.

    Returns:
        A table of the worst layers and the paths of what was written.
    """
    folder = resolve.run(workspace, run, "student-")
    card = read_card(folder)
    recipe.check(card)
    prepared = resolve.dataset_of(workspace, card, data)
    say(f"quantise the layers of {folder.name} one at a time, on {prepared.name}")
    with writing(folder):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".analyse-") as scratch:
            costs = layer_costs(folder, prepared, recipe, Path(scratch))
        written = sensitivity.write(costs, folder, f"{folder.name} on {prepared.name}")
    return "\n".join([sensitivity.table(costs), *map(str, written)])

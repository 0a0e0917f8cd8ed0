"""What a model is worth, on the command line: evaluation, and where it looks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr import NOTICE
from edgecxr.cli.app import MAX_SEED, app

if TYPE_CHECKING:
    from edgecxr.workspace import Workspace

Data = Annotated[str | None, typer.Option("--data", metavar="NAME", help="Data set; the model's own by default.")]
Split = Annotated[str, typer.Option(help="test, val or train.")]


@app.command(
    epilog="Examples:  edgecxr evaluate  |  edgecxr evaluate student-tiny-28-mlcak --against student-tiny-28-none  |  "
    "edgecxr evaluate --by-size"
)
def evaluate(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]", help="Run or bundle; the latest run by default.")
    ] = None,
    data: Data = None,
    split: Split = "test",
    precision: Annotated[
        str | None, typer.Option(help="Of a bundle's file: fp32, fp16 or int8.", show_default="fp32")
    ] = None,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 1000,
    against: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Compare with this run or bundle, on the same films.")
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Of every finding, for the predictive value, such as 0.05; the split's own by default."),
    ] = None,
    by_size: Annotated[
        bool,
        typer.Option(
            "--by-size",
            help="AUROC and pointing game by the size of a finding, for data with boxes: of several MODELs; by default "
            "the teacher and the students of every resolution.",
        ),
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure AUROC, thresholds and calibration of a run or bundle. The result goes into a run's card."""
    from edgecxr.errors import UsageError
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    if by_size:
        if against or precision or prevalence is not None:
            raise UsageError("--by-size takes no --against, --prevalence or --precision: name the models to compare")
        _by_size(workspace, models or [], data, split, replicates, json_)
        return
    if models and len(models) > 1:
        raise UsageError("several models are for --by-size; to compare two, name one with --against")
    import json

    from edgecxr.evaluate.evaluation import evaluate_model, table
    from edgecxr.registry import load
    from edgecxr.terminal import progress, say

    model = models[0] if models else None
    with progress("evaluate") as update:
        ours, record = evaluate_model(workspace, model, data, split, replicates, update, precision, against, prevalence)
    name = f"{ours.card.name} {precision}" if precision else ours.card.name
    print(json.dumps({"model": name, **record, "notice": NOTICE}) if json_ else table(name, record))
    if not ours.card.artefacts:
        path = ours.folder / f"reliability-{record['data']}-{split}.png"
        draw = load("edgecxr.plots.evaluations:reliability", "plots")
        say(f"reliability plot: {draw(record['calibration'], name, path)}")


def _by_size(
    workspace: Workspace, models: list[str], data: str | None, split: str, replicates: int, json_: bool
) -> None:
    import json

    from edgecxr import resolve
    from edgecxr.evaluate import by_size, model_families
    from edgecxr.registry import load
    from edgecxr.terminal import progress, say

    if not models and data:
        prepared = resolve.dataset(workspace, data)
        if not len(prepared.boxes):
            raise by_size.without_boxes(prepared, split)
    names = models or model_families.every_resolution(workspace, data)
    with progress("evaluate") as update:
        record = by_size.by_size(model_families.answers(workspace, names, data, split, update), split, replicates)
    print(json.dumps({**record, "notice": NOTICE}) if json_ else by_size.table(record))
    path = workspace.root / f"by-size-{record['data']}-{split}.png"
    say(f"plot: {load('edgecxr.plots.evaluations:by_size', 'plots')(record, path)}")


@app.command(epilog="Examples:  edgecxr explain  |  edgecxr explain teacher-tiny-224 student-tiny-28-mlcak --films 10")
def explain(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...", help="By default the latest MLCAK student, its teacher, and one undistilled."
        ),
    ] = None,
    data: Data = None,
    split: Split = "test",
    films: Annotated[int, typer.Option(min=1, max=100, help="Number of films.")] = 6,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of their choice.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG to write.", show_default="explain-DATA-SPLIT.png in runs/")
    ] = None,
) -> None:
    """Draw where models look, side by side (the paper's Figure 3). With boxes, also how often they point right."""
    from edgecxr.evaluate import explain, model_families
    from edgecxr.terminal import progress
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    names = models or model_families.figure_three(workspace, data)
    with progress("explain") as update:
        shown = model_families.answers(workspace, names, data, split, update)
    print(explain.hit_table(shown, split))
    path = out or workspace.root / f"explain-{shown[0].prepared.name}-{split}.png"
    print(explain.draw(shown, split, films, seed, path))
    print(NOTICE)

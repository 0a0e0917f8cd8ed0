"""`edgecxr evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr import NOTICE
from edgecxr.cli.app import app
from edgecxr.cli.options import ModelData, Split, complete
from edgecxr.cli.options import models as every_model

if TYPE_CHECKING:
    from edgecxr.workspace import Workspace


@app.command(
    epilog="Examples:  edgecxr evaluate  |  edgecxr evaluate student-tiny-28-mlcak-vindr --against "
    "student-tiny-28-none-vindr  |  edgecxr evaluate --by-size"
)
def evaluate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL", help="Run or bundle; the latest run by default.", autocompletion=complete(every_model)
        ),
    ] = None,
    data: ModelData = None,
    split: Split = "test",
    precision: Annotated[
        str | None, typer.Option(help="Of a bundle's file: fp32, fp16 or int8.", show_default="fp32")
    ] = None,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates, at least 100.")] = 1000,
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
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of predictions and plots; that of the run by default."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure AUROC, thresholds and calibration of a run or bundle.

    The result of a run is saved in its card.
    """
    from edgecxr.errors import UsageError
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    if by_size:
        if against or precision or out or prevalence is not None:
            raise UsageError("--by-size takes no --against, --out, --prevalence or --precision: name the models")
        _by_size(workspace, models or [], data, split, replicates, json_)
        return
    if models and len(models) > 1:
        raise UsageError("several models are for --by-size; to compare two, name one with --against")
    import json

    from edgecxr.evaluate.evaluation import evaluate_model, table
    from edgecxr.evaluate.operating_points import columns_of
    from edgecxr.evaluate.predictions_file import write_predictions
    from edgecxr.registry import load
    from edgecxr.storage.atomic import check_folder
    from edgecxr.terminal import progress, say, show_json, show_text

    if out is not None:
        check_folder(out, "give another folder with --out")  # before the work
    model = models[0] if models else None
    with progress("evaluate") as update:
        ours, record = evaluate_model(workspace, model, data, split, replicates, update, precision, against, prevalence)
    name = f"{ours.card.name} {precision}" if precision else ours.card.name
    if json_:
        show_json(json.dumps({"model": name, **record, "notice": NOTICE}))
    else:
        show_text(table(name, record))
    place = out if out else None if ours.card.artefacts else ours.folder
    if place is None:
        return  # nothing is written into a bundle
    of_data = f"{record['data']}-{split}"
    say(f"predictions: {write_predictions(ours, split, place / f'predictions-{of_data}.csv')}")
    draw = load("edgecxr.plots.evaluations:reliability", "plots")
    say(f"reliability plot: {draw(record['calibration'], name, place / f'reliability-{of_data}.png')}")
    columns = columns_of(ours.prepared, ours.prepared.rows(split), ours.outputs)
    draw = load("edgecxr.plots.evaluations:roc", "plots")
    say(f"ROC and precision-recall: {draw(columns, record, f'{name} on {of_data}', place / f'roc-{of_data}.png')}")


def _by_size(
    workspace: Workspace, models: list[str], data: str | None, split: str, replicates: int, json_: bool
) -> None:
    import json

    from edgecxr import resolve
    from edgecxr.evaluate import by_size, model_families
    from edgecxr.registry import load
    from edgecxr.terminal import progress, say, show_json, show_text

    if not models and data:
        prepared = resolve.dataset(workspace, data)
        if not len(prepared.boxes):
            raise by_size.without_boxes(prepared, split)
    names = models or model_families.every_resolution(workspace, data)
    with progress("evaluate") as update:
        record = by_size.by_size(model_families.answers(workspace, names, data, split, update), split, replicates)
    if json_:
        show_json(json.dumps({**record, "notice": NOTICE}))
    else:
        show_text(by_size.table(record))
    path = workspace.root / f"by-size-{record['data']}-{split}.png"
    say(f"plot: {load('edgecxr.plots.evaluations:by_size', 'plots')(record, path)}")

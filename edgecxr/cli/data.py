"""Data sets on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import MAX_SEED, app
from edgecxr.registry import DATASETS


@app.command(
    epilog="Examples:  edgecxr prepare phantom --n 2000  |  edgecxr prepare vindr /data/vindr-cxr  |  "
    "edgecxr prepare folder labels.csv --images films --ignore sex"
)
def prepare(
    dataset: Annotated[str, typer.Argument(metavar="|".join(DATASETS), help="Which kind of data set.")],
    path: Annotated[Path | None, typer.Argument(help="Where it lies; a phantom is made there.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the prepared data set.")] = None,
    n: Annotated[int | None, typer.Option(help="phantom: number of films.")] = None,
    labels: Annotated[str | None, typer.Option(help="Findings, A,B,C; vindr: also vindr14, vindr22, all.")] = None,
    merge: Annotated[str | None, typer.Option(help="vindr, phantom: readers by majority, union or mean.")] = None,
    images: Annotated[Path | None, typer.Option(help="folder: what image paths are relative to.")] = None,
    ignore: Annotated[str | None, typer.Option(help="folder: columns that are no findings, A,B,C.")] = None,
    image_column: Annotated[str | None, typer.Option(help="folder: column of image paths.")] = None,
    patient_column: Annotated[str | None, typer.Option(help="folder: column of patients.")] = None,
    split_column: Annotated[str | None, typer.Option(help="folder: column of train, val, test.")] = None,
    normal_column: Annotated[str | None, typer.Option(help="folder: column that is 1 where nothing is wrong.")] = None,
    abnormal_column: Annotated[str | None, typer.Option(help="folder: the opposite.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="folder: CSV of boxes around findings.")] = None,
    size: Annotated[
        int, typer.Option(help="224, or 448: keep the films at 448 px too, for `edgecxr train --res 448`.")
    ] = 224,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of phantom films and of random splits.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per CPU by default.")] = None,
) -> None:
    """Decode and resize a data set into the workspace. Goes on where it was interrupted."""
    from edgecxr.console import progress, say
    from edgecxr.data.cache import prepare as prepare_cache
    from edgecxr.data.source import open_source
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    options = {
        "name": name, "n": n, "merge": merge, "images": images, "image_column": image_column,
        "patient_column": patient_column, "split_column": split_column, "normal_column": normal_column,
        "abnormal_column": abnormal_column, "boxes": boxes,
    }  # fmt: skip
    listed = {"labels": labels, "ignore": ignore}
    with progress("films") as made:
        source = open_source(dataset, path, options, listed, seed, workers, made, workspace)
    with progress("prepare") as update:
        prepared = prepare_cache(source, workspace.data_dir(source.name), workers, update, size)
    for warning in source.provenance.get("warnings", []):
        say(f"warning: {warning}")
    print(prepared.describe())

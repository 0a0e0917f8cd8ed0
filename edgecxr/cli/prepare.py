"""`edgecxr prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import MAX_SEED, app
from edgecxr.registry import DATASETS, check


@app.command(
    epilog="Examples:  edgecxr prepare phantom --n 2000  |  edgecxr prepare vindr /data/vindr-cxr  |  "
    "edgecxr prepare folder labels.csv --images films --ignore sex"
)
def prepare(
    dataset: Annotated[str, typer.Argument(metavar="|".join(DATASETS), help="Which kind of data set.")],
    path: Annotated[Path | None, typer.Argument(help="Where it lies; a phantom is made there.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the prepared data set.")] = None,
    n: Annotated[int | None, typer.Option(help="phantom: number of films.")] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Findings, A,B,C; or (not for a folder) vindr14, nih14, chexpert5 ... or a TOML file."),
    ] = None,
    merge: Annotated[
        str | None, typer.Option(help="vindr, vinbigdata, phantom: readers by majority, union or mean.")
    ] = None,
    uncertain: Annotated[
        str | None, typer.Option(help="chexpert, mimic-cxr: uncertain mentions as ignore, ones or zeros.")
    ] = None,
    labeler: Annotated[str | None, typer.Option(help="mimic-cxr: whose labels, chexpert or negbio.")] = None,
    any_view: Annotated[
        bool | None, typer.Option("--any-view", help="chexpert, mimic-cxr: take lateral films, too.")
    ] = None,
    manual_test: Annotated[
        bool | None, typer.Option("--manual-test", help="mimic-cxr: test on studies labelled by hand, and no others.")
    ] = None,
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
    time_limit: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="For one film; one that takes longer, twice, is listed.")
    ] = 120,
    executor: Annotated[
        str, typer.Option(help="processes of this machine, or ray: a cluster that sees the same files.")
    ] = "processes",
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first film that cannot be used, instead of listing it.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Read films again that were rejected.")] = False,
) -> None:
    """Decode and resize a data set into the workspace. Goes on where it was interrupted."""
    from edgecxr.data.adapters.open import open_source
    from edgecxr.data.prepare.prepare import opened, replaces
    from edgecxr.data.prepare.prepare import prepare as prepare_cache
    from edgecxr.terminal import progress, say, with_rate
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    options = {
        "name": name, "n": n, "merge": merge, "images": images, "image_column": image_column,
        "patient_column": patient_column, "split_column": split_column, "normal_column": normal_column,
        "abnormal_column": abnormal_column, "boxes": boxes, "uncertain": uncertain, "labeler": labeler,
        "any_view": any_view or None, "manual_test": manual_test or None,
    }  # fmt: skip
    listed = {"labels": labels, "ignore": ignore}
    check(DATASETS, dataset, "data set")
    if dataset != "phantom" and path is not None:
        say(f"looking for the films of {path}")  # on a network's file system that may take minutes
    with progress("films") as made:
        if executor == "ray" and path is not None:
            path = path.absolute()  # where a node's processes run, what was typed may mean another place
        source = open_source(dataset, path, options, listed, seed, workers, made, workspace)
    out = workspace.data_dir(source.name)
    there = opened(out)
    note = replaces(there, source) if there else ""
    if note:
        say(note)
    with progress("prepare") as update:
        counted = with_rate(update, "films")
        prepared = prepare_cache(source, out, workers, counted, size, executor, strict, time_limit, retry)
    if retry and there and there.info["rejected"] and there.info["inputs"] == prepared.info["inputs"]:
        before, after = (sum(one.info["rejected"].values()) for one in (there, prepared))
        say(f"read again: {before} films, of which {before - after} can be used now")
    for warning in (*source.provenance.get("warnings", []), *prepared.info.get("left", [])):
        say(f"warning: {warning}")
    print(prepared.describe())

"""`edgecxr prepare`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import MAX_SEED, app
from edgecxr.cli.options import Umask, complete
from edgecxr.registry import DATASETS, check
from edgecxr.storage.permissions import PRIVATE


@app.command(
    epilog="Examples:  edgecxr prepare phantom --n 2000  |  edgecxr prepare vindr /data/vindr-cxr  |  "
    "edgecxr prepare folder labels.csv --images films --ignore sex"
)
def prepare(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help=f"{', '.join(DATASETS)}.", autocompletion=complete(DATASETS))
    ],
    path: Annotated[Path | None, typer.Argument(metavar="PATH", help="Where it lies; a phantom is made there.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the prepared data set.")] = None,
    n: Annotated[
        int | None,
        typer.Option(help="phantom: number of films, at least 8.", rich_help_panel="Only for some data sets"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Findings, A,B,C; or a TOML file; or (not for a folder) vindr14, nih14, chexpert5 ..."),
    ] = None,
    merge: Annotated[
        str | None,
        typer.Option(
            help="vindr, vinbigdata, phantom: readers by majority, union or mean.",
            rich_help_panel="Only for some data sets",
        ),
    ] = None,
    uncertain: Annotated[
        str | None,
        typer.Option(
            help="folder, chexpert, mimic-cxr: uncertain labels (-1, ?) as ignore, ones or zeros.",
            rich_help_panel="Only for some data sets",
        ),
    ] = None,
    labeler: Annotated[
        str | None,
        typer.Option(help="mimic-cxr: whose labels, chexpert or negbio.", rich_help_panel="Only for some data sets"),
    ] = None,
    any_view: Annotated[
        bool | None,
        typer.Option(
            "--any-view",
            help="chexpert, mimic-cxr: take lateral films, too.",
            rich_help_panel="Only for some data sets",
        ),
    ] = None,
    manual_test: Annotated[
        bool | None,
        typer.Option(
            "--manual-test",
            help="mimic-cxr: test on studies labelled by hand, and no others.",
            rich_help_panel="Only for some data sets",
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="What image paths are relative to.", rich_help_panel="Only for folder")
    ] = None,
    ignore: Annotated[
        str | None, typer.Option(help="Columns that are no findings, A,B,C.", rich_help_panel="Only for folder")
    ] = None,
    image_column: Annotated[
        str | None, typer.Option(help="Column of image paths.", rich_help_panel="Only for folder")
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(
            help="Column that names the findings, such as Pneumonia|Effusion, or says yes or no.",
            rich_help_panel="Only for folder",
        ),
    ] = None,
    patient_column: Annotated[
        str | None, typer.Option(help="Column of patients.", rich_help_panel="Only for folder")
    ] = None,
    split_column: Annotated[
        str | None, typer.Option(help="Column of train, val, test.", rich_help_panel="Only for folder")
    ] = None,
    normal_column: Annotated[
        str | None, typer.Option(help="Column that is 1 where nothing is wrong.", rich_help_panel="Only for folder")
    ] = None,
    abnormal_column: Annotated[
        str | None, typer.Option(help="Column that is 1 where anything is wrong.", rich_help_panel="Only for folder")
    ] = None,
    normal_names: Annotated[
        str | None,
        typer.Option(
            help="Names in --label-column, classes or columns that mean that nothing is wrong, A,B,C.",
            rich_help_panel="Only for folder",
        ),
    ] = None,
    unknown_names: Annotated[
        str | None,
        typer.Option(help="Cells of labels that mean that nothing is known, A,B,C.", rich_help_panel="Only for folder"),
    ] = None,
    boxes: Annotated[
        Path | None, typer.Option(help="CSV of boxes around findings.", rich_help_panel="Only for folder")
    ] = None,
    size: Annotated[
        int, typer.Option(help="224, or 448: keep the films at 448 px too, for `edgecxr train --res 448`.")
    ] = 224,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of phantom films and of random splits.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one per CPU by default.", rich_help_panel="How films are read")
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(
            min=1,
            metavar="SECONDS",
            help="For one film; one that takes longer, twice, is listed.",
            rich_help_panel="How films are read",
        ),
    ] = 120,
    executor: Annotated[
        str,
        typer.Option(
            help="processes of this machine, or ray: a cluster that sees the same files.",
            rich_help_panel="How films are read",
        ),
    ] = "processes",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop at the first film that cannot be used, instead of listing it.",
            rich_help_panel="How films are read",
        ),
    ] = False,
    retry: Annotated[
        bool, typer.Option("--retry", help="Read films again that were rejected.", rich_help_panel="How films are read")
    ] = False,
    umask: Umask = PRIVATE,
) -> None:
    """Decode and resize a data set into the workspace.

    Continues where it was interrupted.
    """
    from edgecxr.data.adapters.open import open_source
    from edgecxr.data.prepare.prepare import opened, replaces
    from edgecxr.data.prepare.prepare import prepare as prepare_cache
    from edgecxr.data.show import not_known
    from edgecxr.terminal import progress, say, show_text, with_rate
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    options = {
        "name": name, "n": n, "merge": merge, "images": images,
        "image_column": image_column, "label_column": label_column,
        "patient_column": patient_column, "split_column": split_column, "normal_column": normal_column,
        "abnormal_column": abnormal_column, "boxes": boxes, "uncertain": uncertain, "labeler": labeler,
        "any_view": any_view or None, "manual_test": manual_test or None,
    }  # fmt: skip
    listed = {"labels": labels, "ignore": ignore, "normal_names": normal_names, "unknown_names": unknown_names}
    check(DATASETS, dataset, "data set")
    if dataset != "phantom" and path is not None:
        say(f"looking for the films of {path}")  # may take minutes on a network file system
    with progress("films") as update_source:
        if executor == "ray" and path is not None:
            path = path.absolute()  # a node's processes may run in another folder
        source = open_source(dataset, path, options, listed, seed, workers, update_source, workspace)
    out = workspace.data_dir(source.name)
    existing = opened(out)
    note = replaces(existing, source) if existing else ""
    if note:
        say(note)
    with progress("prepare") as update:
        counted = with_rate(update, "films")
        prepared = prepare_cache(source, out, workers, counted, size, executor, strict, time_limit, retry)
    if retry and existing and existing.info["rejected"] and existing.info["inputs"] == prepared.info["inputs"]:
        before, after = (sum(data.info["rejected"].values()) for data in (existing, prepared))
        say(f"read again: {before} films, of which {before - after} can be used now")
    for warning in (*source.provenance.get("warnings", []), *prepared.info.get("left", []), *prepared.film_warnings()):
        say(f"warning: {warning}")
    if unknown_labels := not_known(prepared):
        say(unknown_labels)
    show_text(replace(prepared, path=out).describe())  # a path from here, not from the root

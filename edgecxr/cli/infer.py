"""`edgecxr infer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import FILMS, MODEL, RESULTS, Umask
from edgecxr.registry import BACKENDS, OF_CHECKPOINTS
from edgecxr.storage.permissions import PRIVATE


@app.command(epilog="Examples:  edgecxr infer scan.dcm  |  edgecxr infer archive/ --json > out.jsonl  |  "
             "edgecxr infer archive/ --json --resume out.jsonl  |  "
             "edgecxr infer arrival/ --watch --json --resume out.jsonl --csv out.csv")  # fmt: skip
def infer(
    paths: Annotated[
        list[Path],
        # What cannot be read is rejected like any other film, and the others are predicted.
        typer.Argument(metavar="PATH...", help="DICOM files, images, or folders of them.", readable=False),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="BUNDLE",
            help="Path or name.",
            show_default="EDGECXR_MODEL, else the latest",
            rich_help_panel=MODEL,
        ),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help=f"What runs the model: {', '.join(n for n in BACKENDS if n not in OF_CHECKPOINTS)}.",
            rich_help_panel=MODEL,
        ),
    ] = "onnxruntime",
    precision: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Which of the bundle's models: fp32, fp16, int8; auto is the faster one of fp32 and int8.",
            rich_help_panel=MODEL,
        ),
    ] = "fp32",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Threads of the engine.", show_default="its own choice", rich_help_panel=MODEL
        ),
    ] = None,
    operating_point: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="Whose thresholds decide: youden, sensitivity90 or sensitivity95.",
            rich_help_panel=MODEL,
        ),
    ] = "youden",
    any_view: Annotated[
        bool,
        typer.Option(
            "--any-view", help="Also predict films that are marked as lateral or oblique.", rich_help_panel=FILMS
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Also predict films that the quality gate refuses; results say so.",
            rich_help_panel=FILMS,
        ),
    ] = False,
    recursive: Annotated[
        bool,
        typer.Option(
            "--recursive/--no-recursive", help="Look into the subfolders of folders, too.", rich_help_panel=FILMS
        ),
    ] = True,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look at films that arrive in the folders, until Ctrl-C.", rich_help_panel=FILMS),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=256,
            metavar="N",
            help="Processes that read films.",
            show_default="one per core",
            rich_help_panel=FILMS,
        ),
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(min=0.1, max=86400, metavar="SECONDS", help="For reading one file.", rich_help_panel=FILMS),
    ] = 30,
    executor: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What reads films: processes, or ray: a cluster that sees the same files.",
            rich_help_panel=FILMS,
        ),
    ] = "processes",
    json_: Annotated[
        bool,
        typer.Option("--json", help="One JSON object per file on standard output.", rich_help_panel=RESULTS),
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="With --json: the attention map too.", rich_help_panel=RESULTS)
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="With --json: append to this file, only films that it lacks or that have changed.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a table with one row per film.", rich_help_panel=RESULTS),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a picture of each film with its attention map and results.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    dicom: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write a DICOM report (SR) and picture of each DICOM film.", rich_help_panel=RESULTS
        ),
    ] = None,
    no_phi: Annotated[
        bool,
        typer.Option("--no-phi", help="With --dicom: leave out who the patient is.", rich_help_panel=RESULTS),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print results and errors only.", rich_help_panel=RESULTS)
    ] = False,
    umask: Umask = PRIVATE,
) -> None:
    """Predict findings and normal/abnormal from films.

    A file that cannot be used is reported, and the others are still read.
    """
    from edgecxr import resolve
    from edgecxr.films.find import Search, find_inputs
    from edgecxr.infer.predictor import Predictor
    from edgecxr.infer.resume import precision_of
    from edgecxr.infer.run import InferOptions, infer_paths, readers_for
    from edgecxr.terminal import quieted
    from edgecxr.vocabulary import AUTO
    from edgecxr.workspace import Workspace

    options = InferOptions(json_, attention, overlay, dicom, not no_phi, resume, workers, time_limit, executor, csv)
    options.check()
    if precision == AUTO and resume is not None:
        precision = precision_of(resume) or AUTO  # today's choice may be another one
    with quieted(quiet):
        bundle = resolve.chosen_bundle(Workspace.default(), model)
    search = Search(leave_out=options.outputs)
    arrivals = None
    if watch:
        from edgecxr.infer import watch as watching

        arrivals = watching.Arrivals(paths, recursive, options.outputs)
    films = [] if watch else find_inputs(paths, recursive, search)
    with (
        quieted(quiet),
        readers_for(options, None if watch else len(films)) as readers,
        Predictor(bundle, backend, operating_point, precision, threads, any_view=any_view, force=force) as predictor,
    ):
        if arrivals is not None:
            watching.watch(predictor, readers, arrivals, options)
        rejected = infer_paths(predictor, readers, films, options, search)
    if rejected:
        raise typer.Exit(3)

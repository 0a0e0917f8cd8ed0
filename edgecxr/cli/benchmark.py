"""`edgecxr benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import TOLERANCE
from edgecxr.registry import BACKENDS


@app.command(
    epilog="Examples:  edgecxr benchmark  |  edgecxr benchmark student-tiny-28-mlcak-vindr --data test.npz  |  "
    "edgecxr benchmark --backend onnxruntime --threads 1  |  edgecxr benchmark --compare a.json b.json"
)
def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Bundles and runs; by default all of the workspace."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="For AUROC: a data set, or a file of `data pack`; the models' own by default."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="test, val or train; a pack has only one.")] = "test",
    backend: Annotated[
        list[str] | None,
        typer.Option(help=f"Engine, can be repeated: {', '.join(BACKENDS)}. By default all that are there."),
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16 or int8, can be repeated. By default all that a bundle has.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of the CPU; by default all cores.")] = None,
    max_batch: Annotated[int, typer.Option(min=1, max=65536, help="Largest batch for the throughput.")] = 64,
    passes: Annotated[int, typer.Option(min=1, max=1000, help="Over everything, for figures that repeat.")] = 3,
    film: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="DICOM file to time from file to answer.", show_default="a synthetic one"),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Print how much faster than this one; by default than the teacher."),
    ] = None,
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates, at least 100.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Record to write.", show_default="benchmark-DATE.json in runs/")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Print B / A of two records, and measure nothing."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
) -> None:
    """Measure AUROC, latency, memory and energy of models here.

    Writes a record.
    """
    import json

    from edgecxr.benchmark import options, record, tables
    from edgecxr.benchmark.measure import Settings
    from edgecxr.benchmark.recommend import recommend
    from edgecxr.machine.cores import cores
    from edgecxr.terminal import progress, say, show, show_json, show_text
    from edgecxr.workspace import Workspace

    if compare:
        a, b = map(record.read, compare)
        show_text(tables.compare(a, b, (str(compare[0]), str(compare[1]))))
        return
    settings = Settings(threads or cores(), max_batch, passes, replicates=replicates, split=split)
    benchmark_options = options.BenchmarkOptions(models or [], backend or [], precision or [], data, film, against)
    with progress("benchmark") as update:
        results = options.run(Workspace.default(), benchmark_options, settings, out, update)
    if json_:
        show_json(json.dumps(results))
        return
    show_text(tables.summary(results, against))
    show("")
    show(f"Recommended within {TOLERANCE:g} of AUROC: {recommend(results, TOLERANCE).why}")
    say("pictures and more: edgecxr report")

"""Measuring models on a device, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.registry import BACKENDS

TOLERANCE = 0.02  # of AUROC


@app.command(
    epilog="Examples:  edgecxr benchmark  |  edgecxr benchmark student-tiny-28-mlcak --data test.npz  |  "
    "edgecxr benchmark --backend onnxruntime --threads 1  |  edgecxr benchmark --compare a.json b.json"
)
def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Bundles and runs; by default all of the workspace."),
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
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 1000,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Record to write.", show_default="benchmark-DATE.json in runs/")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(metavar="A.json B.json", help="Print B / A of two records, and measure nothing."),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
) -> None:
    """Measure AUROC, latency, memory and energy of models here. Writes a record."""
    import json

    from edgecxr.benchmark import options, record, tables
    from edgecxr.benchmark.conditions import cores
    from edgecxr.benchmark.measure import Settings
    from edgecxr.benchmark.recommend import recommend
    from edgecxr.terminal import progress, say
    from edgecxr.workspace import Workspace

    if compare:
        a, b = map(record.read, compare)
        print(tables.compare(a, b, (str(compare[0]), str(compare[1]))))
        return
    settings = Settings(threads or cores(), max_batch, passes, replicates=replicates, split=split)
    asked = options.Asked(models or [], backend or [], precision or [], data, film, against)
    with progress("benchmark") as update:
        found = options.run(Workspace.default(), asked, settings, out, update)
    if json_:
        print(json.dumps(found))
        return
    print(tables.summary(found, against))
    print(f"\nRecommended within {TOLERANCE:g} of AUROC: {recommend(found, TOLERANCE).why}")
    say("pictures and more: edgecxr report")


@app.command(
    epilog="Examples:  edgecxr report  |  edgecxr report jetson.json v100.json --html devices.html  |  "
    "edgecxr report record.json --into README.md"
)
def report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RECORD]...", help="Of `edgecxr benchmark`; by default all benchmark-*.json in runs/."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Page to write.", show_default="report.html in runs/")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fill a markdown file between its markers; no page, no output.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Largest drop of AUROC of what is recommended.")
    ] = TOLERANCE,
    against: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Say how much faster than this one; by default than the teacher."),
    ] = None,
) -> None:
    """Render records as markdown and as a page with pictures. Markdown goes to standard output."""
    from edgecxr.benchmark import record, report
    from edgecxr.errors import InputError, UsageError
    from edgecxr.registry import load
    from edgecxr.storage.atomic import atomic_write
    from edgecxr.terminal import say
    from edgecxr.workspace import Workspace

    root = Workspace.default().root
    path = html or root / "report.html"
    if path.suffix != ".html":
        raise UsageError(f"--html {path}: give a name that ends in .html")
    if html and into:
        raise UsageError("--into fills a markdown file and writes no page: leave --html out, or type both commands")
    paths = records or sorted(root.glob("benchmark-*.json"))
    found = [read for one in paths if record.measured(read := record.read(one)) or records]
    if not found:
        raise InputError(
            f"no benchmark-*.json with a result in {root}: make a record with `edgecxr benchmark`, or name one",
            "not-found",
        )
    if against and not any(against in one["models"] for one in found):
        raise UsageError(f"--against {against}: no record has that model (there are {', '.join(found[0]['models'])})")
    if into:
        count = report.insert(into, found, tolerance, against)
        say(f"{into}: {count} place{'s' if count > 1 else ''} filled")
        return
    print(report.markdown(found, tolerance, against))
    pictures = load("edgecxr.plots.records:pictures", "the page's pictures")
    atomic_write(path, report.page(found, tolerance, pictures, against), "give another file with --html")
    say(f"page: {path}")

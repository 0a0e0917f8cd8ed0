"""`edgecxr report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import TOLERANCE


@app.command(
    epilog="Examples:  edgecxr report  |  edgecxr report jetson.json v100.json --html devices.html  |  "
    "edgecxr report record.json --into README.md"
)
def report(
    records: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RECORD", help="Of `edgecxr benchmark`; by default all benchmark-*.json in runs/."),
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
    """Render records as markdown and as a page with pictures.

    The markdown goes to standard output.
    """
    from edgecxr.benchmark import record, report
    from edgecxr.errors import InputError, UsageError
    from edgecxr.registry import load
    from edgecxr.storage.atomic import atomic_write
    from edgecxr.terminal import say, show_text
    from edgecxr.workspace import Workspace

    root = Workspace.default().root
    path = html or root / "report.html"
    if path.suffix != ".html":
        raise UsageError(f"--html {path}: give a name that ends in .html")
    if html and into:
        raise UsageError("--into fills a markdown file and writes no page: leave --html out, or type both commands")
    paths = records or sorted(root.glob("benchmark-*.json"))
    loaded = [content for item in paths if record.measured(content := record.read(item)) or records]
    if not loaded:
        raise InputError(
            f"no benchmark-*.json with a result in {root}: make a record with `edgecxr benchmark`, or name one",
            "not-found",
        )
    if against and not any(against in item["models"] for item in loaded):
        raise UsageError(f"--against {against}: no record has that model (there are {', '.join(loaded[0]['models'])})")
    if into:
        count = report.insert(into, loaded, tolerance, against)
        say(f"{into}: {count} place{'s' if count > 1 else ''} filled")
        return
    show_text(report.markdown(loaded, tolerance, against))
    pictures = load("edgecxr.plots.records:pictures", "the page's pictures")
    atomic_write(path, report.page(loaded, tolerance, pictures, against), "give another file with --html")
    say(f"page: {path}")

"""`edgecxr demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import MAX_SEED, app


@app.command(epilog="Example: edgecxr demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Workspace to write to.")] = Path("runs"),
    n: Annotated[int, typer.Option(min=8, help="Number of phantom films, at least 8.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the teacher; the students take half as many.")] = 12,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of films and training.")] = 0,
) -> None:
    """Run the whole pipeline on synthetic films.

    Prepares, trains, distils, exports and infers: minutes on a laptop.
    """
    from edgecxr.registry import load
    from edgecxr.terminal import show_text

    show_text(load("edgecxr.demo:demo", "demo")(out, n, epochs, seed))

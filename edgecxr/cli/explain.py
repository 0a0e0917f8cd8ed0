"""`edgecxr explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr import NOTICE
from edgecxr.cli.app import MAX_SEED, app
from edgecxr.cli.options import ModelData, Split, Umask
from edgecxr.storage.permissions import PRIVATE


@app.command(
    epilog="Examples:  edgecxr explain  |  "
    "edgecxr explain teacher-tiny-224-vindr student-tiny-28-mlcak-vindr --films 10"
)
def explain(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="By default the latest MLCAK student, its teacher and one undistilled, where there are.",
        ),
    ] = None,
    data: ModelData = None,
    split: Split = "test",
    films: Annotated[int, typer.Option(min=1, max=100, help="Number of films.")] = 6,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of their choice.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="PNG to write.", show_default="explain-DATA-SPLIT.png in runs/")
    ] = None,
    umask: Umask = PRIVATE,
) -> None:
    """Draw where models look, side by side (the paper's Figure 3).

    If the data have boxes, also prints how often each model points to the finding.
    """
    from edgecxr.evaluate import explain, model_families
    from edgecxr.terminal import progress, show, show_text
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    names = models or model_families.figure_three(workspace, data)
    with progress("explain") as update:
        shown = model_families.answers(workspace, names, data, split, update)
    show_text(explain.hit_table(shown, split))
    path = out or workspace.root / f"explain-{shown[0].prepared.name}-{split}.png"
    show(str(explain.draw(shown, split, films, seed, path)))
    show(NOTICE)

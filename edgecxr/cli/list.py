"""`edgecxr list`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecxr.cli.app import app


@app.command("list", epilog="Examples:  edgecxr list  |  edgecxr list --json")
def list_artefacts(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON array.")] = False,
) -> None:
    """List data sets, runs and bundles, edgecxr's own last."""
    from edgecxr import inventory, resolve
    from edgecxr.terminal import show_json, show_text
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    rows = inventory.inventory(workspace, resolve.shipped())
    if json_:
        show_json(inventory.as_json(rows))
    else:
        show_text(inventory.table(workspace, rows))

"""`edgecxr doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app


@app.command(epilog="Examples:  edgecxr doctor  |  edgecxr doctor --json")
def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Of a node, whose disk and files count.")] = None,
) -> None:
    """Show what this machine can do and what is missing.

    Each gap comes with the command that fills it.
    """
    import json

    from edgecxr.doctor.examine import examine
    from edgecxr.doctor.listing import as_json, as_text, exit_code
    from edgecxr.node.node_config import read_config
    from edgecxr.terminal import show_json, show_text

    read_config(config)  # one that cannot be read is said first
    rows = examine(node=config)
    if json_:
        show_json(json.dumps(as_json(rows)))
    else:
        show_text(as_text(rows))
    if exit_code(rows):
        raise typer.Exit(exit_code(rows))

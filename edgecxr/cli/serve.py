"""`edgecxr serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app

Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML file; without one, only this machine can reach the node.")
]


@app.command(epilog="Examples:  edgecxr serve --config node.toml --check  |  edgecxr serve --config node.toml")
def serve(
    config: Config = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would listen where, and end.")] = False,
) -> None:
    """Receive films by DICOM, and file their results in a PACS.

    It runs until Ctrl-C or SIGTERM. For research only.
    """
    from edgecxr.node.check import check as checked
    from edgecxr.node.check import warnings
    from edgecxr.node.node_config import read_config
    from edgecxr.node.supervisor import serve as run
    from edgecxr.terminal import say, show

    read = read_config(config)
    lines = checked(read)
    if check:
        lines += warnings(read)
    for line in lines:
        (show if check else say)(line)
    if not check:
        run(config, read)

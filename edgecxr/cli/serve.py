"""`edgecxr serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app

Config = Annotated[
    Path | None, typer.Option(metavar="FILE", help="TOML file; without one, only this machine can reach the node.")
]


@app.command(epilog="Examples:  edgecxr serve --demo  |  edgecxr serve --config node.toml --check")
def serve(
    config: Config = None,
    check: Annotated[bool, typer.Option("--check", help="Say what would listen where, and end.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Show a node on this machine alone, with phantoms.")] = False,
) -> None:
    """Receive films by DICOM, and file their results in a PACS.

    It runs until Ctrl-C or SIGTERM. For research only.
    """
    from edgecxr.node.check import check as checked
    from edgecxr.node.check import warnings
    from edgecxr.node.node_config import read_config
    from edgecxr.node.supervisor import serve as run
    from edgecxr.terminal import say, show

    if demo:
        _demonstrate(config, check)
        return
    read = read_config(config)
    lines = checked(read)
    if check:
        lines += warnings(read)
    for line in lines:
        (show if check else say)(line)
    if not check:
        run(config, read)


def _demonstrate(config: Path | None, check: bool) -> None:
    from edgecxr.errors import MissingPackage, UsageError
    from edgecxr.extras import installed

    if config is not None or check:
        raise UsageError("--demo has a configuration of its own: leave --config and --check out")
    if installed("pynetdicom") is None:
        raise MissingPackage("pynetdicom", "node", "edgecxr serve --demo")
    from edgecxr.node.demo.demonstration import demonstrate

    demonstrate()

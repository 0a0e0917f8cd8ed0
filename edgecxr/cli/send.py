"""`edgecxr send`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.serve import Config


@app.command(epilog="Example:  edgecxr send results/ --to pacs --config node.toml")
def send(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="Reports and pictures of `infer --dicom`, or folders of them."),
    ],
    to: Annotated[str, typer.Option(metavar="NAME", help="A destination of the configuration.")],
    config: Config = None,
) -> None:
    """Send DICOM results to a PACS.

    What it does not take is reported, and the others are still sent. A second call sends all of them again: they have
    the same UIDs, so that a PACS keeps each once, and mostly answers with success.
    """
    from edgecxr.errors import MissingPackage
    from edgecxr.extras import installed
    from edgecxr.node.check import destination_of
    from edgecxr.node.node_config import read_config

    read = read_config(config)
    destination = destination_of(read, to)
    if installed("pynetdicom") is None:
        raise MissingPackage("pynetdicom", "node", "edgecxr send")
    from edgecxr.node.sending.send_files import send_files

    if send_files(paths, destination, read):
        raise typer.Exit(3)

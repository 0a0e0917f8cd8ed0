"""The command line: parse, one call, print. Heavy imports live inside the commands, so that --help stays quick."""

# The help lists the commands in the order of these imports.
from edgecxr.cli.app import app, main  # noqa: I001
from edgecxr.cli import data
from edgecxr.cli import workstation
from edgecxr.cli import measure
from edgecxr.cli import engine
from edgecxr.cli import device
from edgecxr.cli import bench

__all__ = ["app", "bench", "data", "device", "engine", "main", "measure", "workstation"]

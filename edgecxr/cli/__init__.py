"""The command line: parse, one call, print. Heavy imports live inside the commands, so that --help stays quick."""

from importlib import import_module

from edgecxr.cli.app import app, main

COMMANDS = (
    "prepare", "data", "demo", "train", "distill", "export", "evaluate", "explain", "build", "infer", "bundle",
    "doctor", "benchmark", "report",
)  # fmt: skip
"""In the order of the help; each has the file of its name."""

for command in COMMANDS:
    import_module(f"edgecxr.cli.{command}")

__all__ = ["COMMANDS", "app", "main"]

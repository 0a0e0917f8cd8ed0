"""The command line: parse, call one function, print.

Heavy imports are inside the commands, so that --help stays quick.
"""

from importlib import import_module

from edgecxr.workers.new_python import leave_current_folder

# Before anything else is imported: with `python -m edgecxr` the current folder comes first.
leave_current_folder()

from edgecxr.cli.app import app, main  # noqa: E402

COMMANDS = (
    "prepare", "data", "demo", "train", "distill", "export", "evaluate", "explain", "build", "infer", "serve",
    "node", "send", "bundle", "list", "doctor", "benchmark", "report",
)  # fmt: skip
"""Commands in the order of --help; each is in the module of its name."""

for command in COMMANDS:
    import_module(f"edgecxr.cli.{command}")

__all__ = ["COMMANDS", "app", "main"]

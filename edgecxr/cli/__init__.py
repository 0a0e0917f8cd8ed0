"""The command line: parse, call one function, print.

Heavy imports are inside the commands, so that --help stays quick.
"""

from edgecxr.workers.new_python import leave_current_folder

# Before anything else is imported: with `python -m edgecxr` the current folder comes first.
leave_current_folder()

from edgecxr.cli.app import COMMANDS, app_of, main  # noqa: E402

__all__ = ["COMMANDS", "app_of", "main"]

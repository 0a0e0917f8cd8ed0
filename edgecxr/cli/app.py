"""The application itself: options of every command, and errors that become one line and an exit code."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Annotated, NoReturn

import typer

import edgecxr
from edgecxr import NOTICE
from edgecxr.errors import EdgeCxrError

MAX_SEED = 2**32 - 1

app = typer.Typer(
    name="edgecxr",
    help=f"Chest X-ray models for small devices: train, distil, export, infer. {NOTICE}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
_debug = False


def main() -> None:
    """Run the command line; an error of edgecxr becomes one line and its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The path of a result may hold what the terminal's encoding lacks: no reason to fail when all is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="edgecxr")
    except EdgeCxrError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        _fail(f"unexpected {type(error).__name__}: {first} (edgecxr --debug shows where)", 1)


def _fail(message: str, code: int) -> NoReturn:
    """End with one line for the exception that is being handled, after its traceback if --debug was given."""
    from edgecxr.console import printable, say

    if _debug:
        traceback.print_exc()
    say(f"error: {printable(message)}")
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgecxr {edgecxr.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    global _debug
    _debug = debug

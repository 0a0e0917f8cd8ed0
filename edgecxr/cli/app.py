"""The application itself: options of every command, and errors that become one line and an exit code."""

from __future__ import annotations

import gc
import io
import os
import select
import sys
import time
import traceback
import types
from typing import Annotated, Any, NoReturn

import typer

import edgecxr
from edgecxr import NOTICE
from edgecxr.errors import EdgeCxrError

INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit codes that a shell gives to what SIGINT and SIGPIPE end."""

MAX_SEED = 2**32 - 1

app = typer.Typer(
    name="edgecxr",
    help=f"Chest X-ray models for small devices: train, distil, export, infer. {NOTICE}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 well; 1 unexpected; 2 usage; 3 input rejected; 4 model or bundle unusable; "
    "5 package missing; 6 check failed; 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
_debug = False

# UsageError of the click that typer uses, which is its own or the installed one.
_ParserError: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line; an error of edgecxr becomes one line and its exit code."""
    # Python keeps the frames of calls in chunks of 16 KiB, and where a loop's calls lie on the border of two, it takes
    # and gives back the second for each of them: by chance a sixth of a short command's time. A frame that claims room
    # for half a megabyte makes one large chunk for all that is called from it.
    roomy = types.FunctionType(_run.__code__.replace(co_stacksize=1 << 16), _run.__globals__)
    roomy()


def _run() -> None:
    # Modules are no garbage: with Python's default, looking for some in them is a twentieth of a short command.
    gc.set_threshold(50_000)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The path of a result may hold what the terminal's encoding lacks: no reason to fail when all is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command = typer.main.get_command(app)
        with command.make_context("edgecxr", sys.argv[1:]) as context:
            command.invoke(context)
    except typer.Exit as end:
        sys.exit(end.exit_code)
    except _ParserError as error:
        _refuse(error)
    except EdgeCxrError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        if "RANK" in os.environ and ("EDGECXR_LAUNCHED" in os.environ or os.environ["RANK"] != "0"):
            sys.exit(INTERRUPTED)  # one of several, and another says it
        _end("interrupted", INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _reader_gone():
            sys.exit(BROKEN_PIPE)
        first = (str(error).splitlines() or [""])[0]
        _fail(f"unexpected {type(error).__name__}: {first} (edgecxr --debug shows where)", 1)
    finally:
        # Python looks for garbage in all modules once more when it ends: a tenth of a short command's time. Not beside
        # torch, parts of which print pages about what was not collected.
        if "torch" not in sys.modules:
            gc.freeze()


def _refuse(error: Any) -> NoReturn:
    """End with one line for what the parser of the command line refuses."""
    message = error.format_message()
    if error.ctx and message == error.ctx.get_help():  # no command at all
        print(message, file=sys.stderr)
        sys.exit(2)
    where = error.ctx.command_path if error.ctx else "edgecxr"
    _fail(f"{message[:1].lower()}{message[1:].removesuffix('.')} (try '{where} -h')", 2)


def _reader_gone() -> bool:
    """Whether what reads this program's output has ended, as `head` does; if so, nothing more is written to it."""
    gone = False
    for descriptor in (1, 2):
        watch = select.poll()
        watch.register(descriptor, 0)  # errors are reported without being asked for
        if any(event & select.POLLERR for _, event in watch.poll(0)):
            # What is left in a buffer is tried once more when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            gone = True
    return gone


def _fail(message: str, code: int) -> NoReturn:
    if "RANK" in os.environ:
        _wait_for_the_others(code)
    _end(f"error: {message}", code)


def _wait_for_the_others(code: int) -> None:
    """Give the launcher time to end this process, if it is one of several and only follows another that has failed.

    All of them meet a wrong option or a loss that is not finite, and the first one says it. When one is killed, the
    others see nothing but a broken connection.
    """
    if code == 1 or os.environ["RANK"] != "0":
        time.sleep(10)


def _end(line: str, code: int) -> NoReturn:
    """End with one line for the exception that is being handled, after its traceback if --debug was given."""
    from edgecxr.terminal import printable

    if _debug:
        traceback.print_exc()
    print(printable(line), file=sys.stderr, flush=True)
    if "RANK" in os.environ:
        os._exit(code)  # at once: the launcher ends the others, who would else say it too
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

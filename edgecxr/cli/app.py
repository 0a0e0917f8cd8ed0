"""The Typer application: global options, and errors as exit codes."""

from __future__ import annotations

import gc
import itertools
import os
import re
import sys
import time
import types
from collections.abc import Iterable
from importlib import import_module
from typing import Annotated, Any, NoReturn

import typer
import typer.core

import edgecxr
from edgecxr import NOTICE
from edgecxr.engines import watchdog
from edgecxr.errors import EdgeCxrError, UsageError
from edgecxr.launcher import number_of_several
from edgecxr.streams import flush_streams, open_streams, reader_gone

INTERRUPTED = 130
BROKEN_PIPE = 141
"""Exit codes that a shell reports for processes ended by SIGINT and SIGPIPE."""

COMMANDS = (
    "prepare", "data", "demo", "train", "distill", "export", "evaluate", "explain", "build", "infer", "serve",
    "node", "send", "bundle", "list", "doctor", "benchmark", "report",
)  # fmt: skip
"""Commands in the order of --help; each is in the module of its name."""

MAX_SEED = 2**32 - 1

ALIASES = {
    "predict": "infer", "run": "infer", "classify": "infer", "val": "evaluate", "eval": "evaluate", "test": "evaluate",
    "validate": "evaluate", "fit": "train", "distil": "distill", "student": "distill", "ls": "list", "runs": "list",
    "models": "list", "bench": "benchmark", "speed": "benchmark", "convert": "export", "onnx": "export",
    "engine": "build", "trt": "build", "check": "doctor", "info": "bundle show", "verify": "bundle verify",
    "show": "bundle show", "pack": "data pack", "download": "prepare", "dataset": "prepare", "gradcam": "explain",
}  # fmt: skip
"""Commands of other tools -> ours, for messages."""


class Command(typer.core.TyperCommand):
    """A command whose help has its options in sections.

    The section of an option is its `rich_help_panel`.
    """

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options of the help."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
                title = getattr(parameter, "rich_help_panel", None) or kind
                sections.setdefault(title, []).append(_readable(*record))
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def _readable(names: str, text: str) -> tuple[str, str]:
    """Return a line of the help without what a reader must decipher.

    Defaults lose their brackets, and ranges such as 0<=x<=4294967295 are left to the message about a wrong value.
    """
    text = re.sub(r"default: \((.*?)\)(?=[;\]])", r"default: \1", text)
    text = re.sub(r"(; )?([\d.]+<=?)?x[<>]=?[\d.]+", "", text)
    names = re.sub(r"^(\S+) <.*>$", r"\1", names) if not names.startswith("-") else names.replace(" range>", ">")
    return names, re.sub(r"\s*\[\]", "", text)


class App(typer.Typer):
    """A Typer application whose commands are `Command`s."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Return the decorator of a command, as Typer's does."""
        return super().command(name, **{"cls": Command} | settings)


app = App(
    name="edgecxr",
    help=f"Chest X-ray models for small devices: train, distil, export, infer. {NOTICE}",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 well; 1 unexpected; 2 usage; 3 input rejected; 4 model or bundle unusable; "
    "5 package missing; 6 check failed; 7 out of time; 130 interrupted.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
_debug = False


def app_of(names: Iterable[str] = COMMANDS) -> App:
    """Return the application with some commands.

    Typer reads the annotations of all commands that it knows, which takes as long as all else of a short command.

    Args:
        names: of commands; those that were asked for before stay.
    """
    for name in names:
        import_module(f"edgecxr.cli.{name}")
    app.registered_commands.sort(key=lambda info: COMMANDS.index(str(info.callback.__module__).rpartition(".")[2]))
    app.registered_groups.sort(key=lambda info: COMMANDS.index(str(info.name)))
    return app


def _typed(args: list[str]) -> Iterable[str]:
    """Return the command that is typed, or all that could be meant."""
    word = next((arg for arg in args if not arg.startswith("-")), None)
    if "_EDGECXR_COMPLETE" in os.environ:
        return COMMANDS
    if word in COMMANDS and not {"-h", "--help"} & set(args[: args.index(str(word))]):
        return (str(word),)
    return () if args == ["--version"] else COMMANDS


# UsageError of the click that typer uses: its own copy or the installed one.
_ParserError: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """Run the command line.

    An error of edgecxr becomes one line and its exit code.
    """
    # Python keeps call frames in chunks of 16 KiB. If the calls of a loop cross the end of a chunk, each of them
    # allocates and frees the next one, which can cost a sixth of a short command's time. A frame that claims half a
    # megabyte makes one large chunk for everything called from it.
    run_in_large_chunk = types.FunctionType(_run.__code__.replace(co_stacksize=1 << 16), _run.__globals__)
    run_in_large_chunk()


def _run() -> None:
    # Modules are never garbage: searching them at Python's default threshold is a twentieth of a short command's time.
    gc.set_threshold(50_000)
    watchdog.arm()
    open_streams()
    from edgecxr.terminal import guarded

    with guarded():
        _invoke()


def _invoke() -> None:
    """Run the command; its error becomes a line and an exit code."""
    try:
        sys.exit(_command(sys.argv[1:]))
    except _ParserError as error:
        _refuse(error)
    except EdgeCxrError as error:
        _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        rank = number_of_several()
        if rank is not None and ("EDGECXR_LAUNCHED" in os.environ or rank):
            sys.exit(INTERRUPTED)  # another of these processes reports it
        _end("interrupted", INTERRUPTED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and reader_gone():
            sys.exit(BROKEN_PIPE)
        first = (str(error).splitlines() or [""])[0]
        _fail(f"unexpected {type(error).__name__}: {first} (edgecxr --debug shows where)", 1)
    finally:
        flush_streams()
        # Without this, Python searches all modules for garbage again at exit: a tenth of a short command's time. With
        # torch it must, since parts of torch print pages about objects that were not collected.
        if "torch" not in sys.modules:
            gc.freeze()


def _command(args: list[str]) -> int:
    """Run a command, and return its exit code.

    All that it printed is written by then.

    Raises:
        UsageError: an argument is empty, such as a variable of a shell that is not set; or standard output is full or
            closed.
    """
    global _debug
    _debug = False  # until the option is read
    typed = args[: args.index("--")] if "--" in args else args
    empty = [before for before, arg in itertools.pairwise(["", *args]) if not arg]
    empty += [arg[:-1] for arg in typed if arg.startswith("--") and arg.endswith("=")]
    if empty:
        argument = empty[0] if empty[0].startswith("--") else "an argument"
        raise UsageError(f"{argument} is empty: give a value, or leave it out")
    command = typer.main.get_command(app_of(_typed(args)))
    if "_EDGECXR_COMPLETE" in os.environ:  # a shell asks what could be typed next
        command.main(args, prog_name="edgecxr")
    try:
        with command.make_context("edgecxr", args) as context:
            command.invoke(context)
        code = 0
    except typer.Exit as end:
        code = end.exit_code
    sys.stdout.flush()
    return code


def _refuse(error: Any) -> NoReturn:
    """Report a command line that the parser refuses, and exit."""
    from edgecxr.terminal import complain

    message = error.format_message()
    if error.ctx and message == error.ctx.get_help():  # no command was typed
        for line in message.split("\n"):
            complain(line)
        sys.exit(2)
    where = error.ctx.command_path if error.ctx else "edgecxr"
    typed = re.search(r"command '(.*?)'", message, re.IGNORECASE)
    if typed and typed[1] in ALIASES and where == "edgecxr":
        message = f"No such command '{typed[1]}': did you mean 'edgecxr {ALIASES[typed[1]]}'?"
    _fail(f"{message[:1].lower()}{message[1:].removesuffix('.')} (try '{where} -h')", 2)


def _fail(message: str, code: int) -> NoReturn:
    if number_of_several() is not None:
        _wait_for_the_others(code)
    _end(f"error: {message}", code)


def _wait_for_the_others(code: int) -> None:
    """Wait for the launcher to end this process, if another one reports.

    All processes that train together meet a wrong option or a loss that is not finite, and the first one reports it.
    When one process is killed, the others see only a broken connection, which is not worth reporting.
    """
    if code == 1 or number_of_several():
        time.sleep(10)


def _end(line: str, code: int) -> NoReturn:
    """Print one line about the exception being handled, and exit.

    With --debug its traceback comes first.
    """
    from edgecxr.terminal import complain, show_traceback

    if _debug:
        show_traceback()
    complain(line)
    if number_of_several() is not None:
        flush_streams()
        os._exit(code)  # at once: the launcher then ends the others before they report it too
    sys.exit(code)


def _version(requested: bool) -> None:
    if requested:
        from edgecxr.terminal import show

        show(f"edgecxr {edgecxr.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    global _debug
    _debug = debug

"""`edgecxr bundle`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecxr.cli.app import app

bundles = typer.Typer(
    help="Look at a bundle, or check that it is whole.",
    epilog="Examples:  edgecxr bundle show  |  edgecxr bundle verify student-tiny-28-mlcak",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bundles, name="bundle")


@bundles.command("show", epilog="Example:  edgecxr bundle show student-tiny-28-mlcak")
def bundle_show(
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the card as it is.")] = False,
) -> None:
    """Say what a bundle is: data, results, thresholds, files."""
    from edgecxr import resolve
    from edgecxr.bundle.bundle import Bundle
    from edgecxr.bundle.describe import describe
    from edgecxr.terminal import printable
    from edgecxr.workspace import Workspace

    shown = Bundle.open(resolve.bundle(Workspace.default(), bundle))
    if json_:
        print(shown.card.to_json())
    else:
        for line in describe(shown).splitlines():
            print(printable(line))


@bundles.command("verify", epilog="Example:  edgecxr bundle verify student-tiny-28-mlcak")
def bundle_verify(
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
) -> None:
    """Compare every file of a bundle with its checksum. Those that have none, such as engines, are named."""
    from edgecxr import resolve
    from edgecxr.bundle.describe import checked_files
    from edgecxr.errors import ModelError
    from edgecxr.terminal import printable
    from edgecxr.workspace import Workspace

    folder = resolve.bundle(Workspace.default(), bundle)
    lines, whole = checked_files(folder)
    for line in lines:
        print(printable(line))
    if not whole:
        raise ModelError(f"{folder} is not whole: export it again or copy it again")

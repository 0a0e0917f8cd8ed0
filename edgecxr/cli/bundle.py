"""`edgecxr bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import App, app

bundles = App(
    help="Look at a bundle, check that it is whole, or sign it.",
    epilog="Examples:  edgecxr bundle show  |  edgecxr bundle verify student-tiny-28-mlcak-vindr  |  "
    "edgecxr bundle sign student-tiny-28-mlcak-vindr --key clinic.key",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(bundles, name="bundle")


@bundles.command("show", epilog="Example:  edgecxr bundle show student-tiny-28-mlcak-vindr")
def bundle_show(
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the card as it is.")] = False,
    operating_point: Annotated[
        str | None,
        typer.Option(help="Rule whose thresholds the table has.", show_default="youden"),
    ] = None,
) -> None:
    """Show a bundle's data, results, thresholds and files."""
    from edgecxr import resolve
    from edgecxr.bundle.bundle import Bundle
    from edgecxr.bundle.describe import describe
    from edgecxr.terminal import show_json, show_text
    from edgecxr.workspace import Workspace

    shown = Bundle.open(resolve.bundle(Workspace.default(), bundle))
    if json_:
        show_json(shown.card.to_json())
    else:
        show_text(describe(shown, operating_point))


@bundles.command(
    "verify",
    epilog="Examples:  edgecxr bundle verify student-tiny-28-mlcak-vindr  |  "
    "edgecxr bundle verify BUNDLE --key clinic.pub",
)
def bundle_verify(
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Public key (.pub) that must have signed the bundle.")
    ] = None,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of public keys, one of which must have signed it.",
            show_default="EDGECXR_TRUSTED_KEYS",
        ),
    ] = None,
) -> None:
    """Compare a bundle's files with their checksums and signature.

    Files without a checksum, such as engines, are listed.
    """
    from edgecxr import resolve
    from edgecxr.bundle.describe import checked_files, checked_signature
    from edgecxr.errors import ModelError, UsageError
    from edgecxr.terminal import show
    from edgecxr.workspace import Workspace

    if key is not None and keys is not None:
        raise UsageError("--key and --keys: give one of them")
    folder = resolve.bundle(Workspace.default(), bundle)
    lines, whole = checked_files(folder)
    for line in lines:
        show(line)
    if not whole:
        raise ModelError(f"{folder} is not whole: export it again or copy it again")
    for line in checked_signature(folder, key, keys):
        show(line)


@bundles.command("keygen", epilog="Example:  edgecxr bundle keygen clinic")
def bundle_keygen(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="Path of the two files, without their endings.")],
) -> None:
    """Make NAME.key, which signs bundles, and NAME.pub for devices."""
    from edgecxr.bundle.signature import TRUSTED, make_keys, name_of_key
    from edgecxr.terminal import show

    private, public = make_keys(name)
    show(f"{private}: signs bundles; keep it to yourself")
    show(f"{public}: key {name_of_key(public)}, for the folder {TRUSTED} of the devices")


@bundles.command("sign", epilog="Example:  edgecxr bundle sign student-tiny-28-mlcak-vindr --key clinic.key")
def bundle_sign(
    key: Annotated[Path, typer.Option(metavar="FILE", help="Private key, made by `edgecxr bundle keygen`.")],
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
) -> None:
    """Sign a bundle, for devices that run signed ones only."""
    from edgecxr import resolve
    from edgecxr.bundle.bundle import checked_sums
    from edgecxr.bundle.signature import SIGNATURE, sign
    from edgecxr.terminal import show
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    folder = resolve.bundle(workspace, bundle, own=True)
    resolve.refuse_shipped(workspace, folder)
    name = sign(folder, checked_sums(folder), key)
    show(f"{folder / SIGNATURE}: signed with key {name}")

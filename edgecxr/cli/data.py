"""`edgecxr data`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import MAX_SEED, App, app
from edgecxr.cli.options import Umask
from edgecxr.storage.permissions import PRIVATE

prepared_data = App(
    help="Look at a prepared data set, check it, or pack films of it.",
    epilog="Examples:  edgecxr data show  |  edgecxr data check vindr  |  edgecxr data pack vindr --n 500",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(prepared_data, name="data")


@prepared_data.command("show", epilog="Examples:  edgecxr data show  |  edgecxr data show nih")
def data_show(
    name: Annotated[str | None, typer.Argument(help="Prepared data set; the latest by default.")] = None,
    umask: Umask = PRIVATE,
) -> None:
    """Show what is in a data set.

    Also draws a few films of each finding.
    """
    from edgecxr import resolve
    from edgecxr.data.sheet import montage
    from edgecxr.data.show import show
    from edgecxr.terminal import show as show_line
    from edgecxr.terminal import show_text
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    prepared = resolve.dataset(workspace, name)
    show_text(show(prepared))
    picture = workspace.root / f"montage-{prepared.name}.png"
    montage(prepared, picture)
    show_line(f"picture  {picture}")


@prepared_data.command("check", epilog="Examples:  edgecxr data check  |  edgecxr data check nih")
def data_check(
    name: Annotated[str | None, typer.Argument(help="Prepared data set; the latest by default.")] = None,
) -> None:
    """Read a whole data set and compare it with its hashes."""
    from edgecxr import resolve
    from edgecxr.terminal import show
    from edgecxr.workspace import Workspace

    prepared = resolve.dataset(Workspace.default(), name)
    prepared.check()
    show(f"{prepared.path}: OK, {len(prepared)} images, {prepared.hash}")


@prepared_data.command("pack", epilog="Examples:  edgecxr data pack  |  edgecxr data pack vindr --n 500 --out test.npz")
def data_pack(
    name: Annotated[str | None, typer.Argument(help="Prepared data set; the latest by default.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    n: Annotated[int | None, typer.Option(help="Films, about: whole patients are drawn. All by default.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.", show_default="NAME-SPLIT[-N].npz in runs/")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the draw.")] = 0,
    umask: Umask = PRIVATE,
) -> None:
    """Put labelled films into one file for a device.

    The file is for `benchmark --data FILE`, and names no patients.
    """
    from edgecxr import resolve
    from edgecxr.data.pack import pack
    from edgecxr.terminal import show
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    prepared = resolve.dataset(workspace, name)
    path = out or workspace.root / f"{prepared.name}-{split}{'' if n is None else f'-{n}'}.npz"
    packed = pack(prepared, split, n, path, seed)
    show(
        f"{path}: {len(packed)} of {len(prepared.rows(split))} {split} films of {prepared.name}, "
        f"{len(set(packed.patients))} patients, {path.stat().st_size / 1e6:.1f} MB"
    )

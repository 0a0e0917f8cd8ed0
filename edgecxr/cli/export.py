"""`edgecxr export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import complete, runs

if TYPE_CHECKING:
    from edgecxr.engines.target import Target


@app.command(
    epilog="Examples:  edgecxr export  |  edgecxr export --trt --int8 --target jetson-orin-nano  |  "
    "edgecxr export --analyze"
)
def export(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="A student's or teacher's run; the latest student.", autocompletion=complete(runs)
        ),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="FP32 and FP16 only, or also --int8.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="FP32 and INT8 only, or also --fp16.")] = False,
    trt: Annotated[bool, typer.Option("--trt", help="Then build the TensorRT engine, if this is the device.")] = False,
    target: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Device: v100, jetson-orin-nano, cpu-x86 ...")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file: tolerances, calibration.")] = None,
    keep_float: Annotated[
        int | None, typer.Option(min=0, metavar="K", help="Leave the K layers that lose most by INT8 as they are.")
    ] = None,
    analyze: Annotated[
        bool, typer.Option("--analyze", help="Only say what INT8 costs, layer by layer; with a picture.")
    ] = False,
    with_teacher: Annotated[
        bool, typer.Option("--with-teacher", help="Export the student's teacher too, to compare on the device.")
    ] = False,
    not_chest: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Films of other things: count how many of them the quality gate finds."),
    ] = None,
    data: Annotated[str | None, typer.Option(metavar="NAME", help="Data set of the check; the model's own.")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "--name",
            metavar="NAME|DIR",
            help="Name of the bundle, or a path with a /; by default that of the run and of --target.",
        ),
    ] = None,
) -> None:
    """Write a bundle of FP32, FP16 and INT8 ONNX.

    Each file is compared with the checkpoint on real images.
    """
    from edgecxr.engines.target import load_target
    from edgecxr.export.not_chest import read_not_chest
    from edgecxr.export.recipe import choose
    from edgecxr.registry import load
    from edgecxr.terminal import say, show, show_text
    from edgecxr.workspace import Workspace

    device = load_target(target) if target else None
    if device and not trt:  # building an engine prints them too
        for note in device.notes:
            say(f"{device.name}: {note}")
    chosen = choose(recipe, fp16, int8, keep_float, device)
    workspace = Workspace.default()
    if analyze:
        show_text(load("edgecxr.export.run_export:analyze", "export")(workspace, run, data, chosen))
        return
    others = read_not_chest(not_chest) if not_chest else []  # before torch starts threads, because it forks
    folders = load("edgecxr.export.run_export:export", "export")(
        workspace, run, data, chosen, device, with_teacher, others, out
    )
    for folder in folders:
        show(str(folder))
        if trt:
            show(str(_build(folder, "int8" if int8 else "fp16" if fp16 else None, device)))


def _build(folder: Path, precision: str | None, target: Target | None) -> Path:
    """Build a new bundle's engine, or print the command for the device."""
    from edgecxr.bundle.bundle import Bundle
    from edgecxr.engines.tensorrt.build import build_engine, choose_precision
    from edgecxr.errors import MissingPackage
    from edgecxr.terminal import say

    bundle = Bundle.open(folder)
    precision = precision or choose_precision(bundle, target)
    try:
        return build_engine(bundle, precision, target, say=say)
    except MissingPackage:
        device = f" --target {target.name}" if target else ""
        say(f"the ONNX files are written; copy {folder} to the device and type there:")
        say(f"  edgecxr build {folder.name} --precision {precision}{device}")
        raise

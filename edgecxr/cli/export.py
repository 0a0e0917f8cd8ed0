"""`edgecxr export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr.cli.app import app

if TYPE_CHECKING:
    from edgecxr.engines.target import Target


@app.command(
    epilog="Examples:  edgecxr export  |  edgecxr export --trt --int8 --target jetson-orin-nano  |  "
    "edgecxr export --analyze"
)
def export(
    run: Annotated[str | None, typer.Argument(help="A student's or teacher's run; the latest student.")] = None,
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
) -> None:
    """Write a bundle of FP32, FP16 and INT8 ONNX. Each is compared with the checkpoint on real images."""
    from edgecxr.engines.target import load_target
    from edgecxr.export.not_chest import read_not_chest
    from edgecxr.export.recipe import choose
    from edgecxr.registry import load
    from edgecxr.terminal import say
    from edgecxr.workspace import Workspace

    device = load_target(target) if target else None
    if device and not trt:  # building an engine says them too
        for note in device.notes:
            say(f"{device.name}: {note}")
    chosen = choose(recipe, fp16, int8, keep_float, device)
    workspace = Workspace.default()
    if analyze:
        print(load("edgecxr.export.run_export:analyze", "export")(workspace, run, data, chosen))
        return
    others = read_not_chest(not_chest) if not_chest else []  # first: it forks, and torch starts threads
    folders = load("edgecxr.export.run_export:export", "export")(
        workspace, run, data, chosen, device, with_teacher, others
    )
    for folder in folders:
        print(folder)
        if trt:
            print(_build(folder, "int8" if int8 else "fp16" if fp16 else None, device))


def _build(folder: Path, precision: str | None, target: Target | None) -> Path:
    """Build the engine of a new bundle here, or say what to type on the device."""
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

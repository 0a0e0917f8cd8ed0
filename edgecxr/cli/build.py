"""`edgecxr build`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import app


@app.command(epilog="Examples:  edgecxr build  |  edgecxr build student-tiny-28-mlcak-vindr --precision int8  |  "
             "edgecxr build --memory 256 --batches 1 1 1")  # fmt: skip
def build(
    bundle: Annotated[
        str | None,
        typer.Argument(metavar="BUNDLE", help="Path or name.", show_default="EDGECXR_MODEL, else the latest"),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="fp32, fp16 or int8.", show_default="what the target recommends, else fp16"),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Device whose limits are used, such as jetson-orin-nano.")
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, max=1 << 20, metavar="MIB", help="Limit of the builder's working memory.")
    ] = None,
    batches: Annotated[
        tuple[int, int, int] | None,
        typer.Option(help="Smallest, usual and largest batch.", show_default="1 8 64"),
    ] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Compare the engine with ONNX Runtime once more.")] = False,
    images: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --verify: packed images (.npz), too.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Build again even if a fresh engine is there.")] = False,
) -> None:
    """Build a TensorRT engine, on the device that will run it.

    It is compared with ONNX Runtime before it is used. An engine that is up to date is not built again.
    """
    from edgecxr import resolve
    from edgecxr.bundle.bundle import Bundle
    from edgecxr.engines.target import load_target
    from edgecxr.engines.tensorrt.build import build_engine, choose_precision
    from edgecxr.errors import UsageError
    from edgecxr.terminal import say, show
    from edgecxr.vocabulary import PRECISIONS
    from edgecxr.workspace import Workspace

    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: give one of {', '.join(PRECISIONS)}")
    if images is not None and not verify:
        raise UsageError("--images goes with --verify")
    device = load_target(target) if target is not None else None
    workspace = Workspace.default()
    opened = Bundle.open(resolve.chosen_bundle(workspace, bundle, own=True))
    resolve.refuse_shipped(workspace, opened.path)
    chosen = precision or choose_precision(opened, device)
    if verify:
        from edgecxr.engines.tensorrt.compare_with_onnx import check_gpu, differences

        check_gpu()
    path = build_engine(opened, chosen, device, memory_mib=memory, batches=batches, force=force, say=say)
    if verify:
        for line in differences(opened, chosen, images):
            say(line)
    show(str(path))

"""`edgecxr train`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import (
    Augment,
    Batch,
    Clip,
    Compile,
    Device,
    Devices,
    Epochs,
    Fresh,
    Nodes,
    Precision,
    Pretrained,
    Rate,
    Rendezvous,
    Seed,
    TrainingData,
    Warmup,
    launched,
)


@app.command(
    epilog="Examples:  edgecxr train  |  edgecxr train --data vindr --arch small --epochs 100  |  "
    "edgecxr train --stem conv --patch 32"
)
def train(
    data: TrainingData = None,
    res: Annotated[
        int, typer.Option(help="Side of the teacher's image: 224, or 448 px of films that have --size 448.")
    ] = 224,
    arch: Annotated[str | None, typer.Option(help="tiny, small or base.", show_default="tiny")] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Side of a patch in pixels.", show_default="16")] = None,
    stem: Annotated[
        str | None,
        typer.Option(
            help="patch, or conv: convolutions, which learn more from random weights; --patch 16 or 32.",
            show_default="patch",
        ),
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Number of transformer blocks.", show_default="12")] = None,
    init: Annotated[
        str | None,
        typer.Option(help="pretrained (ImageNet) or random; with --stem conv random.", show_default="pretrained"),
    ] = None,
    pretrained: Pretrained = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Rate = None,
    warmup: Warmup = None,
    clip: Clip = None,
    augment: Augment = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
    precision: Precision = "auto",
    compile_: Compile = False,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's schedule and start, no warm-up.")] = False,
    fresh: Fresh = False,
) -> None:
    """Train the teacher. Goes on where it was interrupted."""
    from edgecxr import resolve, terminal
    from edgecxr.registry import load
    from edgecxr.workspace import Workspace

    typed = {
        "res": res, "arch": arch, "patch": patch, "stem": stem, "depth": depth, "init": init,
        "pretrained": pretrained and str(pretrained), "epochs": epochs, "batch": batch, "lr": lr, "warmup": warmup,
        "clip": clip, "augment": augment, "seed": seed, "precision": precision, "paper": paper,
    }  # fmt: skip
    workspace = Workspace.default()
    prepared = resolve.dataset(workspace, data)
    if launched(devices, nodes, rendezvous, device):
        return
    run = load("edgecxr.train.run_training:train", "train")(workspace, prepared, typed, device, fresh, compile_)
    if terminal.speaks():
        print(run)

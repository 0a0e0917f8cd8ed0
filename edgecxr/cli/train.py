"""`edgecxr train`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import (
    MODEL,
    SCHEDULE,
    Augment,
    Batch,
    ClassWeights,
    Clip,
    Compile,
    Device,
    Devices,
    Ema,
    Epochs,
    Fresh,
    Labelled,
    MaxHours,
    Nodes,
    Patience,
    Precision,
    Pretrained,
    Rate,
    Rendezvous,
    RunName,
    Seed,
    TensorBoard,
    TrainingData,
    Warmup,
    launched,
    require_torch,
    resumable,
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
    arch: Annotated[
        str | None, typer.Option(help="tiny, small or base.", show_default="tiny", rich_help_panel=MODEL)
    ] = None,
    patch: Annotated[
        int | None, typer.Option(min=1, help="Side of a patch in pixels.", show_default="16", rich_help_panel=MODEL)
    ] = None,
    stem: Annotated[
        str | None,
        typer.Option(
            help="patch, or conv: convolutions, which learn more from random weights; --patch 16 or 32.",
            show_default="patch",
            rich_help_panel=MODEL,
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Number of transformer blocks.", show_default="12", rich_help_panel=MODEL)
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="pretrained (ImageNet), random, or a finished run to go on from; with --stem conv random.",
            show_default="pretrained",
            rich_help_panel=MODEL,
        ),
    ] = None,
    pretrained: Pretrained = None,
    epochs: Epochs = None,
    patience: Patience = None,
    max_hours: MaxHours = None,
    batch: Batch = None,
    lr: Rate = None,
    warmup: Warmup = None,
    clip: Clip = None,
    ema: Ema = None,
    class_weights: ClassWeights = None,
    labelled: Labelled = None,
    augment: Augment = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
    precision: Precision = "auto",
    compile_: Compile = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="The paper's schedule and start, no warm-up.", rich_help_panel=SCHEDULE)
    ] = False,
    name: RunName = None,
    tensorboard: TensorBoard = False,
    fresh: Fresh = False,
) -> None:
    """Train the teacher.

    Continues where it was interrupted.
    """
    from edgecxr import resolve, terminal
    from edgecxr.registry import load
    from edgecxr.workspace import Workspace

    typed = {
        "res": res, "arch": arch, "patch": patch, "stem": stem, "depth": depth, "init": init,
        "pretrained": pretrained and str(pretrained), "epochs": epochs, "patience": patience, "batch": batch, "lr": lr,
        "warmup": warmup, "clip": clip, "ema": ema, "class_weights": class_weights, "labelled": labelled,
        "augment": augment, "seed": seed, "precision": precision, "paper": paper,
    }  # fmt: skip
    require_torch()
    workspace = Workspace.default()
    prepared = resolve.dataset(workspace, data)
    with resumable():
        if launched(devices, nodes, rendezvous, device):
            return
        run = load("edgecxr.train.run_training:train", "train")(
            workspace, prepared, typed, device, fresh, compile_, name=name, tensorboard=tensorboard, max_hours=max_hours
        )
    if terminal.speaks():
        terminal.show(str(run))

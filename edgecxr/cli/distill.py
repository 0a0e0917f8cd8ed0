"""`edgecxr distill`."""

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
    epilog="Examples:  edgecxr distill --res 28  |  edgecxr distill --res 56 --method none  |  "
    "edgecxr distill --res 28 --paper --input upsample"
)
def distill(
    res: Annotated[int, typer.Option(help="Side of the student's image: 28, 56, 112 or 224 px.")],
    method: Annotated[
        str, typer.Option(help="mlcak, one-to-one, last-block, vanilla, hinton; none: no distillation.")
    ] = "mlcak",
    tokens: Annotated[
        int | None, typer.Option(help="Patch tokens: 49 (edge), 196 (the paper's) or 16.", show_default="49")
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input", help="native, or upsample: enlarged to 224 px inside the model.", show_default="native"
        ),
    ] = None,
    teacher: Annotated[str | None, typer.Option(metavar="RUN", help="The latest fitting one by default.")] = None,
    data: TrainingData = None,
    arch: Annotated[str | None, typer.Option(help="tiny, small or base; the teacher's by default.")] = None,
    stem: Annotated[
        str | None, typer.Option(help="patch, or conv: convolutions; the teacher's by default.", show_default=False)
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="Blocks, such as 6 or 4; starts from every 2nd or 3rd; the teacher's by default.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="teacher (its weights, resampled; default), pretrained or random.")
    ] = None,
    pretrained: Pretrained = None,
    epochs: Epochs = None,
    batch: Batch = None,
    lr: Rate = None,
    warmup: Warmup = None,
    clip: Clip = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the findings' logits.", show_default="1")] = None,
    beta: Annotated[float | None, typer.Option(help="Weight of the abnormal logit.", show_default="1")] = None,
    gamma: Annotated[float | None, typer.Option(help="Weight of the knowledge term.", show_default="1")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of --method hinton.", show_default="4")] = None,
    augment: Augment = None,
    seed: Seed = 0,
    device: Device = "auto",
    devices: Devices = 1,
    nodes: Nodes = 1,
    rendezvous: Rendezvous = None,
    precision: Precision = "auto",
    compile_: Compile = False,
    paper: Annotated[
        bool, typer.Option("--paper", help="196 tokens, the paper's schedule and start, no warm-up.")
    ] = False,
    fresh: Fresh = False,
) -> None:
    """Train a low-resolution student with a teacher. Goes on where it was interrupted."""
    from edgecxr import resolve, terminal
    from edgecxr.registry import METHODS, check, load
    from edgecxr.workspace import Workspace

    check(METHODS, method, "method")
    typed = {
        "res": res, "method": method, "tokens": tokens, "input": input_, "arch": arch, "stem": stem, "depth": depth,
        "init": init, "pretrained": pretrained and str(pretrained), "epochs": epochs, "batch": batch, "lr": lr,
        "warmup": warmup, "clip": clip, "alpha": alpha, "beta": beta, "gamma": gamma, "temperature": temperature,
        "augment": augment, "seed": seed, "precision": precision, "paper": paper,
    }  # fmt: skip
    workspace = Workspace.default()
    prepared = resolve.dataset(workspace, data)
    if launched(devices, nodes, rendezvous, device):
        return
    run = load("edgecxr.train.run_training:distill", "distill")(
        workspace, prepared, typed, teacher, device, fresh, compile_
    )
    if terminal.speaks():
        print(run)

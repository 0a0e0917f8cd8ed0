"""`edgecxr distill`."""

from __future__ import annotations

from typing import Annotated

import typer

from edgecxr.cli.app import app
from edgecxr.cli.options import (
    DISTILLATION,
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
    Warmup,
    complete,
    launched,
    require_torch,
    resumable,
    runs,
)
from edgecxr.registry import METHODS


@app.command(
    epilog="Examples:  edgecxr distill --res 28  |  edgecxr distill --res 56 --method none  |  "
    "edgecxr distill --res 28 --paper --input upsample"
)
def distill(
    res: Annotated[int, typer.Option(help="Side of the student's image: 28, 56, 112 or 224 px.")],
    method: Annotated[
        str,
        typer.Option(
            help="mlcak, one-to-one, last-block, vanilla, hinton; none: no distillation.",
            autocompletion=complete(METHODS),
        ),
    ] = "mlcak",
    tokens: Annotated[
        int | None,
        typer.Option(
            help="Patch tokens: 49 (edge), 196 (the paper's) or 16.", show_default="49", rich_help_panel=MODEL
        ),
    ] = None,
    input_: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="native, or upsample: enlarged to 224 px inside the model.",
            show_default="native",
            rich_help_panel=MODEL,
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="The latest on the same data by default.", autocompletion=complete(runs)),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="NAME", help="Prepared data set; by default that of --teacher, or the latest.")
    ] = None,
    arch: Annotated[
        str | None, typer.Option(help="tiny, small or base; the teacher's by default.", rich_help_panel=MODEL)
    ] = None,
    stem: Annotated[
        str | None,
        typer.Option(
            help="patch, or conv: convolutions; the teacher's by default.", show_default=False, rich_help_panel=MODEL
        ),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(
            help="Blocks, such as 6 or 4; starts from every 2nd or 3rd; the teacher's by default.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="teacher (its weights, resampled; default), pretrained, random, or a finished run.",
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
    alpha: Annotated[
        float | None,
        typer.Option(help="Weight of the findings' logits.", show_default="1", rich_help_panel=DISTILLATION),
    ] = None,
    beta: Annotated[
        float | None, typer.Option(help="Weight of the abnormal logit.", show_default="1", rich_help_panel=DISTILLATION)
    ] = None,
    gamma: Annotated[
        float | None, typer.Option(help="Weight of the knowledge term.", show_default="1", rich_help_panel=DISTILLATION)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of --method hinton.", show_default="4", rich_help_panel=DISTILLATION)
    ] = None,
    trust: Annotated[
        str | None,
        typer.Option(
            help="all (default), or val: each finding's logit counts as far as the teacher beats an undistilled "
            "student on validation films.",
            show_default=False,
            rich_help_panel=DISTILLATION,
        ),
    ] = None,
    undistilled: Annotated[
        str | None,
        typer.Option(
            metavar="RUN", help="For --trust val; the latest fitting one by default.", rich_help_panel=DISTILLATION
        ),
    ] = None,
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
        bool,
        typer.Option(
            "--paper", help="196 tokens, the paper's schedule and start, no warm-up.", rich_help_panel=SCHEDULE
        ),
    ] = False,
    name: RunName = None,
    tensorboard: TensorBoard = False,
    fresh: Fresh = False,
) -> None:
    """Train a low-resolution student with a teacher.

    Continues where it was interrupted.
    """
    from edgecxr import resolve, terminal
    from edgecxr.errors import UsageError
    from edgecxr.registry import check, load
    from edgecxr.workspace import Workspace

    check(METHODS, method, "method")
    if trust not in (None, "all", "val"):
        raise UsageError(f"--trust {trust}: there are all, val")
    typed = {
        "res": res, "method": method, "tokens": tokens, "input": input_, "arch": arch, "stem": stem, "depth": depth,
        "init": init, "pretrained": pretrained and str(pretrained), "epochs": epochs, "patience": patience,
        "batch": batch, "lr": lr, "warmup": warmup, "clip": clip, "ema": ema, "class_weights": class_weights,
        "alpha": alpha, "beta": beta, "gamma": gamma, "temperature": temperature, "trust": trust, "labelled": labelled,
        "augment": augment, "seed": seed, "precision": precision, "paper": paper,
    }  # fmt: skip
    require_torch()
    workspace = Workspace.default()
    prepared = resolve.training_data(workspace, data, teacher)
    with resumable():
        if launched(devices, nodes, rendezvous, device):
            return
        run = load("edgecxr.train.run_training:distill", "distill")(
            workspace,
            prepared,
            typed,
            teacher,
            device,
            fresh,
            compile_,
            undistilled=undistilled,
            name=name,
            tensorboard=tensorboard,
            max_hours=max_hours,
        )
    if terminal.speaks():
        terminal.show(str(run))

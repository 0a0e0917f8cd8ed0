"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgecxr.cli.app import MAX_SEED

TOLERANCE = 0.02  # of AUROC

TrainingData = Annotated[
    str | None, typer.Option("--data", metavar="NAME", help="Prepared data set; the latest by default.")
]
ModelData = Annotated[str | None, typer.Option("--data", metavar="NAME", help="Data set; the model's own by default.")]
Split = Annotated[str, typer.Option(help="test, val or train.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Pretrained = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="ImageNet weights as safetensors, where the hub cannot be reached."),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.", show_default="100")]
Batch = Annotated[int | None, typer.Option(min=1, max=65536, help="Images per step.", show_default="64")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate of AdamW.", show_default="0.0005")]
Warmup = Annotated[float | None, typer.Option(help="Share of the steps in which the rate rises.", show_default="0.05")]
Clip = Annotated[float | None, typer.Option(help="Largest norm of a step's gradient; 0: any.", show_default="1")]
Augment = Annotated[float | None, typer.Option(help="Strength of the augmentation, 0 to 3.", show_default="1")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 matrix products.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same CPU result.")]
Devices = Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each GPU.")]
Nodes = Annotated[int, typer.Option(min=1, help="Machines; type the same command on each.")]
Rendezvous = Annotated[
    str | None, typer.Option(metavar="HOST[:PORT]", help="One of the machines, where several --nodes meet.")
]
Compile = Annotated[bool, typer.Option("--compile", help="Apply torch.compile, which takes a while to begin.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin a new run even if an interrupted one could be continued.")]


def launched(devices: int, nodes: int, rendezvous: str | None, device: str) -> bool:
    """Run this command in several processes, if that was asked for and it is not one of them already."""
    from edgecxr.errors import UsageError
    from edgecxr.registry import load

    if "RANK" in os.environ:
        load("edgecxr.train.launch:follow_launcher", "training")()
        return False
    if rendezvous and nodes == 1:
        raise UsageError("--rendezvous is for several machines: say how many with --nodes")
    if devices * nodes == 1:
        return False
    load("edgecxr.train.launch:launch", "training")(devices, nodes, rendezvous, device)
    return True

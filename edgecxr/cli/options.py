"""Options that several commands share."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecxr.cli.app import MAX_SEED

if TYPE_CHECKING:
    from edgecxr.workspace import Workspace

TOLERANCE = 0.02  # of AUROC

MODEL, DISTILLATION, SCHEDULE, MACHINE = "Model", "Distillation", "Schedule", "Device"
"""Sections of the help of `train` and `distill`, after "Options"."""

FILMS, RESULTS = "Films", "Results"
"""Further sections of that of `infer`."""


def complete(names: Iterable[str] | Callable[[Workspace], Iterable[Path]]) -> Callable[[str], list[str]]:
    """Return a function that completes a name for the shell.

    Args:
        names: the names, or a function that returns the folders of a workspace that are called so.
    """

    def completed(incomplete: str) -> list[str]:
        from edgecxr.workspace import Workspace

        candidates = [folder.name for folder in names(Workspace.default())] if callable(names) else names
        return [name for name in candidates if name.startswith(incomplete)]

    return completed


def datasets(workspace: Workspace) -> list[Path]:
    """Return the data sets, for `complete`."""
    return workspace.datasets()


def runs(workspace: Workspace) -> list[Path]:
    """Return the finished runs, for `complete`."""
    return workspace.finished_runs()


def models(workspace: Workspace) -> list[Path]:
    """Return the finished runs and the bundles, for `complete`."""
    return [*workspace.finished_runs(), *workspace.bundles()]


TrainingData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help="Prepared data set; the latest by default.",
        autocompletion=complete(datasets),
    ),
]
ModelData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="NAME",
        help="Data set; the model's own by default.",
        autocompletion=complete(datasets),
    ),
]
Split = Annotated[str, typer.Option(help="test, val or train.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=MACHINE)]
Pretrained = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="ImageNet weights as safetensors, where the hub cannot be reached, or the best.safetensors of a run.",
        rich_help_panel=MODEL,
    ),
]
Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training images.", show_default="100", rich_help_panel=SCHEDULE)
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="End after N epochs without a better validation; off by default.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
MaxHours = Annotated[
    float | None,
    typer.Option(
        "--max-hours",
        metavar="H",
        help="End this command, with exit code 7, before the epoch that would end after H hours; repeated, it goes on.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
Batch = Annotated[
    int | None, typer.Option(min=1, max=65536, help="Images per step.", show_default="64", rich_help_panel=SCHEDULE)
]
Rate = Annotated[
    float | None, typer.Option(help="Peak learning rate of AdamW.", show_default="0.0005", rich_help_panel=SCHEDULE)
]
Warmup = Annotated[
    float | None,
    typer.Option(help="Share of the steps in which the rate rises.", show_default="0.05", rich_help_panel=SCHEDULE),
]
Clip = Annotated[
    float | None,
    typer.Option(help="Largest norm of a step's gradient; 0: any.", show_default="1", rich_help_panel=SCHEDULE),
]
Augment = Annotated[
    float | None, typer.Option(help="Strength of the augmentation, 0 to 3.", show_default="1", rich_help_panel=SCHEDULE)
]
Ema = Annotated[
    float | None,
    typer.Option(
        "--ema",
        metavar="DECAY",
        help="Validate and keep a moving average of the weights, such as 0.999; 0: none.",
        show_default="0",
        rich_help_panel=SCHEDULE,
    ),
]
ClassWeights = Annotated[
    str | None,
    typer.Option(
        help="none, or balanced: films with a finding count together as much as those without it.",
        show_default="none",
        rich_help_panel=SCHEDULE,
    ),
]
Labelled = Annotated[
    int | None,
    typer.Option(
        help="Use the labels of so many training films only; the others teach a student by its teacher alone.",
        show_default=False,
        rich_help_panel=SCHEDULE,
    ),
]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 matrix products.", rich_help_panel=MACHINE)]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same CPU result.", rich_help_panel=SCHEDULE)]
Devices = Annotated[
    int, typer.Option(min=1, help="Processes on this machine, one for each GPU.", rich_help_panel=MACHINE)
]
Nodes = Annotated[int, typer.Option(min=1, help="Machines; type the same command on each.", rich_help_panel=MACHINE)]
Rendezvous = Annotated[
    str | None,
    typer.Option(
        metavar="HOST[:PORT]", help="One of the machines, where several --nodes meet.", rich_help_panel=MACHINE
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Apply torch.compile, which takes a while to begin.", rich_help_panel=MACHINE)
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin a new run even if an interrupted one could be continued.")]
RunName = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="Of the run; made of its settings by default.")
]
TensorBoard = Annotated[bool, typer.Option("--tensorboard", help="Also write the curves for TensorBoard into the run.")]


def _take_permissions(context: typer.Context, octal: str) -> str:
    from edgecxr.storage.permissions import umask

    context.with_resource(umask(octal))
    return octal


Umask = Annotated[
    str,
    typer.Option(
        "--umask",
        metavar="OCTAL",
        callback=_take_permissions,
        help="Permissions that new files do not get; 077: only you may read them, 022: everybody.",
    ),
]


@contextmanager
def resumable() -> Iterator[None]:
    """Name the command that goes on after an interrupted one."""
    from edgecxr.errors import TimeIsUp

    try:
        yield
    except (KeyboardInterrupt, TimeIsUp):
        from edgecxr.terminal import say

        words = [word for word in sys.argv[1:] if word != "--fresh"]
        say(f"to go on, type: {shlex.join(['edgecxr', *words])}")
        raise


def require_torch() -> None:
    """Say that torch is missing before anything else is said.

    It is not imported, which takes seconds.

    Raises:
        MissingPackage: it is not installed.
    """
    from importlib.util import find_spec

    from edgecxr.errors import MissingPackage

    for package in ("torch", "timm", "lightning_fabric", "safetensors"):
        try:
            there = find_spec(package) is not None
        except ModuleNotFoundError:  # import hooks may raise this, too
            there = False
        if not there:
            raise MissingPackage(package.replace("_", "-"), "train", "training")


def launched(devices: int, nodes: int, rendezvous: str | None, device: str) -> bool:
    """Run this command in several processes, if options request it.

    Returns:
        Whether it did; False also in each of those processes, which go on with the command.

    Raises:
        UsageError: the options do not fit each other, or what a launcher left in the environment is incomplete.
    """
    from edgecxr.errors import UsageError
    from edgecxr.launcher import number_of_several
    from edgecxr.registry import load

    if number_of_several() is not None:
        load("edgecxr.train.launch:follow_launcher", "training")()
        return False
    if rendezvous and nodes == 1:
        raise UsageError("--rendezvous is for several machines: say how many with --nodes")
    if devices * nodes == 1:
        return False
    load("edgecxr.train.launch:launch", "training")(devices, nodes, rendezvous, device)
    return True

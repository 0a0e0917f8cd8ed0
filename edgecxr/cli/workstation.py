"""Training, evaluation and export on the command line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edgecxr.engines.target import Target

from edgecxr.cli.app import MAX_SEED, app

Data = Annotated[str | None, typer.Option("--data", metavar="NAME", help="Prepared data set; the latest by default.")]
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


@app.command(epilog="Example: edgecxr demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Workspace to write to.")] = Path("runs"),
    n: Annotated[int, typer.Option(help="Number of phantom films.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the teacher; the students take half as many.")] = 12,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of films and training.")] = 0,
) -> None:
    """Run the whole path on synthetic films. Prepare, train, distil, export, infer: minutes on a laptop."""
    from edgecxr.registry import load

    print(load("edgecxr.demo:demo", "demo")(out, n, epochs, seed))


@app.command(
    epilog="Examples:  edgecxr train  |  edgecxr train --data vindr --arch small --epochs 100  |  "
    "edgecxr train --stem conv --patch 32"
)
def train(
    data: Data = None,
    res: Annotated[
        int, typer.Option(help="Side of the teacher's image: 224, or 448 px of films that have --size 448.")
    ] = 224,
    arch: Annotated[str | None, typer.Option(help="tiny, small or base.", show_default="tiny")] = None,
    patch: Annotated[int | None, typer.Option(min=1, help="Side of a patch in pixels.", show_default="16")] = None,
    stem: Annotated[
        str | None,
        typer.Option(
            help="patch, or conv: convolutions, which learn far faster from random weights.", show_default="patch"
        ),
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Number of transformer blocks.", show_default="12")] = None,
    init: Annotated[
        str | None, typer.Option(help="pretrained (ImageNet) or random.", show_default="pretrained")
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
    if _launched(devices, nodes, rendezvous, device):
        return
    run = load("edgecxr.train.run_training:train", "train")(workspace, prepared, typed, device, fresh, compile_)
    if terminal.speaks():
        print(run)


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
    data: Data = None,
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
    if _launched(devices, nodes, rendezvous, device):
        return
    run = load("edgecxr.train.run_training:distill", "distill")(
        workspace, prepared, typed, teacher, device, fresh, compile_
    )
    if terminal.speaks():
        print(run)


def _launched(devices: int, nodes: int, rendezvous: str | None, device: str) -> bool:
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

"""Training, evaluation and export on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgecxr import NOTICE
from edgecxr.cli.app import MAX_SEED, app

Data = Annotated[str | None, typer.Option("--data", metavar="NAME", help="Prepared data set; the latest by default.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Pretrained = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="ImageNet weights as safetensors, where the hub cannot be reached."),
]
Arch = Annotated[str, typer.Option(help="tiny, small or base.")]
Precision = Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16 matrix products.")]
Batch = Annotated[int, typer.Option(min=1, max=65536, help="Images per step.")]
Seed = Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Same seed, same CPU result.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Begin a new run even if an interrupted one could be continued.")]


@app.command(epilog="Example: edgecxr demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Workspace to write to.")] = Path("runs"),
    n: Annotated[int, typer.Option(help="Number of phantom films.")] = 2000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the teacher; the students take half as many.")] = 12,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of films and training.")] = 0,
) -> None:
    """Run the whole path on synthetic films: prepare, train, distil, export, infer. Minutes on a laptop."""
    from edgecxr.registry import load

    print(load("edgecxr.demo:demo", "demo")(out, n, epochs, seed))


@app.command(epilog="Examples:  edgecxr train  |  edgecxr train --data vindr --arch small --epochs 100")
def train(
    data: Data = None,
    arch: Arch = "tiny",
    patch: Annotated[int, typer.Option(min=1, help="Side of a patch in pixels, at 224 px.")] = 16,
    depth: Annotated[int, typer.Option(help="Number of transformer blocks.")] = 12,
    init: Annotated[str, typer.Option(help="pretrained (ImageNet) or random.")] = "pretrained",
    pretrained: Pretrained = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 100,
    batch: Batch = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 5e-4,
    augment: Annotated[float, typer.Option(help="Strength of the augmentation, 0 to 3.")] = 1.0,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    fresh: Fresh = False,
) -> None:
    """Train the teacher at 224 px; goes on where it was interrupted."""
    from edgecxr import select
    from edgecxr.registry import load
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    prepared = select.dataset(workspace, data)
    settings = {"arch": arch, "patch": patch, "depth": depth, "init": init, "epochs": epochs, "batch": batch, "lr": lr}
    settings |= {"augment": augment, "seed": seed, "precision": precision}
    run = load("edgecxr.train.commands:train", "train")(workspace, prepared, settings, pretrained, device, fresh)
    print(run)


@app.command(epilog="Examples:  edgecxr distill --res 28  |  edgecxr distill --res 56 --tokens 196 --method none")
def distill(
    res: Annotated[int, typer.Option(help="Side of the student's image: 28, 56, 112 or 224 px.")],
    method: Annotated[str, typer.Option(help="mlcak, or none: the undistilled baseline.")] = "mlcak",
    tokens: Annotated[int, typer.Option(help="Patch tokens: 49 (edge), 196 (the paper's) or 16.")] = 49,
    teacher: Annotated[str | None, typer.Option(metavar="RUN", help="The latest fitting one by default.")] = None,
    data: Data = None,
    arch: Annotated[str | None, typer.Option(help="tiny, small or base; the teacher's by default.")] = None,
    init: Annotated[
        str | None, typer.Option(help="teacher (its weights, resampled; default), pretrained or random.")
    ] = None,
    pretrained: Pretrained = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 100,
    batch: Batch = 64,
    lr: Annotated[float, typer.Option(help="Peak learning rate of AdamW.")] = 5e-4,
    alpha: Annotated[float, typer.Option(help="Weight of the findings' logits.")] = 1.0,
    beta: Annotated[float, typer.Option(help="Weight of the abnormal logit.")] = 1.0,
    gamma: Annotated[float, typer.Option(help="Weight of the knowledge term.")] = 1.0,
    augment: Annotated[float, typer.Option(help="Strength of the augmentation, 0 to 3.")] = 1.0,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    fresh: Fresh = False,
) -> None:
    """Train a low-resolution student with a teacher; goes on where it was interrupted."""
    from edgecxr import select
    from edgecxr.registry import METHODS, check, load
    from edgecxr.workspace import Workspace

    check(METHODS, method, "method")
    workspace = Workspace.default()
    prepared = select.dataset(workspace, data)
    settings = {"method": method, "epochs": epochs, "batch": batch, "lr": lr, "alpha": alpha, "beta": beta}
    settings |= {"gamma": gamma, "augment": augment, "seed": seed, "precision": precision}
    run = load("edgecxr.train.commands:distill", "distill")(
        workspace, prepared, res, tokens, teacher, arch, init, settings, pretrained, device, fresh
    )
    print(run)


@app.command(epilog="Examples:  edgecxr evaluate  |  edgecxr evaluate student-tiny-28-mlcak --split val --json")
def evaluate(
    model: Annotated[str | None, typer.Argument(help="Run or bundle; the latest run by default.")] = None,
    data: Annotated[str | None, typer.Option(metavar="NAME", help="Data set; the model's own by default.")] = None,
    split: Annotated[str, typer.Option(help="test, val or train.")] = "test",
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 1000,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """AUROC of every finding and of normal/abnormal, with intervals; the result goes into a run's card."""
    import json

    from edgecxr.bench.evaluation import evaluate_model, table
    from edgecxr.console import progress
    from edgecxr.workspace import Workspace

    with progress("evaluate") as update:
        name, record = evaluate_model(Workspace.default(), model, data, split, replicates, update)
    print(json.dumps({"model": name, **record, "notice": NOTICE}) if json_ else table(name, record))


@app.command(epilog="Examples:  edgecxr export  |  edgecxr export student-tiny-28-mlcak")
def export(
    run: Annotated[str | None, typer.Argument(help="A student's or teacher's run; the latest student.")] = None,
    data: Annotated[str | None, typer.Option(metavar="NAME", help="Data set of the check; the model's own.")] = None,
) -> None:
    """Write a bundle: FP32 ONNX, compared with the checkpoint on real images."""
    from edgecxr import select
    from edgecxr.console import say
    from edgecxr.registry import load
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    folder = select.run(workspace, run, "student-")
    prepared = select.dataset_of(workspace, select.card_of(folder), data)
    export_bundle = load("edgecxr.export.bundle:export_bundle", "export")
    say(f"export {folder.name} to ONNX and compare it on {prepared.name}")
    bundle, differences = export_bundle(folder, prepared, workspace.export_dir(folder.name))
    say(
        f"fp32: pass, logits within {differences['max_logit_difference']:.1e} of the checkpoint on "
        f"{differences['images']} images"
    )
    print(bundle.path)

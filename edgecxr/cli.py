"""The command line: parse, one call, print. Heavy imports live inside the commands, so that --help stays quick."""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import edgecxr
from edgecxr import NOTICE
from edgecxr.errors import EdgeCxrError

MAX_SEED = 2**32 - 1

app = typer.Typer(
    name="edgecxr",
    help=f"Chest X-ray models for small devices: train, distil, export, infer. {NOTICE}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
bundles = typer.Typer(help="Look at a bundle, or check that it is whole.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bundles, name="bundle")

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
_debug = False


def main() -> None:
    """Run the command line; an error of edgecxr becomes one line and its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # The path of a result may hold what the terminal's encoding lacks: no reason to fail when all is done.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="edgecxr")
    except EdgeCxrError as error:
        _fail(str(error), error.exit_code)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        _fail(f"unexpected {type(error).__name__}: {first} (edgecxr --debug shows where)", 1)


def _fail(message: str, code: int) -> NoReturn:
    """End with one line for the exception that is being handled, after its traceback if --debug was given."""
    from edgecxr.console import printable, say

    if _debug:
        traceback.print_exc()
    say(f"error: {printable(message)}")
    sys.exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"edgecxr {edgecxr.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    global _debug
    _debug = debug


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


@app.command(
    epilog="Examples:  edgecxr prepare phantom --n 2000  |  edgecxr prepare vindr /data/vindr-cxr  |  "
    "edgecxr prepare folder labels.csv --images films --ignore sex"
)
def prepare(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="phantom, vindr or folder.")],
    path: Annotated[Path | None, typer.Argument(help="Where it lies; a phantom is made there.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the prepared data set.")] = None,
    n: Annotated[int | None, typer.Option(help="phantom: number of films.")] = None,
    labels: Annotated[str | None, typer.Option(help="Findings, A,B,C; vindr: also vindr14, vindr22, all.")] = None,
    merge: Annotated[str | None, typer.Option(help="vindr, phantom: readers by majority, union or mean.")] = None,
    images: Annotated[Path | None, typer.Option(help="folder: what image paths are relative to.")] = None,
    ignore: Annotated[str | None, typer.Option(help="folder: columns that are no findings, A,B,C.")] = None,
    image_column: Annotated[str | None, typer.Option(help="folder: column of image paths.")] = None,
    patient_column: Annotated[str | None, typer.Option(help="folder: column of patients.")] = None,
    split_column: Annotated[str | None, typer.Option(help="folder: column of train, val, test.")] = None,
    normal_column: Annotated[str | None, typer.Option(help="folder: column that is 1 where nothing is wrong.")] = None,
    abnormal_column: Annotated[str | None, typer.Option(help="folder: the opposite.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of phantom films and of random splits.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one per CPU by default.")] = None,
) -> None:
    """Decode and resize a data set into the workspace; goes on where it was interrupted."""
    from edgecxr.console import progress, say
    from edgecxr.data.cache import prepare as prepare_cache
    from edgecxr.data.source import open_source
    from edgecxr.workspace import Workspace

    workspace = Workspace.default()
    options = {
        "name": name, "n": n, "merge": merge, "images": images, "image_column": image_column,
        "patient_column": patient_column, "split_column": split_column, "normal_column": normal_column,
        "abnormal_column": abnormal_column,
    }  # fmt: skip
    listed = {"labels": labels, "ignore": ignore}
    with progress("films") as made:
        source = open_source(dataset, path, options, listed, seed, workers, made, workspace)
    with progress("prepare") as update:
        prepared = prepare_cache(source, workspace.data_dir(source.name), workers, update)
    for warning in source.provenance.get("warnings", []):
        say(f"warning: {warning}")
    print(prepared.describe())


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


@app.command(epilog="Examples:  edgecxr infer scan.dcm  |  edgecxr infer archive/ --json > out.jsonl  |  "
             "edgecxr infer scan.dcm --overlay pictures")  # fmt: skip
def infer(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="DICOM files, images, or folders of them.")],
    model: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Path or name; else EDGECXR_MODEL, else the latest.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="One JSON object per file on standard output.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="Put the attention map into the JSON.")] = False,
    overlay: Annotated[Path | None, typer.Option(metavar="DIR", help="Write each film with its attention map.")] = None,
    operating_point: Annotated[str, typer.Option(help="Rule of the decisions: youden or sensitivity90.")] = "youden",
    backend: Annotated[str, typer.Option(help="Engine that runs the model.")] = "onnxruntime",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
) -> None:
    """Predict findings and normal/abnormal from films. A file that cannot be used is reported, and the rest goes on."""
    from edgecxr import select
    from edgecxr.errors import UsageError
    from edgecxr.runtime.infer import infer_paths
    from edgecxr.runtime.predictor import Predictor
    from edgecxr.workspace import Workspace

    if backend == "torch":
        raise UsageError(
            "--backend torch runs checkpoints, not bundles: `edgecxr evaluate RUN` does, or export the run"
        )
    with Predictor(
        select.bundle(Workspace.default(), model), backend, operating_point=operating_point, threads=threads
    ) as predictor:
        rejected = infer_paths(predictor, paths, json_, attention, overlay)
    if rejected:
        raise typer.Exit(3)


@bundles.command("show", epilog="Example:  edgecxr bundle show student-tiny-28-mlcak")
def bundle_show(
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
) -> None:
    """Print a bundle's card."""
    from edgecxr import select
    from edgecxr.runtime.bundle import Bundle
    from edgecxr.workspace import Workspace

    print(Bundle.open(select.bundle(Workspace.default(), bundle)).card.to_json())


@bundles.command("verify", epilog="Example:  edgecxr bundle verify student-tiny-28-mlcak")
def bundle_verify(
    bundle: Annotated[str | None, typer.Argument(help="Path or name; the latest by default.")] = None,
) -> None:
    """Compare every file of a bundle with its checksum."""
    from edgecxr import select
    from edgecxr.errors import ModelError
    from edgecxr.runtime.bundle import verify
    from edgecxr.workspace import Workspace

    folder = select.bundle(Workspace.default(), bundle)
    files = verify(folder)
    for name, whole in files:
        print(f"{name}: {'OK' if whole else 'FAILED'}")
    if not all(whole for _, whole in files):
        raise ModelError(f"{folder} is not whole: export it again or copy it again")

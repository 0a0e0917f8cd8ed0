"""Models of others in the same run as edgecxr's own, through the same harness: a record of `edgecxr benchmark`.

    python benchmarks/peers/run.py teacher-tiny-224-kermany student-tiny-28-mlcak-kermany --data kermany \
        --student student-tiny-28-mlcak-kermany

torchxrayvision's DenseNet-121 and timm's ViT-Base, MobileNetV3-Large and EfficientNet-B0 at 224 px, through torch and
through ONNX Runtime; and with --student one of edgecxr's own, exported as torch does by default and run in a default
session, which shows what edgecxr's export and session settings are worth.

The peers' weights are random, and said to be random, unless NAME.safetensors or NAME.pt (a state_dict) is in the folder
of --weights, such as densenet121-xrv.safetensors or vit_base_patch16_224.safetensors, or --download fetches them. How
long a model takes does not depend on them. DenseNet-121 has an AUROC where its weights are trained and all findings of
--data are among its own; torchxrayvision trained it on NIH ChestX-ray14, CheXpert, MIMIC-CXR, PadChest and more: their
films are no test of it.

torchxrayvision comes with the dependency group peers (`pip install --group peers`, pip 25.1), the rest with
edgecxr[export]. The rows of what cannot be had say why, and the others are measured. With --folder the files are kept,
and a device without torch measures on ONNX Runtime what a workstation made.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the worker processes find peers.models there, too

from edgecxr import resolve
from edgecxr.benchmark import options, tables
from edgecxr.benchmark.candidates import Candidate, Model
from edgecxr.benchmark.measure import Settings
from edgecxr.bundle.card import read_card
from edgecxr.errors import EdgeCxrError, brief
from edgecxr.machine.cores import cores
from edgecxr.registry import BACKENDS
from edgecxr.storage.atomic import writing
from edgecxr.terminal import progress, say
from edgecxr.workspace import Workspace
from peers import models
from peers.models import PEERS, PIXELS, SIDE, Peer

ENGINES = ("torch", "onnxruntime")


def main() -> int:
    """Make the peers, measure, print the tables and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="own runs and bundles; else all of the workspace")
    parser.add_argument("--peer", action="append", metavar="NAME", help=f"else {', '.join(PEERS)}; any name of timm")
    parser.add_argument("--student", metavar="RUN", help="a run to export plainly")
    parser.add_argument("--data", metavar="NAME|FILE", help="for AUROC")
    parser.add_argument("--backend", action="append", default=[], help=f"engine; peers have {' and '.join(ENGINES)}")
    parser.add_argument("--precision", action="append", default=[], help="of own bundles; peers have fp32")
    parser.add_argument("--threads", type=int, default=cores(), help="of the CPU")
    parser.add_argument("--max-batch", type=int, default=64, help="largest batch for the throughput")
    parser.add_argument("--passes", type=int, default=3, help="over everything")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--against", metavar="MODEL", help="print how much faster than this one")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder with weights of peers")
    parser.add_argument("--download", action="store_true", help="let torchxrayvision and timm fetch their weights")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep the peers' files, and take those there")
    parser.add_argument("--out", type=Path, metavar="FILE", help="record to write")
    args = parser.parse_args()
    if min(args.threads, args.max_batch, args.passes) < 1:
        parser.error("--threads, --max-batch and --passes are at least 1")
    if args.weights and not args.weights.is_dir():
        parser.error(f"--weights {args.weights} is no folder")
    if wrong := set(args.backend) - set(BACKENDS):
        parser.error(f"--backend {', '.join(wrong)}: there are {', '.join(BACKENDS)}")
    try:
        with tempfile.TemporaryDirectory(prefix="edgecxr-peers-") as scratch:
            results = measured(args, args.folder or Path(scratch))
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
        return 130
    print(tables.summary(results, args.against))
    return 0


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make the peers in a folder, and measure them and the own models."""
    workspace = Workspace.default()
    for name in args.models:  # a wrong name shall be said now, not after the peers were made
        resolve.run_or_bundle(workspace, name)
    labels = resolve.dataset(workspace, args.data).labels if args.data else ()
    peers = list(candidates(workspace, args, folder, labels))
    settings = Settings(args.threads, args.max_batch, args.passes, replicates=args.replicates)
    typed = shlex.join(["python", "benchmarks/peers/run.py", *(Path(word).name for word in sys.argv[1:])])
    benchmark_options = options.BenchmarkOptions(
        args.models, args.backend, args.precision, args.data, None, args.against
    )
    with progress("benchmark") as update:
        return options.run(workspace, benchmark_options, settings, args.out, update, peers, typed)


def candidates(
    workspace: Workspace, args: argparse.Namespace, folder: Path, labels: tuple[str, ...]
) -> Iterator[Candidate]:
    """Make the peers, and yield them on each engine that is wanted."""
    engines = [name for name in ENGINES if not args.backend or name in args.backend]
    if not engines or (args.precision and "fp32" not in args.precision):
        return
    with writing(folder, "give another with --folder"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(args.peer or PEERS):
        yield from peer(name, engines, folder, args, labels)
    if args.student and "onnxruntime" in engines:
        yield student(resolve.run(workspace, args.student), folder, args.threads)


def peer(
    name: str, engines: Sequence[str], folder: Path, args: argparse.Namespace, labels: tuple[str, ...]
) -> Iterator[Candidate]:
    """Make a model of others and yield it on each engine."""
    say(f"making {name}")
    network, why = apart(models.make, name, folder, args.weights, args.download)
    if network is None:
        for engine in engines:
            yield refused(Model(name, "peer", (1, SIDE, SIDE), "random"), engine, why, args.threads)
        return
    if network.weights == "random":
        say(f"{name} has random weights: its speed can be measured, and nothing else")
    model_labels, columns = answers(network, labels)
    facts = {"source": network.source} | ({"abnormal": "its most likely finding"} if model_labels else {})
    model = Model(name, "peer", network.shape, network.weights, model_labels, facts, network.sha256)
    arguments = {"threads": args.threads, "pixels": PIXELS.get(name, (0.0, 1.0)), "columns": columns}
    for engine in engines:
        if engine == "torch":
            file = folder / f"{name}.safetensors"
            yield Candidate(
                model, engine, "fp32", "peers.models:open_torch", arguments | {"name": name, "path": file}, file
            )
        else:
            file = folder / f"{name}.onnx"
            yield Candidate(model, engine, "fp32", "peers.models:open_onnx", arguments | {"path": file}, file)


def student(run: Path, folder: Path, threads: int) -> Candidate:
    """Export a run plainly and return it on ONNX Runtime."""
    card = read_card(run)
    model = Model(
        f"{card.name}, plain export", "peer", (1, card.size, card.size), "trained" if card.data else "random",
        card.labels, {"source": "torch.onnx.export with its defaults"}, card.sha256,
    )  # fmt: skip
    say(f"making {model.name}")
    file = folder / f"{card.name}-plain.onnx"
    _, why = apart(models.make_student, run, file)
    if why:
        return refused(model, "onnxruntime", why, threads)
    return Candidate(model, "onnxruntime", "fp32", "peers.models:open_onnx", {"path": file, "threads": threads}, file)


def refused(model: Model, engine: str, why: str, threads: int) -> Candidate:
    """Return a candidate whose row says why it was not measured."""
    return Candidate(model, engine, "fp32", "peers.models:refuse", {"why": why, "threads": threads}, None)


def answers(network: Peer, labels: tuple[str, ...]) -> tuple[tuple[str, ...], list[int]]:
    """Return the findings that a peer is asked for, and their columns: a data set's, where it has them all."""
    if labels and set(labels) <= set(network.labels):
        return labels, [network.labels.index(label) for label in labels]
    return network.labels, []


def apart(do: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """Return what a function returns and "", or None and why it failed.

    It runs in a process of its own: this one shall hold neither torch nor a large model while others are measured, and
    goes on where the other was ended for want of memory.
    """
    try:
        # Standard output is for the tables, and torchxrayvision prints there.
        context, to_stderr = multiprocessing.get_context("spawn"), (2, 1)
        with ProcessPoolExecutor(1, context, initializer=os.dup2, initargs=to_stderr) as pool:
            return pool.submit(do, *arguments).result(), ""
    except EdgeCxrError as error:
        return None, str(error)
    except Exception as error:
        return None, brief(f"{type(error).__name__}: {error}", 400)


if __name__ == "__main__":
    sys.exit(main())

"""The `edgecxr demo` command: the whole pipeline on synthetic films.

It calls the same functions as the other commands.
"""

from __future__ import annotations

import dataclasses
import shlex
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import edgecxr.train  # noqa: F401 - it says how the threads of torch wait, before torch is imported
from edgecxr import NOTICE
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import read_card
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import open_backend
from edgecxr.errors import EdgeCxrError, ModelError
from edgecxr.evaluate.evaluation import evaluate_model
from edgecxr.export.export_bundle import export_bundle
from edgecxr.export.recipe import Recipe
from edgecxr.metrics import with_interval
from edgecxr.phantom.make import phantom
from edgecxr.terminal import aligned, joined, progress, say
from edgecxr.train import run_training
from edgecxr.train.config import patch_of
from edgecxr.workers.new_python import run_edgecxr
from edgecxr.workspace import Workspace

FILMS_TO_INFER = 3
# A CPU trains this in minutes: it has 49 tokens at 224 px (`edgecxr train` has 196) and half the usual depth, and few
# films and epochs call for small batches and little augmentation.
TEACHER = {"arch": "tiny", "patch": 32, "depth": 6, "init": "random"}
# A student for a small device: half of the teacher's blocks, a third of its tokens.
TOKENS = 16
STUDENT = {"depth": 3, "init": "teacher"}
SCHEDULE = {"batch": 16, "lr": 5e-4, "augment": 0.3, "precision": "auto"}
DEVICE = "auto"


def demo(root: Path, n: int, epochs: int, seed: int) -> str:
    """Prepare, train, distil, export and infer, skipping steps already done.

    Args:
        root: folder of the workspace.
        n: number of phantom films.
        epochs: number of epochs of the teacher; a student trains for half as many.
        seed: seed of the films and of training.

    Returns:
        The summary, as text.
    """
    workspace = Workspace(root)
    started = time.perf_counter()
    name = f"phantom-{n}"
    say(NOTICE)
    say(f"1/5  edgecxr prepare phantom {root / name} --n {n} --name {name} --seed {seed}")
    with progress("films") as update:
        source = dataclasses.replace(phantom(root / name, n=n, seed=seed, progress=update), name=name)
    with progress("prepare") as update:
        prepared = prepare(source, workspace.data_dir(source.name), progress=update)

    common = SCHEDULE | {"seed": seed}
    settings = TEACHER | common | {"epochs": epochs}
    say(f"2/5  edgecxr train{_options(settings)}")
    teacher = run_training.once(
        workspace, prepared, settings, partial(run_training.train, workspace, prepared, settings, DEVICE)
    )
    students = {}
    for method in ("mlcak", "none"):
        settings = STUDENT | common | {"method": method, "epochs": max(1, epochs // 2)}
        typed = {"res": 28, "tokens": TOKENS} | settings
        say(f"3/5  edgecxr distill{_options(typed)}")
        distil = partial(run_training.distill, workspace, prepared, typed, teacher.name, DEVICE)
        students[method] = run_training.once(
            workspace,
            prepared,
            settings | {"teacher_sha256": read_card(teacher).sha256, "size": 28, "patch": patch_of(28, TOKENS)},
            distil,
        )

    say("4/5  edgecxr evaluate, edgecxr export")
    # The distilled student comes last: `edgecxr infer` takes the latest bundle when no model is named.
    runs = {"teacher": teacher, "student, undistilled": students["none"], "student, MLCAK": students["mlcak"]}
    rows = []
    for title, run in runs.items():
        against = students["none"].name if run == students["mlcak"] else None
        _, record = evaluate_model(workspace, run.name, None, "test", 1000, against=against)
        bundle = _exported(workspace, prepared, run)
        rows.append((title, run.name, record, bundle, _latency_ms(bundle, prepared)))

    say(f"5/5  edgecxr infer, on {FILMS_TO_INFER} held-out phantom DICOM files")
    films = [source.files[i] for i in np.flatnonzero(source.splits == "test")[:FILMS_TO_INFER]]
    # Run as a user would type it, in a process without torch.
    arguments = ["infer", *map(str, films), "--model", str(bundle.path), "--overlay", str(root / "overlays")]
    if run_edgecxr(arguments):
        raise EdgeCxrError("edgecxr infer failed on films of the demo: see above")

    return _summary(rows, prepared, workspace, films[0], time.perf_counter() - started)


def _options(settings: dict[str, Any]) -> str:
    """Return settings as command-line options."""
    return "".join(f" --{name} {value}" for name, value in settings.items())


def _exported(workspace: Workspace, prepared: Prepared, run: Path) -> Bundle:
    """Return the bundle of a run's weights, exported if missing or damaged."""
    place = workspace.export_dir(run.name)
    with suppress(ModelError):
        bundle = Bundle.open(place)
        if bundle.card.sha256 == read_card(run).sha256:
            say(f"{place} is done")
            return bundle
    return export_bundle(run, prepared, place, Recipe(precisions=("fp32",)))


def _latency_ms(bundle: Bundle, prepared: Prepared, runs: int = 50) -> float:
    """Return the median milliseconds of one image through onnxruntime.

    Only the model is timed, after ten warm-up runs.
    """
    backend = open_backend("onnxruntime", bundle.model("fp32"))
    image = prepared.inputs(np.arange(1), bundle.card.size)
    times = []
    for _ in range(runs + 10):
        start = time.perf_counter()
        backend.run(image)
        times.append(time.perf_counter() - start)
    backend.close()
    return float(np.median(times[10:])) * 1000


def _summary(
    rows: list[tuple[str, str, dict[str, Any], Bundle, float]],
    prepared: Prepared,
    workspace: Workspace,
    film: Path,
    seconds: float,
) -> str:
    lines = [
        "",
        f"{len(prepared)} synthetic phantom films, test split: {rows[0][2]['images']} films of "
        f"{rows[0][2]['patients']} patients",
        "AUROC with 95 % interval; latency: of one image, by ONNX Runtime on this CPU",
    ]
    cells = [["", "findings (macro)", "normal/abnormal", "px", "tokens", "blocks", "ONNX", "latency"]]
    for title, _, record, bundle, ms in rows:
        size = f"{bundle.artefact('fp32').stat().st_size / 1e6:.1f} MB"
        aurocs = [_interval(record["findings"]["macro"]), _interval(record["abnormal"])]
        shape = [str(number) for number in (bundle.card.size, bundle.card.tokens, bundle.card.depth)]
        cells.append([title, *aurocs, *shape, size, f"{ms:.1f} ms"])
    lines += aligned(cells, right=True)
    skipped = sorted({label for _, _, record, _, _ in rows for label in record["skipped"]})
    if skipped:
        lines.append(f"without an AUROC, for want of one class in the test split: {', '.join(skipped)}")
    lines += [
        _difference(rows[-1][2]["against"]["findings"]["macro"]),
        f"Done in {seconds / 60:.1f} minutes. Learnt from synthetic films only: it says nothing of real ones.",
        f"Pictures: {workspace.data_dir(prepared.name) / 'contact_sheet.png'}, {workspace.root / 'overlays'}",
        f"Next:     {_where(workspace)}edgecxr infer {shlex.quote(str(film))} --overlay pictures",
        NOTICE,
    ]
    return joined(lines)


def _where(workspace: Workspace) -> str:
    """Return the variable assignment that commands need to find this workspace.

    It is "" for the default workspace.
    """
    is_default = workspace.root == Workspace.default().root
    return "" if is_default else f"EDGECXR_RUNS={shlex.quote(str(workspace.root))} "


def _interval(row: dict[str, Any] | None) -> str:
    return with_interval(row["auroc"], row["low"], row["high"]) if row else "one class only"


def _difference(gain: dict[str, float] | None) -> str:
    """Return a line about the gain from distillation, paired by film."""
    if gain is None:
        return "MLCAK against undistilled: no finding has both classes in the test split"
    verdict = "" if gain["low"] > 0 or gain["high"] < 0 else ": no difference can be told from so few films"
    interval = with_interval(gain["difference"], gain["low"], gain["high"], "+.3f")
    return f"MLCAK against undistilled, findings: {interval}{verdict}"

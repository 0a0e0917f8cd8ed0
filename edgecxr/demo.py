"""`edgecxr demo`: the whole path on synthetic films, with the functions that the other commands call."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

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
from edgecxr.phantom.make import phantom
from edgecxr.terminal import progress, say
from edgecxr.train import run_training
from edgecxr.workspace import Workspace

FILMS_TO_INFER = 3
# What a CPU trains in minutes: 49 tokens at 224 px and half the depth, where `edgecxr train` has 196 and all of it;
# small batches and little augmentation, since there are few films and few epochs.
TEACHER = {"arch": "tiny", "patch": 32, "depth": 6, "init": "random"}
SCHEDULE = {"batch": 16, "lr": 5e-4, "augment": 0.3, "precision": "auto"}
DEVICE = "auto"


def demo(root: Path, n: int, epochs: int, seed: int) -> str:
    """Prepare, train, distil, export and infer; steps that are already done are not done again.

    Args:
        root: of the workspace.
        n: number of phantom films.
        epochs: of the teacher; a student takes half as many.
        seed: of films and training.

    Returns:
        The summary, as text.
    """
    workspace = Workspace(root)
    started = time.perf_counter()
    name = f"phantom-{n}"
    say(f"{NOTICE}\n1/5  edgecxr prepare phantom {root / name} --n {n} --name {name} --seed {seed}")
    with progress("films") as update:
        source = phantom(root / name, n=n, seed=seed, progress=update)
    source.name = name
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
        settings = common | {"method": method, "init": "teacher", "epochs": max(1, epochs // 2)}
        say(f"3/5  edgecxr distill --res 28{_options(settings)}")
        distil = partial(run_training.distill, workspace, prepared, settings | {"res": 28}, teacher.name, DEVICE)
        students[method] = run_training.once(
            workspace,
            prepared,
            settings | {"teacher_sha256": read_card(teacher).sha256, "size": 28, "patch": 4},
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
    # As it is typed, in a process without torch.
    typed = ["infer", *map(str, films), "--model", str(bundle.path), "--overlay", str(root / "overlays")]
    if subprocess.run([sys.executable, "-m", "edgecxr", *typed]).returncode:
        raise EdgeCxrError("edgecxr infer failed on films of the demo: see above")

    return _summary(rows, prepared, workspace, films[0], time.perf_counter() - started)


def _options(settings: dict[str, Any]) -> str:
    """Return settings as they would be typed."""
    return "".join(f" --{name} {value}" for name, value in settings.items())


def _exported(workspace: Workspace, prepared: Prepared, run: Path) -> Bundle:
    """Return the bundle of a run's weights, made unless it is there and whole."""
    place = workspace.export_dir(run.name)
    with suppress(ModelError):
        bundle = Bundle.open(place)
        if bundle.card.sha256 == read_card(run).sha256:
            say(f"{place} is done")
            return bundle
    return export_bundle(run, prepared, place, Recipe(precisions=("fp32",)))


def _latency_ms(bundle: Bundle, prepared: Prepared, runs: int = 50) -> float:
    """Median milliseconds of one image through onnxruntime, model only, after ten runs of warm-up."""
    backend = open_backend("onnxruntime", bundle.artefact("fp32"))
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
        f"{rows[0][2]['patients']} patients; AUROC with 95 % interval",
        f"{'':22}  {'findings (macro)':21}  {'normal/abnormal':21}  {'px':>4} {'ONNX':>8}  {'CPU, batch 1':>12}",
    ]
    for title, _, record, bundle, ms in rows:
        megabytes = bundle.artefact("fp32").stat().st_size / 1e6
        lines.append(
            f"{title:22}  {_interval(record['findings']['macro']):21}  {_interval(record['abnormal']):21}  "
            f"{bundle.card.size:4d} {megabytes:5.1f} MB  {ms:9.1f} ms"
        )
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
    return "\n".join(lines)


def _where(workspace: Workspace) -> str:
    """Return what must stand before a command so that it finds this workspace."""
    found = workspace.root == Workspace.default().root
    return "" if found else f"EDGECXR_RUNS={shlex.quote(str(workspace.root))} "


def _interval(row: dict[str, Any] | None) -> str:
    return f"{row['auroc']:.3f} ({row['low']:.3f}-{row['high']:.3f})" if row else "one class only"


def _difference(gain: dict[str, float] | None) -> str:
    """Say what distillation added, paired on the same films."""
    if gain is None:
        return "MLCAK against undistilled: no finding has both classes in the test split"
    verdict = "" if gain["low"] > 0 or gain["high"] < 0 else ": no difference can be told from so few films"
    interval = f"{gain['difference']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"
    return f"MLCAK against undistilled, findings: {interval}{verdict}"

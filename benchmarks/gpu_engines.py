"""The step of gpu.py about engines: export, build, compare on real images, AUROC and latency of each precision."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 8, 64)
REAL_IMAGES = 500

Run = Callable[[np.ndarray], Any]


def measure(run: Path, prepared: Any, dest: Path, device: str, rounds: int) -> dict[str, Any]:
    """Export a run and measure what becomes of it here.

    Args:
        run: a finished run.
        prepared: its data set.
        dest: folder of the bundle.
        device: of torch: "auto", "cpu", "cuda".
        rounds: timed runs of each batch size.

    Returns:
        "export": verdicts and sizes; "engines": by precision, each with its build, its differences from ONNX Runtime,
        and its AUROCs, or with the error that stopped it; "latency_ms": engine -> batch -> smallest and median.
    """
    from edgecxr.export.bundle import export_bundle
    from edgecxr.export.recipe import Recipe
    from edgecxr.export.target import load_target
    from edgecxr.runtime.onnxruntime import OnnxRuntimeBackend

    bundle = export_bundle(
        run, prepared, dest, Recipe(calibration_methods=("minmax",)), load_target("h200"), note=print
    )
    result: dict[str, Any] = {"export": bundle.card.artefacts, "engines": {}, "latency_ms": {}}
    rows = prepared.rows("test")
    images = prepared.inputs(rows[:REAL_IMAGES], bundle.card.size)
    latency = result["latency_ms"]
    for name, torch_run in torch_runs(run, device).items():
        latency[name] = guarded(lambda call=torch_run: timed(call, images, rounds))  # type: ignore[misc]
    for facts in bundle.card.artefacts.values():
        precision = facts["precision"]
        reference = OnnxRuntimeBackend(bundle.artefact(precision))
        latency[f"onnxruntime-cpu-{precision}"] = timed(reference.run, images, max(3, rounds // 10))
        result["engines"][precision] = guarded(
            lambda p=precision, r=reference: engine(bundle, p, r, images, prepared, rows, latency, rounds)  # type: ignore[misc]
        )
    return result


def engine(
    bundle: Any,
    precision: str,
    reference: Any,
    images: np.ndarray,
    prepared: Any,
    rows: np.ndarray,
    latency: dict[str, Any],
    rounds: int,
) -> dict[str, Any]:
    """Build one engine, hold it against ONNX Runtime on real images, score and time it."""
    import json

    from edgecxr import metrics
    from edgecxr.bench.accuracy import predict
    from edgecxr.export.engine import build_engine
    from edgecxr.export.verify import compare
    from edgecxr.runtime.tensorrt import TensorRTBackend

    path = build_engine(bundle, precision, None, batches=BATCHES, say=print)
    found: dict[str, Any] = {"record": json.loads(path.with_suffix(".json").read_text())}
    backend = TensorRTBackend(bundle.artefact(precision))
    found["against_onnxruntime"] = compare(reference, backend, images)
    outputs = predict(backend, prepared, rows, bundle.card.size)
    once = np.ones((1, len(rows)), np.float32)
    found["test_auroc"] = {
        "findings": metrics.aurocs(prepared.targets[rows], outputs.findings, once).macro.value,
        "abnormal": metrics.auroc(prepared.abnormal[rows], outputs.abnormal),
    }
    latency[f"tensorrt-{precision}"] = timed(backend.run, images, rounds)
    backend.close()
    return found


def torch_runs(run: Path, device: str) -> dict[str, Run]:
    """Return the checkpoint as torch runs it: eager in FP32 and half precision, and compiled; images are copied too."""
    import torch

    from edgecxr.train.checkpoint import load_run
    from edgecxr.train.device import Device

    chosen = Device.choose(device, "auto")
    model = load_run(run)[0].to(chosen.torch).eval()

    def answers(network: Any, half: bool) -> Run:
        @torch.inference_mode()
        def call(images: np.ndarray) -> Any:
            with chosen.autocast() if half else torch.autocast("cpu", enabled=False):
                outputs = network(torch.from_numpy(images).to(chosen.torch))
            return [output.float().cpu() for output in outputs]

        return call

    runs = {"torch-eager-fp32": answers(model, False)}
    if chosen.torch.type == "cuda":
        runs |= {"torch-eager-half": answers(model, True), "torch-compile-half": answers(torch.compile(model), True)}
    return runs


def timed(run: Run, images: np.ndarray, rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds for each batch size, copies included, after runs that do not count."""
    result = {}
    for batch in BATCHES:
        part = np.ascontiguousarray(np.resize(images, (batch, *images.shape[1:])))
        for _ in range(3):
            run(part)
        times = []
        for _ in range(rounds):
            start = time.perf_counter()
            run(part)
            times.append(1000 * (time.perf_counter() - start))
        result[str(batch)] = {"min": round(min(times), 4), "median": round(statistics.median(times), 4)}
    return result


def guarded(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or the error: one engine that fails shall not cost the others' figures."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}

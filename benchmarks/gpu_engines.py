"""The steps of gpu.py about engines: export and build them, compare them on real images, and benchmark all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCHES = (1, 8, 1024)
REAL_IMAGES = 500


def built(run: Path, prepared: Any, dest: Path) -> dict[str, Any]:
    """Export a run, build its engines, and hold each against ONNX Runtime on real images.

    Args:
        run: a finished run.
        prepared: its data set.
        dest: folder of the bundle.

    Returns:
        "export": verdicts and sizes; "engines": by precision, each with its build and its differences from ONNX
        Runtime, or with the error that stopped it.
    """
    from edgecxr.engines.target import load_target
    from edgecxr.export.export_bundle import export_bundle
    from edgecxr.export.recipe import Recipe

    bundle = export_bundle(
        run, prepared, dest, Recipe(calibration_methods=("minmax",)), load_target("h200"), note=print
    )
    images = prepared.inputs(prepared.rows("test")[:REAL_IMAGES], bundle.card.size)
    precisions = [facts["precision"] for facts in bundle.card.artefacts.values()]
    engines = {p: guarded(lambda p=p: engine(bundle, p, images)) for p in precisions}  # type: ignore[misc]
    return {"export": bundle.card.artefacts, "engines": engines}


def engine(bundle: Any, precision: str, images: Any) -> dict[str, Any]:
    """Build one engine and hold it against ONNX Runtime on real images."""
    import json

    from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
    from edgecxr.engines.tensorrt.build import build_engine
    from edgecxr.engines.tensorrt.engine import TensorRTBackend
    from edgecxr.export.parity import compare

    path = build_engine(bundle, precision, None, batches=BATCHES, say=print)
    result: dict[str, Any] = {"record": json.loads(path.with_suffix(".json").read_text())}
    backend = TensorRTBackend(bundle.artefact(precision))
    result["against_onnxruntime"] = compare(OnnxRuntimeBackend(bundle.artefact(precision)), backend, images)
    backend.close()
    return result


def benchmarked(workspace: Any, prepared: Any, runs: list[Path], out: Path, quick: bool) -> dict[str, Any]:
    """Measure runs and their bundles as `edgecxr benchmark` does, and write its record.

    Args:
        workspace: of the runs, with their bundles.
        prepared: their data set.
        runs: teacher and students.
        out: file of the record.
        quick: one pass of small batches, as a test wants it.
    """
    import torch

    from edgecxr.benchmark.measure import Settings
    from edgecxr.benchmark.options import BenchmarkOptions, run
    from edgecxr.machine.cores import cores

    gpu = torch.cuda.is_available()
    backends = (
        ["torch-cuda", "onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt"] if gpu else ["torch", "onnxruntime"]
    )
    settings = Settings(1 if quick else cores(), 4 if quick else BATCHES[-1], 1 if quick else 3, replicates=1000)
    options = BenchmarkOptions([folder.name for folder in runs], backends, data=prepared.name)
    out.unlink(missing_ok=True)  # of an earlier try of this step
    return run(
        workspace, options, settings, out, lambda *_: None, command=f"benchmarks/gpu.py, step of {prepared.name}"
    )


def guarded(work: Callable[[], Any]) -> Any:
    """Return what `work` returns, or the error: one engine that fails shall not cost the others' figures."""
    try:
        return work()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}

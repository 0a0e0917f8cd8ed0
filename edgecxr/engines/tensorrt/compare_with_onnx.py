"""An engine against ONNX Runtime on the same images."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edgecxr.bundle.bundle import Bundle
from edgecxr.data.pack import packed_images
from edgecxr.engines.backend import Backend
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.engines.tensorrt import library
from edgecxr.engines.tensorrt.engine import TensorRTBackend
from edgecxr.errors import CheckFailed
from edgecxr.films.resize import box_mean, source_size
from edgecxr.vocabulary import FloatArray

NOISE_IMAGES = 64
_AT_A_TIME = 64


def differences(bundle: Bundle, precision: str, packed: Path | None = None) -> list[str]:
    """Return the lines of `edgecxr build --verify`; arguments and errors are those of `verify_engine`.

    Where there is no GPU, nothing is run, and the line says so.
    """
    if library.find_gpu() is None:
        return ["the engine is not verified: it cannot be run here, where there is no GPU"]
    return [
        f"against ONNX Runtime on {name}: logits within {found['max_logit_difference']:.1e}, attention within "
        f"{found['max_attention_difference']:.1e} on {found['images']:.0f} images"
        for name, found in verify_engine(bundle, precision, packed).items()
    ]


def verify_engine(bundle: Bundle, precision: str, packed: Path | None = None) -> dict[str, dict[str, float]]:
    """Run an engine and ONNX Runtime on the same images, and add the differences to the engine's record.

    Both run the file that the engine was built from; ONNX Runtime runs the bundle's FP32 file too, which says what the
    lower precision costs on the whole.

    Args:
        bundle: the bundle.
        precision: of the engine.
        packed: a .npz with real images as the array "images", (N, 224, 224) uint8; at 448 px for a
            model of 448 px.

    Returns:
        Such as "noise, model.fp16.onnx" -> {"images", "max_logit_difference", "max_attention_difference"}.

    Raises:
        MissingPackage: TensorRT, a library for its buffers, or ONNX Runtime is not installed.
        ModelError: there is no usable engine, or no GPU.
        InputError: `packed` is not such a file; reason "dataset".
        CheckFailed: the engine gives values that are not numbers.
    """
    size = bundle.card.size
    sets = {"noise": np.random.default_rng(0).random((NOISE_IMAGES, 1, size, size), dtype=np.float32)}
    if packed is not None:
        sets[packed.name] = box_mean(packed_images(packed, source_size(size)), size)[:, None]
    onnx = bundle.artefact(precision)
    engine = TensorRTBackend(onnx)
    found = {}
    try:
        ours = {name: _run(engine, images) for name, images in sets.items()}
        for file in dict.fromkeys((onnx, bundle.artefact("fp32") if _has_fp32(bundle) else onnx)):
            reference = OnnxRuntimeBackend(file)
            for name, images in sets.items():
                found[f"{name}, {file.name}"] = _differences(ours[name], _run(reference, images), len(images), onnx)
            reference.close()
        path = engine.engine_file.with_suffix(".json")
        dataclasses.replace(engine.record, verified=found).write(path)
    finally:
        engine.close()
    return found


def _has_fp32(bundle: Bundle) -> bool:
    return any(entry.get("precision") == "fp32" for entry in bundle.card.artefacts.values())


def _run(backend: Backend, images: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return logits (N, L + 1) and attention maps (N, g, g)."""
    parts = [backend.run(images[i : i + _AT_A_TIME]) for i in range(0, len(images), _AT_A_TIME)]
    logits = np.concatenate([part.logits for part in parts])
    return logits, np.concatenate([part.attention for part in parts])


def _differences(
    ours: tuple[FloatArray, FloatArray], theirs: tuple[FloatArray, FloatArray], count: int, onnx: Path
) -> dict[str, float]:
    if not all(np.isfinite(values).all() for values in ours):
        raise CheckFailed(
            f"the engine of {onnx} gives values that are not numbers: build it with --precision fp32, or export again"
        )
    logits, attention = (float(np.abs(mine - other).max()) for mine, other in zip(ours, theirs, strict=True))
    return {"images": count, "max_logit_difference": logits, "max_attention_difference": attention}

"""Comparison of an engine with ONNX Runtime."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any

from edgecxr.bundle.bundle import Bundle
from edgecxr.data.pack import packed_images
from edgecxr.engines.reference import SYNTHETIC, Reference
from edgecxr.engines.tensorrt import library
from edgecxr.engines.tensorrt.engine import TensorRTBackend
from edgecxr.errors import CheckFailed, ModelError
from edgecxr.films.resize import box_mean, source_size


def check_batches(batches: tuple[int, int, int]) -> list[int]:
    """Return the sizes of batches that an engine is compared at.

    Args:
        batches: smallest, usual and largest batch of the engine; it fills up smaller ones.
    """
    _, usual, largest = batches
    return sorted({size for size in (1, 2, 3, usual, largest) if size <= largest})


def check_gpu() -> None:
    """Refuse to verify where no engine can run, before the build.

    Raises:
        ModelError: there is no GPU.
    """
    if library.find_gpu() is None:
        raise ModelError(
            "--verify runs the engine, and there is no NVIDIA GPU that CUDA can use here (`edgecxr doctor` says more): "
            "verify on the device, or leave --verify out to see whether the file parses and builds"
        )


def differences(bundle: Bundle, precision: str, packed: Path | None = None) -> list[str]:
    """Return the lines of `edgecxr build --verify`.

    Arguments and errors are those of `verify_engine`.
    """
    return [
        f"against ONNX Runtime on {name}: logits within {values['max_logit_difference']:.1e}, attention within "
        f"{values['max_attention_difference']:.1e} on {values['images']:.0f} images"
        for name, values in verify_engine(bundle, precision, packed).items()
    ]


def verify_engine(bundle: Bundle, precision: str, packed: Path | None = None) -> dict[str, dict[str, Any]]:
    """Compare a built engine with ONNX Runtime again, also on real images.

    The differences are added to the engine's record. An engine that fails loses its record, so that it is not used.

    Args:
        bundle: the bundle.
        precision: of the engine.
        packed: a .npz with real images as the array "images", (N, 224, 224) uint8; 448 px for a model of 448 px.

    Returns:
        Images and file -> {"images", "max_logit_difference", "max_attention_difference", ...}; a key is such as
        "synthetic films, model.fp16.onnx". Of the FP32 file are the total differences: those of the engine from its
        file and of that from the FP32 file.

    Raises:
        MissingPackage: TensorRT, a library for its buffers, or ONNX Runtime is not installed.
        ModelError: there is no usable engine, or no GPU.
        InputError: `packed` is not such a file; reason "dataset".
        CheckFailed: the engine differs by more than is allowed.
    """
    size = bundle.card.size
    references = [Reference.of(bundle, precision)]
    if packed is not None:
        images = box_mean(packed_images(packed, source_size(size)), size)[:, None]
        references.append(Reference.of(bundle, precision, images, packed.name))
    results: dict[str, dict[str, Any]] = {}
    with closing(TensorRTBackend(bundle.artefact(precision))) as engine:
        record = engine.engine_file.with_suffix(".json")
        try:
            for reference in references:
                batches = check_batches(engine.record.batches)
                # Thousands of real images are not run once more for each size.
                sizes = batches if reference.name == SYNTHETIC else batches[-1:]
                results[f"{reference.name}, {reference.onnx.name}"] = reference.check(engine, sizes)
                if precision != "fp32" and (cost := reference.cost()) is not None:
                    results[f"{reference.name}, {bundle.artefact('fp32').name}"] = cost
        except CheckFailed:
            record.unlink(missing_ok=True)
            raise
        dataclasses.replace(engine.record, verified=engine.record.verified | results).write(record)
    return results

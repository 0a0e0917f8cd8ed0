"""Checkpoint -> FP32 ONNX, normalisation inside, card in the metadata; compared with the checkpoint."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from edgecxr.errors import CheckFailed, ModelError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.runtime.backend import Backend
from edgecxr.runtime.onnxruntime import INPUT, OUTPUTS
from edgecxr.runtime.types import FloatArray, ModelCard

OPSET = 18
LOGIT_TOLERANCE = 1e-4


def export_fp32(model: TwoHeadViT, card: ModelCard, path: Path) -> None:
    """Write `model` as FP32 ONNX: fixed S x S, dynamic batch.

    Args:
        model: in eval mode, on the CPU.
        card: goes into the file's metadata under "edgecxr_card".
        path: the file to write.

    Raises:
        ModelError: the exporter failed.
    """
    # Fused attention is traced into a dozen more shape nodes and gives the same numbers. timm's own switch would change
    # every model that this process makes afterwards, so this model is told directly.
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    example = torch.rand(2, 1, card.size, card.size)
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript"), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=4096)},),
                verbose=False,
            )
        assert program is not None  # it is None only where a file is written at once
        graph = program.model_proto
    except Exception as error:  # the exporter raises a dozen kinds, none of them its own
        raise ModelError(f"torch could not export {card.name} to ONNX ({type(error).__name__}: {error})") from error
    card = replace(card, precision="fp32")
    onnx.helper.set_model_props(graph, {"edgecxr_card": card.to_json(), "notice": card.notice})
    onnx.checker.check_model(graph)
    onnx.save_model(graph, path)


def compare(reference: Backend, candidate: Backend, images: FloatArray) -> dict[str, Any]:
    """Run two backends on the same images.

    Args:
        reference: the checkpoint.
        candidate: the artefact.
        images: (N, 1, S, S) float32 in [0, 1], real ones.

    Returns:
        Largest absolute difference of the logits of both tasks and of the attention, and the number of images.
    """
    ours, theirs = candidate.run(images), reference.run(images)
    logits = [np.column_stack([outputs.findings, outputs.abnormal]) for outputs in (ours, theirs)]
    return {
        "images": len(images),
        "max_logit_difference": float(np.abs(logits[0] - logits[1]).max()),
        "max_attention_difference": float(np.abs(ours.attention - theirs.attention).max()),
    }


def check_parity(differences: dict[str, Any], name: str, tolerance: float = LOGIT_TOLERANCE) -> None:
    """Refuse an artefact that differs from its checkpoint.

    Raises:
        CheckFailed: a difference is above `tolerance` or not a number.
    """
    # numpy's maximum is NaN where either is; Python's depends on their order.
    worst = np.maximum(differences["max_logit_difference"], differences["max_attention_difference"])
    if not worst <= tolerance:
        raise CheckFailed(
            f"the ONNX file of {name} differs from its checkpoint by {worst:.2g} (at most {tolerance:g} allowed) on "
            f"{differences['images']} images; it was not written"
        )


@contextlib.contextmanager
def _quiet(*loggers: str) -> Any:
    """Raise the level of chatty loggers for a while."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

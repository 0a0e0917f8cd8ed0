"""End of a training run: temperatures, operating points and the card.

Temperatures and operating points come from the validation split.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import edgecxr
from edgecxr.bundle.bundle import sha256_of
from edgecxr.bundle.card import ModelCard
from edgecxr.data.prepared import Prepared
from edgecxr.evaluate.operating_points import choose_operating_points, count_cases, fit_temperatures
from edgecxr.evaluate.scores import predict
from edgecxr.models.vit import build
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import CARD
from edgecxr.train import checkpoint
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device


def finish(run: Path, config: TrainConfig, prepared: Prepared, device: Device, ending: dict[str, Any]) -> None:
    """Write card.json, which marks the run as finished.

    If there are several processes, only the first one writes it.

    Args:
        run: a run whose epochs are done.
        config: its settings.
        prepared: its data set.
        device: where the validation split is scored.
        ending: why the run ended, as `fit` returns it.
    """
    if not device.fabric.is_global_zero:
        return
    model = build(config, len(prepared.labels))
    checkpoint.load_best(run, model)
    val = prepared.rows("val")
    outputs = predict(TorchBackend(model.eval(), str(device.torch)), prepared, val, config.size)
    temperature = fit_temperatures(prepared, val, outputs)
    card = ModelCard(
        name=run.name,
        labels=prepared.labels,
        size=config.size,
        tokens=model.grid**2,
        patch=config.patch,
        input=config.input,
        stem=config.stem,
        arch=config.arch,
        depth=config.depth,
        method=config.method,
        teacher=config.teacher,
        operating_points=choose_operating_points(prepared, val, outputs, temperature),
        temperature=temperature,
        operating_counts=count_cases(prepared, val),
        data=prepared.summary(),
        training=config.to_dict() | {"pretrained": config.pretrained and Path(config.pretrained).name},
        ended=ending,
        sha256=sha256_of(run / checkpoint.BEST),
        version=edgecxr.__version__,
    )
    atomic_write(run / CARD, card.to_json())

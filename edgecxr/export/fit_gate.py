"""The quality gate of a bundle: fitted on training films, its threshold from validation films, its rates from others.

Nothing but moments of the training films' features goes into the bundle, no film and nothing that one could be made
from. What is no chest film is used to count what the gate finds, never to fit it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr import metrics
from edgecxr.bundle.bundle import sha256_of
from edgecxr.bundle.card import ModelCard
from edgecxr.bundle.gate import FILE, Gate
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Backend
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.films.radiograph import FilmRead
from edgecxr.films.resize import BASE_SIZE, box_mean, source_size
from edgecxr.terminal import progress
from edgecxr.vocabulary import FloatArray

FALSE_REJECTION = 0.02
"""Share of films like those of the validation that the threshold lets the gate refuse, on average over choices of
these; of n films, fewer than 49, no threshold promises less than 1 / (n + 1)."""

USUAL = 0.1
"""Share of them that lie farther away than what counts as usual."""

COMPONENTS = 32
FEWEST = 16
"""Training films, below which there is nothing to fit."""

_MOST_TRAINING, _MOST_TEST, _MOST_CHANGED = 2000, 1000, 200
_BATCH = 64
_SMALLEST_VARIANCE = 1e-12

Images = NDArray[np.uint8]


def add_gate(
    folder: Path, files: Mapping[str, Path], prepared: Prepared, card: ModelCard, not_chest: Sequence[FilmRead]
) -> dict[str, Any]:
    """Write the gate of a bundle that is being made.

    Args:
        folder: of the bundle.
        files: precision -> model file; with "fp32", which the gate is fitted with.
        prepared: the data set.
        card: of the model.
        not_chest: files of the user's, whose share that is found is counted too.

    Returns:
        What the card says of it; empty where there are too few training or validation films.
    """
    chosen = _some(prepared.rows("train"), _MOST_TRAINING)
    validation = _some(prepared.rows("val"), _MOST_TEST)
    if len(chosen) < FEWEST or not len(validation):
        return {}
    test = _some(prepared.rows("test"), _MOST_TEST)
    images = prepared.images_for(card.size)
    changed = no_films(images[_some(test if len(test) else validation, _MOST_CHANGED)])
    if not_chest and source_size(card.size) == BASE_SIZE:  # at which they were read
        changed["given"] = np.stack([film.image for film in not_chest])
    count = len(chosen) + len(files) * (len(validation) + len(test) + sum(map(len, changed.values())))
    thresholds: dict[str, float] = {}
    usual: dict[str, float] = {}
    rates: dict[str, dict[str, Any]] = {}
    with progress("quality gate") as update:
        done = 0

        def features(backend: Backend, part: Images, rows: NDArray[np.intp]) -> FloatArray:
            nonlocal done
            found = []
            for start in range(0, len(rows), _BATCH):
                outputs = backend.run(box_mean(part[rows[start : start + _BATCH]], card.size)[:, None])
                assert outputs.features is not None
                found.append(outputs.features)
                done += len(found[-1])
                update(done, count)
            return np.concatenate(found)

        gate = fit(features(OnnxRuntimeBackend(files["fp32"]), images, chosen))
        for precision, file in files.items():
            backend = OnnxRuntimeBackend(file)
            usually = gate.distances(features(backend, images, validation))
            threshold = thresholds[precision] = threshold_of(usually)
            usual[precision] = threshold_of(usually, USUAL)
            rates[precision] = {}
            if len(test):  # the films that set the threshold say nothing of it
                rates[precision]["films"] = _rate(gate.distances(features(backend, images, test)) > threshold)
            for kind, part in changed.items():
                far = gate.distances(features(backend, part, np.arange(len(part)))) > threshold
                rates[precision][kind] = _rate(far)
                if kind == "given":
                    objected = np.array([bool(film.objections) for film in not_chest])
                    rates[precision]["given-all-checks"] = _rate(far | objected)
    return {
        **written(gate, folder),
        "false_rejection": max(FALSE_REJECTION, 1 / (len(validation) + 1)),
        "fitted_on": {"data": prepared.name, "split": "train", "images": len(chosen)},
        "threshold_from": {"data": prepared.name, "split": "val", "images": len(validation)},
        "thresholds": thresholds,
        "usual": usual,
        "rates": rates,
    }


def written(gate: Gate, folder: Path) -> dict[str, Any]:
    """Write a gate's file into a folder, and return what the card says of it but for thresholds and rates."""
    np.save(folder / FILE, np.concatenate([gate.mean[None], gate.components]).astype(np.float32))
    return {"sha256": sha256_of(folder / FILE), "variances": gate.variances.tolist(), "rest": gate.rest}


def fit(features: FloatArray, components: int = COMPONENTS) -> Gate:
    """Fit probabilistic PCA, its variances by maximum likelihood (Tipping and Bishop 1999, equations 7 and 8).

    Args:
        features: (N, F) of training films.
        components: at most this many; fewer of few films.

    Returns:
        A gate whose thresholds are infinite.
    """
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    _, scales, directions = np.linalg.svd(values - mean, full_matrices=False)
    variances = scales**2 / len(values)
    count = min(components, len(values) // 4)
    rest = max(float(variances[count:].sum()) / (values.shape[1] - count), _SMALLEST_VARIANCE)
    # As the bundle holds them, so that whoever reads it comes to the same distances.
    mean, kept = mean.astype(np.float32).astype(np.float64), directions[:count].astype(np.float32).astype(np.float64)
    return Gate(mean, kept, np.maximum(variances[:count], rest), rest, math.inf, math.inf)


def threshold_of(distances: NDArray[np.float64], share: float = FALSE_REJECTION) -> float:
    """Return the distance that a film like those given exceeds with a probability of at most `share`.

    That is split conformal prediction's quantile (Papadopoulos et al., ECML 2002), which holds for any distribution,
    on average over choices of the films given; of fewer than 1 / share - 1 it is the largest distance, which promises
    less.

    Args:
        distances: (N,) of films that the gate was not fitted on.
        share: in (0, 1).
    """
    rank = math.ceil((len(distances) + 1) * (1 - share))
    return float(np.sort(distances)[min(rank, len(distances)) - 1])


def no_films(films: Images, seed: int = 0) -> dict[str, Images]:
    """Return what is no upright frontal chest film, by kind: films that were changed, and no films at all.

    Args:
        films: (N, S, S).
        seed: of what is random.
    """
    rng = np.random.default_rng(seed)
    count, side, quarter = len(films), films.shape[1], films.shape[1] // 4
    tiles = films.reshape(count, 4, quarter, 4, quarter).swapaxes(2, 3).reshape(count, 16, quarter, quarter)
    mixed = np.stack([film[rng.permutation(16)] for film in tiles])
    ends = rng.integers(0, 256, (2, count, 1))
    ramps = ends[0] + (ends[1] - ends[0]) * np.linspace(0, 1, side)
    return {
        "exchanged": 255 - films,
        "upside-down": films[:, ::-1],
        "on-its-side": films.swapaxes(1, 2)[:, ::-1],
        "in-pieces": mixed.reshape(count, 4, 4, quarter, quarter).swapaxes(2, 3).reshape(films.shape),
        "noise": rng.integers(0, 256, films.shape, dtype=np.uint8),
        "gradient": np.broadcast_to(ramps[:, None].astype(np.uint8), films.shape),
    }


def _some(rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Return at most so many rows, spread over all: a split is often sorted by patient or class."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))] if len(rows) else rows


def _rate(refused: NDArray[np.bool_]) -> dict[str, Any]:
    found = metrics.proportion(int(refused.sum()), len(refused))
    shares = {key: round(value, 4) for key, value in asdict(found).items()}
    return {"refused": int(refused.sum()), "images": len(refused), **shares}

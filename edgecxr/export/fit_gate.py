"""Fit of a bundle's quality gate and of its thresholds.

The gate is fitted on training films, its thresholds on validation films; its rates are counted on other films. The
bundle holds only moments of the training films' features, from which no film can be reconstructed. Images that are no
chest films are used only to count how many the gate refuses, never to fit it.
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
"""Share of films like the validation films that the gate may refuse, on average over choices of validation films; with
n < 49 validation films, no threshold guarantees less than 1 / (n + 1)."""

USUAL = 0.1
"""Share of such films that are farther away than the distance that counts as usual."""

COMPONENTS = 32
FEWEST = 16
"""Least number of training films to fit a gate on."""

_MOST_TRAINING, _MOST_TEST, _MOST_CHANGED = 2000, 1000, 200
_BATCH = 64
_SMALLEST_VARIANCE = 1e-12

Images = NDArray[np.uint8]


def add_gate(
    folder: Path, files: Mapping[str, Path], prepared: Prepared, card: ModelCard, not_chest: Sequence[FilmRead]
) -> dict[str, Any]:
    """Fit the gate of a bundle and write its file.

    Args:
        folder: folder of the bundle.
        files: precision -> model file; must have "fp32", which the gate is fitted with.
        prepared: the data set.
        card: card of the model.
        not_chest: images given by the user, to count how many of them the gate refuses too.

    Returns:
        The gate's entry in the card; empty if there are too few training or validation films.
    """
    chosen = _some(prepared.rows("train"), _MOST_TRAINING)
    validation = _some(prepared.rows("val"), _MOST_TEST)
    if len(chosen) < FEWEST or not len(validation):
        return {}
    test = _some(prepared.rows("test"), _MOST_TEST)
    images = prepared.images_for(card.size)
    changed = no_films(images[_some(test if len(test) else validation, _MOST_CHANGED)])
    if not_chest and source_size(card.size) == BASE_SIZE:  # the size they were read at
        changed["given"] = np.stack([film.image for film in not_chest])
    count = len(chosen) + len(files) * (len(validation) + len(test) + sum(map(len, changed.values())))
    thresholds: dict[str, float] = {}
    usual: dict[str, float] = {}
    rates: dict[str, dict[str, Any]] = {}
    with progress("quality gate") as update:
        done = 0

        def features(backend: Backend, part: Images, rows: NDArray[np.intp]) -> FloatArray:
            nonlocal done
            batches = []
            for start in range(0, len(rows), _BATCH):
                outputs = backend.run(box_mean(part[rows[start : start + _BATCH]], card.size)[:, None])
                assert outputs.features is not None
                batches.append(outputs.features)
                done += len(batches[-1])
                update(done, count)
            return np.concatenate(batches)

        gate = fit(features(OnnxRuntimeBackend(files["fp32"]), images, chosen))
        for precision, file in files.items():
            backend = OnnxRuntimeBackend(file)
            usually = gate.distances(features(backend, images, validation))
            threshold = thresholds[precision] = threshold_of(usually)
            usual[precision] = threshold_of(usually, USUAL)
            rates[precision] = {}
            if len(test):  # films that set the threshold cannot test it
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
    """Write a gate's file into a folder.

    Returns:
        The gate's entry in the card, without thresholds and rates.
    """
    np.save(folder / FILE, np.concatenate([gate.mean[None], gate.components]).astype(np.float32))
    return {"sha256": sha256_of(folder / FILE), "variances": gate.variances.tolist(), "rest": gate.rest}


def fit(features: FloatArray, components: int = COMPONENTS) -> Gate:
    """Fit a gate by probabilistic PCA.

    Its variances are the maximum likelihood estimates (Tipping and Bishop 1999, equations 7 and 8).

    Args:
        features: (N, F) features of training films.
        components: largest number of components; it is at most N / 4.

    Returns:
        A gate whose thresholds are infinite.
    """
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    _, scales, directions = np.linalg.svd(values - mean, full_matrices=False)
    variances = scales**2 / len(values)
    count = min(components, len(values) // 4)
    rest = max(float(variances[count:].sum()) / (values.shape[1] - count), _SMALLEST_VARIANCE)
    # Round as the bundle's file does, so that its readers compute the same distances.
    mean, kept = mean.astype(np.float32).astype(np.float64), directions[:count].astype(np.float32).astype(np.float64)
    return Gate(mean, kept, np.maximum(variances[:count], rest), rest, math.inf, math.inf)


def threshold_of(distances: NDArray[np.float64], share: float = FALSE_REJECTION) -> float:
    """Return the distance that at most `share` of similar films exceed.

    This is the quantile of split conformal prediction (Papadopoulos et al., ECML 2002). It holds for any distribution,
    on average over choices of the given films. With N < 1 / share - 1 it is the largest distance, which guarantees only
    a larger share.

    Args:
        distances: (N,) distances of films that the gate was not fitted on.
        share: largest probability that a film exceeds the distance, in (0, 1).
    """
    rank = math.ceil((len(distances) + 1) * (1 - share))
    return float(np.sort(distances)[min(rank, len(distances)) - 1])


def no_films(films: Images, seed: int = 0) -> dict[str, Images]:
    """Make images that are no upright frontal chest films, by kind.

    Some kinds are altered films, the others ("noise", "gradient") are synthetic.

    Args:
        films: (N, S, S) films.
        seed: random seed.
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
    """Return at most `most` rows, spread over a perhaps sorted split."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), most)).astype(int))] if len(rows) else rows


def _rate(refused: NDArray[np.bool_]) -> dict[str, Any]:
    interval = metrics.proportion(int(refused.sum()), len(refused))
    shares = {key: round(value, 4) for key, value in asdict(interval).items()}
    return {"refused": int(refused.sum()), "images": len(refused), **shares}

"""Findings of phantom films: which, how large and where.

Lengths are centimetres, in the coordinates of `edgecxr.phantom.anatomy`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from edgecxr.phantom.anatomy import LEFT, RIGHT, Geometry, patient_of, stream
from edgecxr.phantom.lesions import Effusion, Fibrosis, Lesion, Nodule, Opacity, Pneumothorax

LABELS = (
    "Cardiomegaly",
    "Lung Opacity",
    "Nodule/Mass",
    "Pleural effusion",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
"""The findings, with VinDr-CXR's names and order."""

NO_FINDING = "No finding"

_CHRONIC = {"Cardiomegaly": 0.32, "Nodule/Mass": 0.22, "Pulmonary fibrosis": 0.18}
_ACUTE = {"Lung Opacity": 0.30, "Pleural effusion": 0.22, "Pneumothorax": 0.11}
_RAISED = {
    "Cardiomegaly": 0.12,
    "Nodule/Mass": 0.08,
    "Pneumothorax": 0.15,
    "Lung Opacity": 0.08,
}  # for effusion


@dataclass(frozen=True)
class Disease:
    """Findings of one film.

    Attributes:
        present: labels of the findings, in the order of `LABELS`.
        heart_ratio: cardiothoracic ratio, above 0.5 only in cardiomegaly.
        lesions: labels and lesions, in the order in which they act on the rays.
        clarity: for each present label, from 0 (easily missed) to 1 (obvious).
    """

    present: tuple[str, ...]
    heart_ratio: float
    lesions: tuple[tuple[str, Lesion], ...]
    clarity: dict[str, float]


def sample_presence(seed: int, index: int) -> tuple[str, ...]:
    """Draw the labels of a film.

    About half of the patients have none, and all films of a patient share the chronic findings.
    """
    patient = stream(seed, patient_of(index), 3)
    if patient.random() < 0.5:
        return ()
    labels = {label for label, rate in _CHRONIC.items() if patient.random() < rate}
    film = stream(seed, index, 4)
    draws = film.random(len(_ACUTE) + 1)
    labels |= {label for (label, rate), draw in zip(_ACUTE.items(), draws, strict=False) if draw < rate}
    raised = _ACUTE["Pleural effusion"] + sum(rate for label, rate in _RAISED.items() if label in labels)
    if draws[1] < raised:
        labels.add("Pleural effusion")
    if not labels:
        labels.add(str(film.choice(list(_ACUTE), p=[0.5, 0.32, 0.18])))
    return tuple(label for label in LABELS if label in labels)


def sample_disease(seed: int, index: int, present: Collection[str], geometry: Geometry) -> Disease:
    """Draw the form of the findings `present`.

    A finding's form does not depend on the other findings.
    """
    ratio, clarity = geometry.heart_ratio, dict[str, float]()
    lesions: list[tuple[str, Lesion]] = []
    for number, label in enumerate(LABELS):
        if label not in present:
            continue
        rng = stream(seed, index, 10 + number)
        if label == "Cardiomegaly":
            ratio = float(np.clip(0.508 + rng.gamma(1.6, 0.034), 0.51, 0.7))
            clarity[label] = min((ratio - 0.5) / 0.09, 1)
        else:
            new_lesions, clarity[label] = _MAKERS[label](rng, geometry)
            lesions += [(label, lesion) for lesion in new_lesions]
    return Disease(tuple(label for label in LABELS if label in present), ratio, tuple(_in_order(lesions)), clarity)


def _in_order(lesions: list[tuple[str, Lesion]]) -> list[tuple[str, Lesion]]:
    # First lesions in the lung, then the rim without lung, then the fluid that covers everything.
    rank = {"Pneumothorax": 1, "Pleural effusion": 2}
    return sorted(lesions, key=lambda pair: rank.get(pair[0], 0))


def _effusions(rng: np.random.Generator, geometry: Geometry) -> tuple[list[Effusion], float]:
    sides = [(LEFT,), (RIGHT,), (LEFT, RIGHT)][int(rng.choice(3, p=[0.36, 0.38, 0.26]))]
    effusions = []
    for side in sides:
        height = float(np.clip(2.7 + rng.gamma(1.3, 2.6), 2.7, 0.8 * geometry.height))
        veil = rng.uniform(0.25, 0.6) if rng.random() < 0.12 else 0.0
        effusions.append(Effusion(side, height, min(rng.uniform(1.5, 4.5), 0.6 * height), rng.uniform(0.7, 2.0), veil))
    return effusions, min(max(effusion.height for effusion in effusions) / 6, 1)


def _pneumothoraces(rng: np.random.Generator, geometry: Geometry) -> tuple[list[Pneumothorax], float]:
    apical = float(np.clip(1.0 + rng.gamma(1.6, 1.1), 1.0, 7.5))
    pneumothorax = Pneumothorax(
        int(rng.choice([LEFT, RIGHT])), apical, rng.uniform(0.25, 0.5) * apical + 0.3, rng.uniform(0.55, 1.25)
    )
    return [pneumothorax], min(apical / 4, 1)


def _opacities(rng: np.random.Generator, geometry: Geometry) -> tuple[list[Opacity], float]:
    opacities = []
    for _ in range(int(rng.choice([1, 2, 3, 4], p=[0.5, 0.25, 0.15, 0.1]))):
        side, v, y = _place(rng, geometry)
        radii = 1.5 + rng.gamma(2.0, 0.75, 2)
        density = 0.6 + rng.gamma(1.6, 0.95)
        opacities.append(Opacity(side, v, y, float(radii[0]), float(radii[1]), density, int(rng.integers(1 << 31))))
    return opacities, min(max(opacity.density * min(opacity.radius_v, 3.0) for opacity in opacities) / 5, 1)


def _nodules(rng: np.random.Generator, geometry: Geometry) -> tuple[list[Nodule], float]:
    nodules = []
    for _ in range(int(rng.choice([1, 2, 3, 5], p=[0.68, 0.16, 0.1, 0.06]))):
        side, v, y = _place(rng, geometry)
        radius = float(np.clip(np.exp(rng.normal(-0.32, 0.5)), 0.3, 3.4))
        lobes = (rng.uniform(0, 0.14), rng.uniform(0, 6.3))
        nodules.append(Nodule(side, v, y, radius, rng.uniform(0.75, 1.25) / (1 + 0.35 * max(radius - 0.7, 0)), lobes))
    return nodules, min(max(nodule.radius for nodule in nodules) / 1.1, 1)


def _fibroses(rng: np.random.Generator, geometry: Geometry) -> tuple[list[Fibrosis], float]:
    strength, top, mesh = rng.uniform(0.35, 1.1), rng.uniform(0.2, 0.6), rng.uniform(0.24, 0.42)
    fibroses = [
        Fibrosis(side, strength * rng.uniform(0.8, 1.15), top, mesh, int(rng.integers(1 << 31)))
        for side in (LEFT, RIGHT)
    ]
    return fibroses, min(strength, 1)


_MAKERS: dict[str, Callable[[np.random.Generator, Geometry], tuple[Sequence[Lesion], float]]] = {
    "Lung Opacity": _opacities,
    "Nodule/Mass": _nodules,
    "Pleural effusion": _effusions,
    "Pneumothorax": _pneumothoraces,
    "Pulmonary fibrosis": _fibroses,
}


def _place(rng: np.random.Generator, geometry: Geometry) -> tuple[int, float, float]:
    """Draw a point in a lung, possibly behind the heart."""
    side = int(rng.choice([LEFT, RIGHT]))
    y = geometry.height * rng.uniform(0.14, 0.97)
    medial, lateral = (float(f(side, np.array([y]))[0]) for f in (geometry.medial, geometry.lateral))
    return side, medial + (lateral - medial) * rng.uniform(0.22, 0.86), y

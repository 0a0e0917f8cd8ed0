"""The quality gate: whether a film is suitable for a model.

Problems that a file or its pixels reveal are found when the file is read (`edgecxr.films`).
The model judges whether it is a frontal chest film: from the distance between the output of its first block for the
film and that for its training films. The distance is that of probabilistic PCA (Tipping and Bishop, "Probabilistic
principal component analysis", J. R. Stat. Soc. B 61, 1999): the Mahalanobis distance for a covariance of a few
components and equal variance in all other directions.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import GATE_REASONS, ModelError, brief
from edgecxr.films.radiograph import Objection
from edgecxr.storage.arrays import Header, read_header, read_values
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    from edgecxr.bundle.bundle import Bundle

FILE = "gate.npy"
"""File in a bundle: (1 + K, F) float32, the mean features of training films, then K orthonormal components."""

_MOST_FEATURES = 4 * 4096
_LARGEST = 1e6
_LARGEST_FILE = 128 << 20


@dataclass(frozen=True)
class GateResult:
    """Result of the quality gate for a film.

    Attributes:
        verdict: "pass"; "warn" if the model learnt from synthetic films only, so it cannot judge; "forced" if the user
            overruled the gate; or "refuse".
        objections: reasons against the film, in the order in which they are reported.
        distance: from the training films, about 1 for these; None if the film was refused before the model ran, or the
            model has no gate.
        threshold: the distance above which a film is refused; None if the model has no gate.
    """

    verdict: str
    objections: tuple[Objection, ...] = ()
    distance: float | None = None
    threshold: float | None = None


PASSED = GateResult("pass")


def judge(
    objections: Sequence[Objection],
    gate: Gate | None = None,
    distance: float | None = None,
    any_view: bool = False,
    phantom: bool = False,
    force: bool = False,
) -> GateResult:
    """Decide whether a film is refused.

    Args:
        objections: all that speaks against the film; too large a distance is one of them (`far_away`).
        gate: the model's gate; None if it has none.
        distance: of the film, if the model has seen it.
        any_view: accept views other than frontal ones.
        phantom: the model learnt from synthetic films only, so that it cannot judge.
        force: accept the film anyway.
    """
    ordered = sorted(
        (objection for objection in objections if not (any_view and objection.reason == "view")),
        key=lambda objection: GATE_REASONS.index(objection.reason),
    )
    verdict = "pass" if not ordered else "warn" if phantom else "forced" if force else "refuse"
    return GateResult(verdict, tuple(ordered), distance, None if gate is None else gate.threshold)


def far_away(distance: float, exchanged: float, gate: Gate) -> Objection:
    """Return the objection to a film too far from the training films.

    Args:
        distance: distance of the film.
        exchanged: distance of the same film with black and white exchanged.
        gate: the gate whose thresholds apply.
    """
    how_far = f"distance {distance:.2f}, at most {gate.threshold:.2f}"
    if exchanged <= gate.usual:
        return Objection(
            "polarity",
            f"it looks like a chest film once black and white are exchanged ({how_far}; exchanged {exchanged:.2f}), so "
            "its polarity seems to be wrong",
        )
    return Objection(
        "not-chest",
        f"it does not look like the upright frontal chest films that the model learnt from ({how_far})",
    )


def warnings_of(gate: GateResult) -> tuple[str, ...]:
    """Return the warnings for the prediction of a film with objections."""
    messages = tuple(objection.message for objection in gate.objections)
    if gate.verdict != "forced":
        return messages
    reasons = ", ".join(objection.reason for objection in gate.objections)
    return (f"the quality gate refuses this film ({reasons}) and was overruled by --force", *messages)


@dataclass(frozen=True, eq=False)
class Gate:
    """Distribution of a model's training films, and thresholds of distance.

    Attributes:
        mean: (F,) mean features.
        components: (K, F), orthonormal.
        variances: (K,) along the components, descending.
        rest: the variance in every other direction, at most the smallest of `variances`.
        threshold: the distance above which a film is refused.
        usual: the distance that nine in ten films do not exceed.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    variances: NDArray[np.float64]
    rest: float
    threshold: float
    usual: float

    def too_far(self, distances: NDArray[np.float64]) -> NDArray[np.intp]:
        """Return the indices of the films beyond the threshold."""
        return np.flatnonzero(distances > self.threshold)

    def distances(self, features: FloatArray) -> NDArray[np.float64]:
        """Return the distances of films from the training films.

        Args:
            features: (N, F).

        Returns:
            (N,) root mean square, in standard deviations.
        """
        centred = features - self.mean
        projected = centred @ self.components.T
        residual = np.maximum((centred**2).sum(axis=1) - (projected**2).sum(axis=1), 0)
        return np.sqrt(((projected**2 / self.variances).sum(axis=1) + residual / self.rest) / len(self.mean))


def load_gate(bundle: Bundle, precision: str) -> Gate | None:
    """Return the gate of a bundle's model file; None without one.

    Args:
        bundle: an open bundle, whose card has been checked.
        precision: of the model file.

    Raises:
        ModelError: the gate is not what the card describes.
    """
    facts = bundle.card.gate
    if not facts:
        return None
    path, content = bundle.path / FILE, bundle.content(FILE, _LARGEST_FILE, facts["sha256"])
    try:
        threshold, usual = facts["thresholds"][precision], facts["usual"][precision]
        stream = io.BytesIO(content)
        header = read_header(stream.read, len(content))
        _check(header, 1 + len(facts["variances"]))
        values = np.array(read_values(stream.read, header), np.float64)
        if not np.abs(values).max() < _LARGEST:  # also refuses NaN
            raise ValueError("it has values that are no numbers")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the quality gate in {path} is not what the card says ({brief(error)}): export the model again"
        ) from error
    variances = np.array(facts["variances"], np.float64)
    return Gate(values[0], values[1:], variances, float(facts["rest"]), float(threshold), float(usual))


def _check(header: Header, rows: int) -> None:
    if header.dtype != np.float32 or len(header.shape) != 2:
        raise ValueError("it is no array of float32")
    if header.shape[0] != rows or not 1 <= header.shape[1] <= _MOST_FEATURES:
        raise ValueError(f"it has the shape {header.shape}")

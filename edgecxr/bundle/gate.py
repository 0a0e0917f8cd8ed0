"""The quality gate: whether a film is one that a model should look at at all.

What a file and its pixels say of themselves is found where it is read (`edgecxr.films`).
Whether it is a frontal chest film is judged by the model: how far what its first block makes of the film lies from what
that made of the films it was trained on. The distance is that of probabilistic PCA (Tipping and Bishop, "Probabilistic
principal component analysis", J. R. Stat. Soc. B 61, 1999): the Mahalanobis distance for a covariance of a few
components and equal variance in all other directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import ModelError, brief
from edgecxr.films.radiograph import Objection
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    from edgecxr.bundle.bundle import Bundle

FILE = "gate.npy"
"""In a bundle: (1 + K, F) float32, the mean features of training films, then K orthonormal components."""

_MOST_FEATURES = 4 * 4096
_LARGEST = 1e6


@dataclass(frozen=True)
class GateResult:
    """What the quality gate makes of a film.

    Attributes:
        verdict: "pass"; "warn", where the model cannot know better; "forced", where the user overruled it; "refuse".
        objections: what speaks against the film, the first one first to be named.
        distance: from the films that the model learnt from, about 1 for these; None of a film refused before the
            model runs, and of a model without a gate.
        threshold: the distance above which a film is refused; None of a model without a gate.
    """

    verdict: str
    objections: tuple[Objection, ...] = ()
    distance: float | None = None
    threshold: float | None = None


PASSED = GateResult("pass")


def far_away(distance: float, exchanged: float, gate: Gate) -> Objection:
    """Return what is said of a film that lies too far from those that the model learnt from.

    Args:
        distance: of the film.
        exchanged: of the same film with black and white exchanged.
        gate: whose thresholds count.
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
    """Return the warnings that go with a prediction of a film against which something speaks."""
    messages = tuple(objection.message for objection in gate.objections)
    if gate.verdict != "forced":
        return messages
    reasons = ", ".join(objection.reason for objection in gate.objections)
    return (f"the quality gate refuses this film ({reasons}) and was overruled by --force", *messages)


@dataclass(frozen=True, eq=False)
class Gate:
    """What a bundle knows of the films that its model learnt from.

    Attributes:
        mean: (F,) features.
        components: (K, F), orthonormal.
        variances: (K,) along the components, descending.
        rest: the variance in every other direction, at most the least of `variances`.
        threshold: the distance above which a film is refused.
        usual: the distance that nine in ten films lie within.
    """

    mean: NDArray[np.float64]
    components: NDArray[np.float64]
    variances: NDArray[np.float64]
    rest: float
    threshold: float
    usual: float

    def distances(self, features: FloatArray) -> NDArray[np.float64]:
        """Return how far films lie from those of the training, (N,): root mean square in standard deviations.

        Args:
            features: (N, F).
        """
        away = features - self.mean
        along = away @ self.components.T
        across = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0)
        return np.sqrt(((along**2 / self.variances).sum(axis=1) + across / self.rest) / len(self.mean))


def load_gate(bundle: Bundle, precision: str) -> Gate | None:
    """Return the gate of a bundle's model file; None where the bundle has none.

    Args:
        bundle: an open bundle, whose card has been checked.
        precision: of the model file.

    Raises:
        ModelError: the gate is not what its card says.
    """
    facts = bundle.card.gate
    if not facts:
        return None
    path = bundle.listed(FILE, facts["sha256"])
    try:
        threshold, usual = facts["thresholds"][precision], facts["usual"][precision]
        # Mapped, a file that claims more than it holds is refused and not allocated; of one that does, only what a
        # model can have is read.
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(content, np.memmap) or content.dtype != np.float32 or content.ndim != 2:
            raise ValueError("it is no array of float32")
        if len(content) != 1 + len(facts["variances"]) or not 1 <= content.shape[1] <= _MOST_FEATURES:
            raise ValueError(f"it has the shape {content.shape}")
        values = np.array(content, np.float64)
        if not np.abs(values).max() < _LARGEST:  # NaN neither
            raise ValueError("it has values that are no numbers")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ModelError(
            f"the quality gate in {path} is not what the card says ({brief(error)}): export the model again"
        ) from error
    variances = np.array(facts["variances"], np.float64)
    return Gate(values[0], values[1:], variances, float(facts["rest"]), float(threshold), float(usual))

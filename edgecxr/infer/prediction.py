"""What comes of one image: a prediction, or a rejection with its reason."""

from __future__ import annotations

from dataclasses import dataclass

from edgecxr.bundle.gate import PASSED, GateResult
from edgecxr.vocabulary import FloatArray

_REMEDIES = {
    "view": "give a frontal one, or add --any-view (any_view=True)",
    "tiny": "give the film itself, not a thumbnail",
    "blank": "save or send the film again, with a window that shows it",
    "saturated": "save or send the film again, with a window that shows it",
    "polarity": "correct its PhotometricInterpretation or its pixels",
}


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of one image.

    Attributes:
        findings: probability in [0, 1] for each label.
        abnormal: probability in [0, 1] that the film is not normal.
        decisions: for each label and "abnormal", whether the probability is at least the threshold.
        thresholds: for each label and "abnormal", the probability from which it was decided positive.
        operating_point: the rule on the card that chose the thresholds; None where the card has none.
        attention: (g, g) float32, sums to 1.
        model: name of the model.
        source: the path of the image.
        timings_ms: milliseconds of "read" (for a path), "preprocess" and "model".
        warnings: of the reader, of the quality gate and of the bundle.
        gate: what the quality gate makes of the film.
        precision: of the model file that ran.
    """

    findings: dict[str, float]
    abnormal: float
    decisions: dict[str, bool]
    thresholds: dict[str, float]
    operating_point: str | None
    attention: FloatArray
    model: str
    source: str
    timings_ms: dict[str, float]
    warnings: tuple[str, ...] = ()
    gate: GateResult = PASSED
    precision: str = "fp32"


@dataclass(frozen=True)
class Rejection:
    """An image that got no prediction.

    Attributes:
        source: the path of the image.
        reason: one of `edgecxr.errors.REASONS`, meant for programs.
        message: what is wrong and what to do, one line.
        gate: what the quality gate makes of it; None where it could not be read at all, as are the next two.
        model: name of the model whose quality gate refuses it.
        precision: of its model file.
    """

    source: str
    reason: str
    message: str
    gate: GateResult | None = None
    model: str | None = None
    precision: str | None = None


def rejection(source: str, gate: GateResult) -> Rejection:
    """Return what becomes of a film that the gate refuses."""
    first = gate.objections[0]
    remedy = _REMEDIES.get(first.reason, "give a frontal chest film")
    message = f"{source} is refused, {first.message}: {remedy}; --force (force=True) takes it all the same"
    return Rejection(source, first.reason, message, gate)

"""Results of one image: a prediction, or a rejection with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgecxr.bundle.gate import PASSED, GateResult
from edgecxr.bundle.tested import CardResult
from edgecxr.vocabulary import ABNORMAL, FloatArray

_REMEDIES = {
    "view": "give a frontal one, or add --any-view (any_view=True)",
    "bones": "give the ordinary film of the same exposure",
    "tiny": "give the film itself, not a thumbnail",
    "blank": "save or send the film again, with a window that shows it",
    "saturated": "save or send the film again, with a window that shows it",
    "polarity": "correct its PhotometricInterpretation or its pixels",
}


UNRELIABLE = "unreliable, on test films perhaps no better than chance"
"""What is said of outputs whose AUROC has an interval that reaches 0.5."""

NOT_TESTED = "the model's card has no results on test films: nothing says how good its answers are"


@dataclass(frozen=True)
class Prediction:
    """A model's prediction for one image.

    Attributes:
        findings: probability in [0, 1] for each label.
        abnormal: probability in [0, 1] that the film is not normal.
        decisions: for each label and "abnormal", whether the probability is at least the threshold.
        thresholds: for each label and "abnormal", the lowest probability that is decided positive.
        operating_point: the rule on the card that chose the thresholds; None if the card has none.
        attention: (g, g) float32, sums to 1.
        model: name of the model.
        source: the path of the image.
        timings_ms: milliseconds of "read" (for a path), "preprocess" and "model".
        warnings: of the reader, of the quality gate and of the bundle.
        gate: the quality gate's result for the film.
        precision: of the model file that ran.
        tested: for each label and "abnormal" that was tested, how well the model told it on test films; empty if the
            card does not say.
        codes: those of `edgecxr.infer.rendering.CODES` that apply; a warning says the same in words.
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
    codes: tuple[str, ...] = ()
    tested: Mapping[str, CardResult] = field(default_factory=dict)

    @property
    def outputs(self) -> dict[str, float]:
        """The probability of "abnormal" and of each label."""
        return {ABNORMAL: self.abnormal, **self.findings}

    def unreliable(self, name: str) -> bool | None:
        """Return whether an output may be no better than chance.

        It may, if its AUROC on test films has an interval that reaches 0.5, or if there were no such films. None if the
        model was not tested at all.
        """
        if not self.tested:
            return None
        return name not in self.tested or not self.tested[name].reliable

    @property
    def doubtful(self) -> str:
        """A sentence that names the unreliable outputs, "" if there are none.

        It says so if the model was not tested at all.
        """
        if not self.tested:
            return NOT_TESTED
        names = [name for name in self.outputs if self.unreliable(name)]
        return f"{UNRELIABLE}: {', '.join(names)}" if names else ""


@dataclass(frozen=True)
class Rejection:
    """An image that got no prediction.

    Attributes:
        source: the path of the image.
        reason: one of `edgecxr.errors.REASONS`, meant for programs.
        message: what is wrong and what to do, one line.
        gate: the quality gate's result; None if the image could not be read.
        header: attributes of a DICOM file, as in `edgecxr.films.header`; None unless requested, or if it has none.
        no_image: whether it is a DICOM object of a kind that has no image, such as a report.
    """

    source: str
    reason: str
    message: str
    gate: GateResult | None = None
    header: dict[str, str] | None = None
    no_image: bool = False


def rejection(source: str, gate: GateResult, header: dict[str, str] | None = None) -> Rejection:
    """Return the rejection of a film that the gate refuses."""
    first = gate.objections[0]
    remedy = _REMEDIES.get(first.reason, "give a frontal chest film")
    message = f"{source} is refused, {first.message}: {remedy}; --force (force=True) predicts it anyway"
    return Rejection(source, first.reason, message, gate, header)

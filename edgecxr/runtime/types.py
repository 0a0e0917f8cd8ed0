"""The values that travel between the parts of edgecxr."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from edgecxr import NOTICE
from edgecxr.errors import ModelError, brief
from edgecxr.films.radiograph import Objection
from edgecxr.vocabulary import FEW_CASES, FloatArray

CARD_FORMAT = 1


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


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch, before any threshold.

    Attributes:
        findings: (N, L) float32 logits, one column per label of the card.
        abnormal: (N,) float32 logits.
        attention: (N, g, g) float32, class token to patches in the last block; sums to 1 per image.
        features: (N, 4 D) float32, what the first block makes of the four quarters of the image, by which the quality
            gate tells chest films; None of models that do not give them.
    """

    findings: FloatArray
    abnormal: FloatArray
    attention: FloatArray
    features: FloatArray | None = None


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
    gate: GateResult = GateResult("pass")
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


@dataclass(frozen=True)
class ModelCard:
    """Everything that must travel with a model's weights.

    Attributes:
        name: such as "student-tiny-28-mlcak".
        labels: the findings, in the order of the output columns.
        size: side of the square input in pixels: 224, 112, 56 or 28; 448 of some teachers.
        tokens: number of patch tokens, the class token not counted.
        patch: side of a patch in pixels, of the enlarged image where `input` is "upsample".
        arch: "tiny", "small" or "base".
        depth: number of transformer blocks.
        method: "teacher", or the distillation method ("none": undistilled).
        precision: "fp32", "fp16" or "int8".
        teacher: name of the teacher, where there was one.
        input: "native", or "upsample": the model enlarges the image to 224 px before it cuts patches.
        stem: "patch", a patch embedding, or "conv", convolutions; `patch` is then the side of what makes one token.
        operating_points: name of the rule -> {label or "abnormal": probability threshold}.
        operating_counts: label or "abnormal" -> {"positives", "negatives"}, the validation films that the operating
            points were chosen on; empty in cards of before they were counted.
        temperature: {label or "abnormal": divisor of the logit}; absent means 1.
        metrics: results by split, as `edgecxr.bench.accuracy` writes them.
        data: name, hash, counts and provenance of the prepared data set; "phantom": true for synthetic films.
        training: the configuration of the training run.
        artefacts: file name -> {"precision", "opset", "sha256", ...} of a bundle's model files.
        target: the device that a bundle was exported for, as `edgecxr.export.target.Target` has it; empty for any.
        gate: how to tell whether a film is like those that the model learnt from, and how well that does, as
            `edgecxr.export.gate` makes it; empty in bundles of before.
        sha256: of the weights (best.safetensors) that everything was made from.
        version: the edgecxr that wrote the card.
        format: version of this record.
    """

    name: str
    labels: tuple[str, ...]
    size: int
    tokens: int
    patch: int
    arch: str
    depth: int
    method: str
    precision: str = "fp32"
    teacher: str | None = None
    input: str = "native"
    stem: str = "patch"
    operating_points: dict[str, dict[str, float]] = field(default_factory=dict)
    operating_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    temperature: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    artefacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    version: str = ""
    notice: str = NOTICE
    format: int = CARD_FORMAT

    @property
    def few_cases(self) -> dict[str, str]:
        """Label or "abnormal" -> such as "3 positive", where operating points rest on fewer than `FEW_CASES` films."""
        scarce = {
            name: ", ".join(
                f"{count} {kind}" for kind in ("positive", "negative") if (count := counts[f"{kind}s"]) < FEW_CASES
            )
            for name, counts in self.operating_counts.items()
        }
        return {name: kinds for name, kinds in scarce.items() if kinds}

    @property
    def phantom(self) -> bool:
        """Whether the model learnt from synthetic films only."""
        return bool(self.data.get("phantom"))

    def to_json(self) -> str:
        """Return the card as indented JSON."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str, source: str) -> ModelCard:
        """Parse a card.

        Args:
            text: the JSON.
            source: the file it came from, for messages.

        Raises:
            ModelError: not a card, or one of a newer format.
        """
        from edgecxr.runtime import card_check

        try:
            values = card_check.parse(text)
            if type(values["format"]) is not int or type(values["labels"]) is not list:
                raise ValueError("format is not a whole number, or labels are not a list")
            if values["format"] > CARD_FORMAT:
                newer = brief(values.get("version"), 40)
                raise ModelError(f"{source} was written by a newer edgecxr ({newer}): upgrade edgecxr")
            known = {f.name for f in dataclasses.fields(cls)}
            values = {key: value for key, value in values.items() if key in known}
            card = cls(**values | {"labels": tuple(values["labels"])})
            card_check.check(card)
            return card
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"{source} is not a model card ({brief(error)}): export the model again") from error

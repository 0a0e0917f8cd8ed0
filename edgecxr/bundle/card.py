"""Model cards, and checks for cards that may be untrusted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr import NOTICE
from edgecxr.errors import ModelError, brief
from edgecxr.storage import reading
from edgecxr.storage.folders import CARD
from edgecxr.storage.json_values import format_of, parse_json
from edgecxr.storage.reading import BadFile
from edgecxr.vocabulary import ABNORMAL, FEW_CASES, INPUTS, RENDERINGS, STEMS

CARD_FORMAT = 1

LARGEST_CARD = 4 << 20
"""Limit of a card's size, in characters or bytes."""

PLAIN_NAME = re.compile(r"\w[\w.+-]{0,127}")
"""Names that a file in a bundle may have."""

_LONGEST = 1000
_MOST_LABELS = 1000
MOST_LIMITS = 8
_MOST_RULES = 50
_MOST_FILES = 32
_MOST_COMPONENTS = 1000
_SMALLEST_VARIANCE = 1e-30
_FARTHEST = 1e9
_LARGEST_WHOLE = 1 << 53


@dataclass(frozen=True)
class ModelCard:
    """Metadata that must travel with a model's weights.

    Attributes:
        name: such as "student-tiny-28-mlcak-vindr".
        labels: the findings, in the order of the output columns.
        size: side of the square input in pixels: 224, 112, 56 or 28; 448 for some teachers.
        tokens: number of patch tokens, without the class token.
        patch: side of a patch in pixels; in the enlarged image if `input` is "upsample".
        arch: "tiny", "small" or "base".
        depth: number of transformer blocks.
        method: "teacher", or the distillation method ("none": undistilled).
        precision: "fp32", "fp16" or "int8".
        teacher: name of the teacher, if any.
        input: "native", or "upsample": the model enlarges the image to 224 px before it cuts patches.
        stem: "patch", a patch embedding, or "conv", convolutions; `patch` is then the side of the area of one token.
        operating_points: name of the rule -> {label or "abnormal": probability threshold}.
        operating_counts: label or "abnormal" -> {"positives", "negatives"}, the numbers of validation films that the
            operating points were chosen on; empty in older cards.
        temperature: {label or "abnormal": divisor of the logit}; absent means 1.
        metrics: results by split, as `edgecxr.evaluate.scores` writes them.
        data: name, hash, counts and provenance of the prepared data set; "phantom": true for synthetic films.
        training: the configuration of the training run.
        ended: why the training ended: "reason" ("epochs" or "patience"), "epochs" (how many were trained) and "kept"
            (the epoch of the weights); empty in older cards.
        artefacts: file name -> {"precision", "opset", "sha256", ...} of a bundle's model files.
        target: the device that a bundle was exported for, with the fields of `edgecxr.engines.target.Target`; empty if
            for any device.
        gate: how to tell whether a film is like the training films, and how well that works, as made by
            `edgecxr.export.fit_gate`; empty in older bundles.
        limits: what the model must not be used for, and what its results hide; each prediction repeats them.
        sha256: checksum of the weights (best.safetensors) that everything was made from.
        version: version of edgecxr that wrote the card.
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
    ended: dict[str, Any] = field(default_factory=dict)
    artefacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    target: dict[str, Any] = field(default_factory=dict)
    gate: dict[str, Any] = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    sha256: str = ""
    version: str = ""
    notice: str = NOTICE
    format: int = CARD_FORMAT

    @property
    def few_cases(self) -> dict[str, str]:
        """Labels whose operating points rest on fewer than `FEW_CASES` films.

        Maps each such label or "abnormal" to a text such as "3 positive".
        """
        scarce = {
            name: ", ".join(
                f"{count} {kind}" for kind in ("positive", "negative") if (count := counts[f"{kind}s"]) < FEW_CASES
            )
            for name, counts in self.operating_counts.items()
        }
        return {name: kinds for name, kinds in scarce.items() if kinds}

    @property
    def phantom(self) -> bool:
        """True if the model learnt from synthetic films only."""
        return bool(self.data.get("phantom"))

    @property
    def renderings(self) -> dict[str, int]:
        """Numbers of training films of each of `edgecxr.vocabulary.RENDERINGS`.

        Empty if the card does not say, as older ones.
        """
        counts: Any = self.data
        for key in ("counts", "train", "renderings"):
            counts = counts.get(key) if isinstance(counts, dict) else None
        if not isinstance(counts, dict):
            return {}
        return {name: counts[name] for name in RENDERINGS if _is_count(counts.get(name), least=1)}

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
            ModelError: the text is not a card, or of a newer format.
        """
        try:
            values = _parse(text)
            if type(values["labels"]) is not list:
                raise ValueError("labels are not a list")
            if format_of(values) > CARD_FORMAT:
                newer = brief(values.get("version"), 40)
                raise ModelError(f"{source} was written by a newer edgecxr ({newer}): upgrade edgecxr")
            field_names = {f.name for f in dataclasses.fields(cls)}
            values = {key: value for key, value in values.items() if key in field_names}
            card = cls(**values | {key: tuple(values.get(key, ())) for key in ("labels", "limits")})
            _check(card)
            return card
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ModelError(f"{source} is not a model card ({brief(error)}): export the model again") from error


def read_card(folder: Path, remedy: str = "train or export again", sha256: str | None = None) -> ModelCard:
    """Read the card of a run or bundle.

    Args:
        folder: contains card.json.
        remedy: what an error tells the user to do.
        sha256: the checksum that the card must have; None for any.

    Raises:
        ModelError: the card is missing, too large, not valid, or has another checksum.
    """
    path = folder / CARD
    text = read_text(path, LARGEST_CARD, remedy)
    if sha256 not in (None, hashlib.sha256(text.encode()).hexdigest()):
        raise ModelError(f"{path} has changed since it was compared with its checksum: {remedy}")
    return ModelCard.from_json(text, str(path))


def read_text(path: Path, largest: int, remedy: str) -> str:
    """Read a small, possibly untrusted text file of a bundle or run.

    Args:
        path: the file.
        largest: limit of its size in bytes.
        remedy: what an error tells the user to do.

    Raises:
        ModelError: it is missing, not a file, too large, or not text.
    """
    try:
        return reading.read_text(path, largest)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{path} is missing, so this is not a whole model: {remedy}") from error
    except (OSError, BadFile) as error:
        raise ModelError(f"{path} cannot be read ({brief(error)}): {remedy}") from error


def _parse(text: str) -> dict[str, Any]:
    """Parse the text of a card as a JSON object.

    Raises:
        ValueError: it is not an object, too large, or nested too deeply to be processed safely.
    """
    if len(text) > LARGEST_CARD:
        raise ValueError(f"more than {LARGEST_CARD >> 20} MiB")
    values = parse_json(text, finite=False)  # results that are not defined; what is computed with is checked
    if not isinstance(values, dict):
        raise ValueError("not a JSON object")
    return values


def _check(card: ModelCard) -> None:
    """Raise ValueError for the first key with an invalid value."""
    for wrong, message in _problems(card):
        if wrong:
            raise ValueError(message)


def check_shapes(card: ModelCard, shapes: Mapping[str, Sequence[object]], model: str, source: str) -> None:
    """Raise ModelError if a model is not the one its card describes.

    Args:
        card: gives size, labels and tokens.
        shapes: name -> shape of inputs and outputs, the batch first; a dimension that is not an int is unknown.
        model: path of the model, for messages.
        source: path of the card, for messages.

    Raises:
        ModelError: they disagree.
    """
    grid = math.isqrt(card.tokens)
    stated = {
        "image": ((1, card.size, card.size), f"images of {card.size} px"),
        "findings": ((len(card.labels),), f"{len(card.labels)} labels"),
        "abnormal": ((), "one logit for abnormal"),
        "attention": ((grid, grid), f"{card.tokens} tokens"),
    }
    for name, (expected, words) in stated.items():
        shape = tuple(shapes.get(name, (None, *expected)))[1:]
        concrete = tuple(want if type(side) is not int else side for side, want in zip(shape, expected, strict=False))
        if len(shape) != len(expected) or concrete != expected:
            sides = " x ".join("?" if type(side) is not int else str(side) for side in shape) or "one number"
            raise ModelError(
                f"{model} has {name} of {sides} for each image, and {source} says {words}: they are not of one model, "
                "export it again"
            )


def _problems(card: ModelCard) -> Iterator[tuple[bool, str]]:
    """Yield (is wrong, message) pairs; later checks rely on earlier ones."""
    for key in ("name", "arch", "method", "precision", "sha256", "version", "notice", "input", "stem"):
        yield not _is_text(getattr(card, key)), f"{key} is not a text"
    yield card.teacher is not None and not _is_text(card.teacher), "teacher is not a text"
    yield not all(map(_is_text, card.labels)), "labels are not texts"
    yield not all(map(_is_text, card.limits)) or len(card.limits) > MOST_LIMITS, "limits are not a few texts"
    yield len(card.labels) > _MOST_LABELS, f"more than {_MOST_LABELS} labels"
    names = {*card.labels, ABNORMAL}
    yield len(names) != len(card.labels) + 1, "labels are not different"
    for key in ("size", "patch", "tokens", "depth"):
        yield not _is_count(getattr(card, key), least=1), f"{key} is not a whole number above 0"
    yield card.input not in INPUTS, f"input is {brief(card.input, 40)}, not one of {', '.join(INPUTS)}"
    yield card.stem not in STEMS, f"stem is {brief(card.stem, 40)}, not one of {', '.join(STEMS)}"
    yield card.input == "native" and card.size % card.patch != 0, "size is not a multiple of patch"
    yield math.isqrt(card.tokens) ** 2 != card.tokens, "tokens are not a square number"
    for key in ("operating_points", "operating_counts", "temperature", "metrics", "data", "training", "artefacts"):
        yield not isinstance(getattr(card, key), dict), f"{key} is not a table"
    for key in ("target", "ended"):
        yield not isinstance(getattr(card, key), dict), f"{key} is not a table"
    yield from _gate(card.gate)
    yield from _decisions(card)
    yield from _files(card)


def _gate(gate: object) -> Iterator[tuple[bool, str]]:
    yield not isinstance(gate, dict), "gate is not a table"
    if not gate:
        return
    assert isinstance(gate, dict)
    variances = gate.get("variances")
    yield not isinstance(variances, list) or len(variances) > _MOST_COMPONENTS, "gate has no list of variances"
    for name, value in [("rest", gate.get("rest")), *(("a variance", value) for value in variances or ())]:
        valid = _is_number(value) and _SMALLEST_VARIANCE <= value < 1 / _SMALLEST_VARIANCE
        yield not valid, f"{name} of the gate is {brief(value, 40)}, which is no variance"
    yield any(value < gate["rest"] for value in variances or ()), "a variance of the gate is below its rest"
    for key in ("thresholds", "usual"):
        values = gate.get(key)
        yield not isinstance(values, dict), f"{key} of the gate are not a table"
        for value in (values or {}).values():
            problem = f"one of the gate's {key} is {brief(value, 40)}, which is no distance"
            yield not _is_number(value) or not 0 < value < _FARTHEST, problem
    yield not _is_text(gate.get("sha256")), "sha256 of the gate is not a text"
    rate = gate.get("false_rejection", 0.0)
    yield not _is_number(rate) or not 0 <= rate <= 1, "false_rejection of the gate is no share"


def _decisions(card: ModelCard) -> Iterator[tuple[bool, str]]:
    yield len(card.operating_points) > _MOST_RULES, f"more than {_MOST_RULES} operating points"
    for rule, thresholds in card.operating_points.items():
        yield not _is_text(rule) or not isinstance(thresholds, dict), "operating_points are not tables"
        for name, value in thresholds.items():
            problem = f"the threshold of {brief(name, 60)} is {brief(value, 40)}, which is no probability"
            yield not _is_number(value) or not 0 <= value <= 1, problem
    for name, value in card.temperature.items():
        problem = f"the temperature of {brief(name, 60)} is {brief(value, 40)}, which is no number"
        yield not _is_number(value), problem
    for counts in card.operating_counts.values():
        valid = isinstance(counts, dict) and all(_is_count(counts.get(kind)) for kind in ("positives", "negatives"))
        yield not valid, "operating_counts are not numbers of films"


def _files(card: ModelCard) -> Iterator[tuple[bool, str]]:
    yield len(card.artefacts) > _MOST_FILES, f"more than {_MOST_FILES} model files"
    for name, facts in card.artefacts.items():
        yield not PLAIN_NAME.fullmatch(name), f"{brief(name, 60)} cannot be the name of a model file"
        yield not isinstance(facts, dict), "artefacts are not tables"
        for key in ("precision", "sha256", "profile", "float_part"):
            yield not _is_text(facts.get(key, "")), f"{key} of {name} is not a text"
        for key in ("bytes", "opset"):
            yield not _is_count(facts.get(key, 0)), f"{key} of {name} is not a whole number"


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_count(value: object, least: int = 0) -> bool:
    return type(value) is int and least <= value < _LARGEST_WHOLE


def _is_number(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < _LARGEST_WHOLE)

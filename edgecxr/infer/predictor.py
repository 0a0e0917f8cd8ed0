"""Bundle + backend -> predictions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import ModelCard, check_shapes
from edgecxr.bundle.gate import GateResult, far_away, load_gate, warnings_of
from edgecxr.engines.backend import Outputs, open_backend
from edgecxr.errors import GATE_REASONS, InputError, ModelError, UsageError, brief
from edgecxr.films.radiograph import FilmRead, Objection, Radiograph
from edgecxr.films.read import checked, film_of, read_film
from edgecxr.films.resize import INPUT_SIZES, box_mean, source_size
from edgecxr.infer.prediction import Prediction, Rejection, rejection
from edgecxr.registry import OF_CHECKPOINTS
from edgecxr.storage.folders import CARD
from edgecxr.vocabulary import ABNORMAL, FEW_CASES, PRECISIONS, FloatArray

PHANTOM_WARNING = "model learnt from synthetic phantom films only"
NO_GATE_WARNING = (
    "the model cannot tell whether a film is a chest film: export it again, with 16 or more training films and some "
    "validation films"
)
LARGEST_SHARE = 0.05
"""Of films like those of the training that a quality gate may refuse without a warning."""

_LARGEST_FEATURE = 1e6


class Predictor:
    """A model that is ready to look at films; `edgecxr.load` opens one.

    Thread-safe: any number of threads may call `predict` of one predictor at the same time, and get what they would
    have got alone. Files are read one after the other; the model runs for several threads at once. While a file is
    read, Python's warnings are off in the whole process, and while GDCM decodes one (JPEG lossless and extended), so is
    standard error. Processes each need a predictor of their own: it does not survive a fork.

    Args:
        bundle: an open bundle, or the path of one.
        backend: a key of `edgecxr.registry.BACKENDS`.
        operating_point: the rule on the card that turns probabilities into decisions.
        precision: which of the bundle's model files to run: "fp32", "fp16" or "int8".
        threads: how many threads compute; None leaves it to the backend.
        any_view: look at films that say that they are lateral or oblique, too.
        force: look at films that the quality gate refuses, too; their predictions say so.

    Attributes:
        bundle: the open bundle.
        precision: of the model file that runs.
        warnings: what is to be said with every prediction of this model.

    Raises:
        UsageError: the backend is unknown or for checkpoints, there is no such precision, or the card has operating
            points but not this one.
        MissingPackage: the backend's engine is not installed.
        ModelError: the bundle cannot be used.
    """

    def __init__(
        self,
        bundle: Bundle | Path,
        backend: str = "onnxruntime",
        operating_point: str = "youden",
        precision: str = "fp32",
        threads: int | None = None,
        *,
        any_view: bool = False,
        force: bool = False,
    ) -> None:
        if backend in OF_CHECKPOINTS:
            raise UsageError(
                f"backend {backend} runs checkpoints, not bundles: `edgecxr evaluate RUN` does, or export the run"
            )
        if precision not in PRECISIONS:
            raise UsageError(f"precision {precision}: there are {', '.join(PRECISIONS)}")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.precision = precision
        if self.card.size not in INPUT_SIZES:
            raise ModelError(
                f"the card in {self.bundle.path} has size {self.card.size}, not one of {INPUT_SIZES}: export again"
            )
        self._thresholds, self.warnings = _thresholds(self.card, operating_point, self.bundle.path)
        self._operating_point = operating_point if self.card.operating_points else None
        if self.card.phantom:
            self.warnings += (PHANTOM_WARNING,)
        self._temperatures = _temperatures(self.card, self.bundle.path)
        model = self.bundle.artefact(precision)
        self._gate = load_gate(self.bundle, precision)
        if self._gate is None:
            self.warnings += (NO_GATE_WARNING,)
        elif (share := self.card.gate.get("false_rejection", 0)) > LARGEST_SHARE:
            self.warnings += (
                f"the quality gate rests on few validation films: it refuses about {share:.0%} of good films",
            )
        self.any_view, self.force = any_view, force
        options = {} if threads is None else {"threads": threads}
        self._backend = open_backend(backend, model, **options)
        # What a backend does not say here shows in its answers.
        shapes = getattr(self._backend, "shapes", {})
        try:
            check_shapes(self.card, shapes, str(model), str(self.bundle.path / CARD))
            self._check_features(tuple(shapes.get("features", (None, None)))[1:])
        except ModelError:
            self._backend.close()
            raise

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.bundle.card

    def predict(self, source: str | os.PathLike[str] | Radiograph | NDArray[Any]) -> Prediction:
        """Look at one film.

        Args:
            source: the path of a DICOM file or image; or pixels (H, W) with black air, as floats in [0, 1] or as uint8
                or uint16, which are taken as an image file with these pixels would be; or a film that has been read.

        Raises:
            InputError: the file or array is not a film that can be used, or the quality gate refuses it.
            ModelError: the model failed, does not fit its card, or has been closed.
            UsageError: `source` is something else.
        """
        if isinstance(source, (str, os.PathLike)):
            return self._taken(read_film(source, self.image_size))
        if isinstance(source, np.ndarray):
            # Here, so that who gives no arrays loads no Pillow.
            from edgecxr.films.image_file import from_array

            source = checked(from_array(source))
        if not isinstance(source, Radiograph):
            raise UsageError(f"predict takes a path or an array of pixels (H, W), not {type(source).__name__}")
        return self._taken(film_of(source, self.image_size))

    def _taken(self, film: FilmRead) -> Prediction:
        (result,) = self.look([film])
        if isinstance(result, Rejection):
            raise InputError(result.message, result.reason, result.gate)
        return result

    @property
    def operating_point(self) -> str | None:
        """The rule on the card that chose the thresholds; None where the card has none."""
        return self._operating_point

    @property
    def image_size(self) -> int:
        """The side of the image that the model's input is made from: 224 or 448 px."""
        return source_size(self.card.size)

    def look(self, films: Sequence[FilmRead]) -> list[Prediction | Rejection]:
        """Look at films that have been read for a model of `image_size`, all at once.

        Films that the quality gate refuses are rejected: those whose file or pixels speak against them before the model
        runs. Each prediction's time of the "model" is its share of what all took.

        Raises:
            ModelError: the model failed, does not fit its card, or has been closed.
            UsageError: a film was read for a model of another size.
        """
        for film in films:
            if len(film.image) != self.image_size:
                side = len(film.image)
                raise UsageError(f"{film.source} was read at {side} px, and the model needs {self.image_size} px")
        first = [self._judged(film.objections) for film in films]
        seen = [film for film, gate in zip(films, first, strict=True) if gate.verdict != "refuse"]
        results = iter(self._seen(seen) if seen else ())
        return [
            self._refused(film, gate) if gate.verdict == "refuse" else next(results)
            for film, gate in zip(films, first, strict=True)
        ]

    def _seen(self, films: Sequence[FilmRead]) -> Iterator[Prediction | Rejection]:
        start = time.perf_counter()
        images = np.stack([film.image for film in films])
        inputs = box_mean(images, self.card.size)[:, None]
        reduced = time.perf_counter()
        outputs = self._backend.run(inputs)
        shares = {"preprocess": (reduced - start) / len(films), "model": (time.perf_counter() - reduced) / len(films)}
        probabilities = self._probabilities(outputs, len(films))
        gates = self._gates(films, images, outputs)
        for film, gate, row, attention in zip(films, gates, probabilities, outputs.attention, strict=True):
            if gate.verdict == "refuse":
                yield self._refused(film, gate)
            else:
                named = dict(zip((*self.card.labels, ABNORMAL), row, strict=True))
                yield self._prediction(film, gate, named, attention, shares)

    def _refused(self, film: FilmRead, gate: GateResult) -> Rejection:
        return replace(rejection(film.source, gate), model=self.card.name, precision=self.precision)

    def _gates(self, films: Sequence[FilmRead], images: NDArray[np.uint8], outputs: Outputs) -> list[GateResult]:
        """Return what the gate makes of films that the model has seen."""
        if self._gate is None:
            return [self._judged(film.objections) for film in films]
        distances = self._distances(outputs, len(films))
        far = np.flatnonzero(distances > self._gate.threshold)
        more: dict[int, tuple[Objection, ...]] = {}
        if len(far):
            # The same films with black and white exchanged: where these look as most films do, the polarity is wrong.
            exchanged = self._backend.run(box_mean(255 - images[far], self.card.size)[:, None])
            for place, distance in zip(far.tolist(), self._distances(exchanged, len(far)), strict=True):
                more[place] = (far_away(float(distances[place]), float(distance), self._gate),)
        return [self._judged((*film.objections, *more.get(i, ())), float(distances[i])) for i, film in enumerate(films)]

    def _distances(self, outputs: Outputs, count: int) -> NDArray[np.float64]:
        assert self._gate is not None
        features = outputs.features
        if not isinstance(features, np.ndarray) or features.dtype.kind != "f" or len(features) != count:
            features = np.empty(0, np.float32)
        self._check_features(features.shape[1:])
        # Treat NaN and huge values as infinitely far.
        if not np.abs(features).max() < _LARGEST_FEATURE:
            raise self._no_numbers()
        return self._gate.distances(features)

    def _check_features(self, shape: tuple[object, ...]) -> None:
        """Refuse a model that does not give what its gate was fitted to; a side that is not known is no int."""
        if self._gate is not None and (len(shape) != 1 or (type(shape[0]) is int and shape[0] != len(self._gate.mean))):
            raise ModelError(f"the model in {self.bundle.path} has no features for its quality gate: export it again")

    def _judged(self, objections: Sequence[Objection], distance: float | None = None) -> GateResult:
        if self.any_view:
            objections = [objection for objection in objections if objection.reason != "view"]
        ordered = tuple(sorted(objections, key=lambda objection: GATE_REASONS.index(objection.reason)))
        verdict = "pass" if not ordered else "warn" if self.card.phantom else "forced" if self.force else "refuse"
        return GateResult(verdict, ordered, distance, None if self._gate is None else self._gate.threshold)

    def _no_numbers(self) -> ModelError:
        return ModelError(
            f"the model in {self.bundle.path} gives values that are not numbers: "
            "use its fp32 file, or export the model again"
        )

    def close(self) -> None:
        """Free the model; what another thread has begun still ends well."""
        self._backend.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prediction(
        self,
        film: FilmRead,
        gate: GateResult,
        probabilities: dict[str, float],
        attention: FloatArray,
        seconds: dict[str, float],
    ) -> Prediction:
        timings = dict(film.timings_ms)
        for stage, more in seconds.items():
            timings[stage] = timings.get(stage, 0.0) + 1000 * more
        return Prediction(
            findings={label: probabilities[label] for label in self.card.labels},
            abnormal=probabilities[ABNORMAL],
            decisions={name: p >= self._thresholds[name] for name, p in probabilities.items()},
            thresholds=dict(self._thresholds),
            operating_point=self._operating_point,
            attention=attention,
            model=self.card.name,
            source=film.source,
            timings_ms=timings,
            warnings=(*film.warnings, *warnings_of(gate), *self.warnings),
            gate=gate,
            precision=self.precision,
        )

    def _probabilities(self, outputs: Outputs, count: int) -> list[list[float]]:
        """Return a row for each of `count` images: the findings, then "abnormal"."""
        found = {name: getattr(outputs, name) for name in ("findings", "abnormal", "attention")}
        # An engine may give lists or texts, if that is what its model computes.
        if not all(isinstance(value, np.ndarray) and value.dtype.kind == "f" for value in found.values()):
            raise ModelError(f"the model in {self.bundle.path} does not answer with numbers: export the model again")
        shapes = {name: value.shape for name, value in found.items()}
        check_shapes(self.card, shapes, f"the model in {self.bundle.path}", CARD)
        if {shape[:1] for shape in shapes.values()} != {(count,)}:
            raise ModelError(
                f"the model in {self.bundle.path} does not answer with one row for each image: export the model again"
            )
        logits = outputs.logits.astype(np.float64)
        if not (np.isfinite(logits).all() and np.isfinite(outputs.attention).all()):
            raise self._no_numbers()
        # As a tanh, the sigmoid overflows for no logit; with a tiny temperature the quotient may, to what is meant.
        with np.errstate(over="ignore"):
            return (0.5 * (1 + np.tanh(0.5 * logits / self._temperatures))).tolist()


def _thresholds(card: ModelCard, rule: str, source: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return name -> threshold, and warnings where the card has none or few films decided it."""
    names = (*card.labels, ABNORMAL)
    if card.operating_points and rule not in card.operating_points:
        rules = brief(", ".join(card.operating_points))
        raise UsageError(f"{source} has no operating point {rule!r} (there are: {rules})")
    points = card.operating_points.get(rule, {})
    absent = [name for name in names if name not in points]
    thresholds = {name: float(points.get(name, 0.5)) for name in names}
    notes = []
    if absent:
        what = "any label" if len(absent) == len(names) else ", ".join(absent)
        notes.append(f"the model's card has no operating point for {what}: decided at 0.5")
    few = [f"{name} ({kinds})" for name, kinds in card.few_cases.items() if name in points]
    if few:
        notes.append(f"thresholds rest on fewer than {FEW_CASES} validation films of a kind: {', '.join(few)}")
    return thresholds, tuple(notes)


def _temperatures(card: ModelCard, source: Path) -> FloatArray:
    """Return (L + 1,) divisors of the logits, "abnormal" last."""
    values = np.array([card.temperature.get(name, 1.0) for name in (*card.labels, ABNORMAL)])
    if not (values > 0).all():
        raise ModelError(f"the card in {source} has a temperature that is not above 0: export the model again")
    return values

"""Bundle + backend -> predictions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import ModelCard, check_shapes
from edgecxr.bundle.gate import GateResult, far_away, judge, load_gate, warnings_of
from edgecxr.bundle.tested import of_test_films
from edgecxr.engines.backend import Outputs, open_backend
from edgecxr.engines.fastest_precision import chosen_precision
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.films.radiograph import FilmRead, Objection, Radiograph
from edgecxr.films.read import checked, film_of, read_film
from edgecxr.films.resize import INPUT_SIZES, box_mean, source_size
from edgecxr.infer.in_memory import in_memory, read_in_memory
from edgecxr.infer.json_line import ModelIdentity
from edgecxr.infer.prediction import Prediction, Rejection, rejection
from edgecxr.infer.rendering import rendering_doubts
from edgecxr.infer.thresholds import temperatures_of, thresholds_of
from edgecxr.registry import OF_CHECKPOINTS
from edgecxr.storage.folders import CARD
from edgecxr.vocabulary import ABNORMAL, FloatArray

if TYPE_CHECKING:
    from edgecxr.infer.in_memory import InMemory

PHANTOM_WARNING = "model learnt from synthetic phantom films only"
NO_GATE_WARNING = (
    "the model cannot tell whether a film is a chest film: export it again, with 16 or more training films and some "
    "validation films"
)
LARGEST_SHARE = 0.05
"""Share of films like the training films that a quality gate may refuse without a warning."""

_LARGEST_FEATURE = 1e6


class Predictor:
    """A model that is ready to look at films; `edgecxr.load` opens one.

    Thread-safe: any number of threads may call `predict` at the same time, and get the same results as alone. Files are
    read one after the other; the model runs for several threads at once. While a file is read, Python's warnings are
    off in the whole process. While GDCM decodes one (JPEG lossless and extended), standard error is off as well. A
    predictor does not survive a fork: each process needs its own.

    Args:
        bundle: an open bundle, or the path of one.
        backend: a key of `edgecxr.registry.BACKENDS`.
        operating_point: the rule on the card that turns probabilities into decisions.
        precision: which of the bundle's model files to run: "fp32", "fp16" or "int8", or "auto", as
            `edgecxr.engines.fastest_precision` chooses.
        threads: how many threads compute; None leaves it to the backend.
        any_view: accept films that state a lateral or oblique view, too.
        force: accept films that the quality gate refuses, too; their predictions say so.

    Attributes:
        bundle: the open bundle.
        precision: of the model file that runs.
        warnings: those that belong to every prediction of this model.
        doubts: rendering of a film that the model does not know -> a code of `edgecxr.infer.rendering` and a warning.

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
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.precision = precision = chosen_precision(precision, self.bundle, backend, threads)
        if self.card.size not in INPUT_SIZES:
            raise ModelError(
                f"the card in {self.bundle.path} has size {self.card.size}, not one of {INPUT_SIZES}: export again"
            )
        self._thresholds, self.warnings = thresholds_of(self.card, operating_point, self.bundle.path)
        self._operating_point = operating_point if self.card.operating_points else None
        self.warnings += self.card.limits
        if self.card.phantom:
            self.warnings += (PHANTOM_WARNING,)
        self.doubts = rendering_doubts(self.card.renderings)
        self._tested = of_test_films(self.card)
        self._temperatures = temperatures_of(self.card, self.bundle.path)
        model = self.bundle.model(precision)
        self._sha256 = model.sha256
        self._gate = load_gate(self.bundle, precision)
        if self._gate is None:
            self.warnings += (NO_GATE_WARNING,)
        elif (share := self.card.gate.get("false_rejection", 0)) > LARGEST_SHARE:
            self.warnings += (
                f"the quality gate was set on few validation films: it refuses about {share:.0%} of suitable films",
            )
        self.backend, self.any_view, self.force = backend, any_view, force
        options: dict[str, Any] = {} if threads is None else {"threads": threads}
        self._backend = open_backend(backend, model, **options)
        # A backend may not state its shapes; then its outputs are checked.
        shapes = getattr(self._backend, "shapes", {})
        try:
            check_shapes(self.card, shapes, str(model.path), str(self.bundle.path / CARD))
            self._check_features(tuple(shapes.get("features", (None, None)))[1:])
        except ModelError:
            self._backend.close()
            raise

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.bundle.card

    def predict(self, source: str | os.PathLike[str] | InMemory | Radiograph | NDArray[Any]) -> Prediction:
        """Look at one film.

        Args:
            source: the path of a DICOM file or image; or its content as bytes or as an open file, or a pydicom data
                set, as `edgecxr.infer.in_memory` reads them; or pixels (H, W) with black air, as floats in [0, 1] or
                as uint8 or uint16, which are treated like an image file with these pixels; or a film that has been
                read.

        Raises:
            InputError: the file or array is not a film that can be used, or the quality gate refuses it.
            ModelError: the model failed, does not fit its card, or has been closed.
            UsageError: `source` is something else.
        """
        if isinstance(source, (str, os.PathLike)):
            return self._taken(read_film(source, self.image_size))
        if isinstance(source, np.ndarray):
            # Imported here because only arrays need Pillow.
            from edgecxr.films.image_file import from_array

            source = checked(from_array(source))
        elif in_memory(source):
            return self._taken(read_in_memory(source, self.image_size))
        if not isinstance(source, Radiograph):
            takes = "bytes, an open file, a data set, a path or an array of pixels (H, W)"
            raise UsageError(f"predict takes {takes}, not {type(source).__name__}")
        return self._taken(film_of(source, self.image_size))

    def _taken(self, film: FilmRead) -> Prediction:
        (result,) = self.look([film])
        if isinstance(result, Rejection):
            raise InputError(result.message, result.reason, result.gate)
        return result

    @property
    def identity(self) -> ModelIdentity:
        """What a result says of the model."""
        return ModelIdentity(self.card.name, self.precision, self._sha256, self._operating_point)

    @property
    def operating_point(self) -> str | None:
        """The rule on the card that chose the thresholds.

        None if the card has no operating points.
        """
        return self._operating_point

    @property
    def image_size(self) -> int:
        """The side of the model's source image, 224 or 448 px."""
        return source_size(self.card.size)

    def look(self, films: Sequence[FilmRead]) -> list[Prediction | Rejection]:
        """Predict from a batch of films that have been read.

        They must have been read for a model of `image_size`. Films that the quality gate refuses are rejected, before
        the model runs if their file or pixels raise objections. Each prediction's "model" time is its share of the
        batch's time.

        Raises:
            ModelError: the model failed, does not fit its card, or has been closed.
            UsageError: a film was read for a model of another size.
        """
        for film in films:
            if len(film.image) != self.image_size:
                side = len(film.image)
                raise UsageError(f"{film.source} was read at {side} px, and the model needs {self.image_size} px")
        gates = [self._judged(film.objections) for film in films]
        accepted = [film for film, gate in zip(films, gates, strict=True) if gate.verdict != "refuse"]
        results = iter(self._predictions(accepted) if accepted else ())
        return [
            self._refused(film, gate) if gate.verdict == "refuse" else next(results)
            for film, gate in zip(films, gates, strict=True)
        ]

    def _predictions(self, films: Sequence[FilmRead]) -> Iterator[Prediction | Rejection]:
        start = time.perf_counter()
        images = np.stack([film.image for film in films])
        inputs = box_mean(images, self.card.size)[:, None]
        reduced = time.perf_counter()
        outputs = self._backend.run(inputs)
        shares = {"preprocess": (reduced - start) / len(films), "model": (time.perf_counter() - reduced) / len(films)}
        numbers = self._numbers(outputs, len(films))
        # An engine may overflow for a film, which must not cost the others their predictions.
        sound = [film for film, finite in zip(films, numbers, strict=True) if finite]
        results = iter(self._answered(sound, images[numbers], outputs.rows(numbers), shares) if sound else ())
        for film, finite in zip(films, numbers, strict=True):
            yield next(results) if finite else self._without_numbers(film)

    def _answered(
        self, films: Sequence[FilmRead], images: NDArray[np.uint8], outputs: Outputs, shares: dict[str, float]
    ) -> Iterator[Prediction | Rejection]:
        probabilities = self._probabilities(outputs)
        gates = self._gates(films, images, outputs)
        for film, gate, row, attention in zip(films, gates, probabilities, outputs.attention, strict=True):
            if gate.verdict == "refuse":
                yield self._refused(film, gate)
            else:
                named = dict(zip((*self.card.labels, ABNORMAL), row, strict=True))
                yield self._prediction(film, gate, named, attention, shares)

    def _without_numbers(self, film: FilmRead) -> Rejection:
        remedy = "export the model again" if self.precision == "fp32" else "use its fp32 file"
        message = f"{film.source}: the {self.precision} model gives values that are not numbers for this film: {remedy}"
        return Rejection(film.source, "no-numbers", message, header=film.header)

    def _refused(self, film: FilmRead, gate: GateResult) -> Rejection:
        return rejection(film.source, gate, film.header)

    def _gates(self, films: Sequence[FilmRead], images: NDArray[np.uint8], outputs: Outputs) -> list[GateResult]:
        """Return the gate's results for films that the model has seen."""
        if self._gate is None:
            return [self._judged(film.objections) for film in films]
        distances = self._distances(outputs, len(films))
        far = self._gate.too_far(distances)
        far_objections: dict[int, tuple[Objection, ...]] = {}
        if len(far):
            # If a film looks ordinary once black and white are exchanged, its polarity is wrong.
            exchanged = self._backend.run(box_mean(255 - images[far], self.card.size)[:, None])
            for place, distance in zip(far.tolist(), self._distances(exchanged, len(far)), strict=True):
                far_objections[place] = (far_away(float(distances[place]), float(distance), self._gate),)
        return [
            self._judged((*film.objections, *far_objections.get(i, ())), float(distances[i]))
            for i, film in enumerate(films)
        ]

    def _distances(self, outputs: Outputs, count: int) -> NDArray[np.float64]:
        assert self._gate is not None
        features = self._features(outputs, count)
        # Treat NaN and huge values as infinitely far.
        finite = np.abs(features).max(axis=1) < _LARGEST_FEATURE
        return np.where(finite, self._gate.distances(np.where(finite[:, None], features, 0)), np.inf)

    def _features(self, outputs: Outputs, count: int) -> FloatArray:
        features = outputs.features
        if not isinstance(features, np.ndarray) or features.dtype.kind != "f" or len(features) != count:
            features = np.empty(0, np.float32)
        self._check_features(features.shape[1:])
        return features

    def _check_features(self, shape: tuple[object, ...]) -> None:
        """Refuse a model without the features that its gate needs.

        A dimension of unknown size is not an int.
        """
        if self._gate is not None and (len(shape) != 1 or (type(shape[0]) is int and shape[0] != len(self._gate.mean))):
            raise ModelError(f"the model in {self.bundle.path} has no features for its quality gate: export it again")

    def _judged(self, objections: Sequence[Objection], distance: float | None = None) -> GateResult:
        return judge(objections, self._gate, distance, self.any_view, self.card.phantom, self.force)

    def close(self) -> None:
        """Free the model; running calls of other threads still finish."""
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
        doubts = [self.doubts[film.rendering]] if film.rendering in self.doubts else []
        timings = dict(film.timings_ms)
        for stage, spent in seconds.items():
            timings[stage] = timings.get(stage, 0.0) + 1000 * spent
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
            warnings=(*film.warnings, *warnings_of(gate), *(message for _, message in doubts), *self.warnings),
            gate=gate,
            precision=self.precision,
            codes=tuple(code for code, _ in doubts),
            tested=self._tested,
        )

    def _numbers(self, outputs: Outputs, count: int) -> NDArray[np.bool_]:
        """Return for which of `count` images all outputs are numbers."""
        arrays = {name: getattr(outputs, name) for name in ("findings", "abnormal", "attention")}
        # An engine may return lists or strings, if its model computes them.
        if not all(isinstance(value, np.ndarray) and value.dtype.kind == "f" for value in arrays.values()):
            raise ModelError(f"the model in {self.bundle.path} does not answer with numbers: export the model again")
        shapes = {name: value.shape for name, value in arrays.items()}
        check_shapes(self.card, shapes, f"the model in {self.bundle.path}", CARD)
        if {shape[:1] for shape in shapes.values()} != {(count,)}:
            raise ModelError(
                f"the model in {self.bundle.path} does not answer with one row for each image: export the model again"
            )
        numbers = np.asarray(np.isfinite(outputs.logits).all(axis=1))
        numbers &= np.isfinite(outputs.attention).all(axis=(1, 2))
        if self._gate is not None:
            numbers &= np.abs(self._features(outputs, count)).max(axis=1) < _LARGEST_FEATURE
        return numbers

    def _probabilities(self, outputs: Outputs) -> list[list[float]]:
        """Return a row for each image: the findings, then "abnormal"."""
        logits = outputs.logits.astype(np.float64)
        # Written as a tanh, the sigmoid never overflows. The quotient may, and infinity then gives the right limit.
        with np.errstate(over="ignore"):
            return (0.5 * (1 + np.tanh(0.5 * logits / self._temperatures))).tolist()

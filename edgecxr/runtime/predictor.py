"""Bundle + backend -> predictions."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.registry import OF_CHECKPOINTS
from edgecxr.runtime.backend import open_backend
from edgecxr.runtime.bundle import CARD, Bundle
from edgecxr.runtime.card_check import check_shapes
from edgecxr.runtime.preprocess import INPUT_SIZES, box_mean, source_size
from edgecxr.runtime.read import FilmRead, checked, film_of, read_film
from edgecxr.runtime.types import (
    ABNORMAL,
    FEW_CASES,
    PRECISIONS,
    FloatArray,
    ModelCard,
    Outputs,
    Prediction,
    Radiograph,
)

PHANTOM_WARNING = "model learnt from synthetic phantom films only"

SUFFIXES = frozenset({".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Endings that a folder's files are taken by; other files are taken if their first bytes are those of such a format."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


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
        options = {} if threads is None else {"threads": threads}
        model = self.bundle.artefact(precision)
        self._backend = open_backend(backend, model, **options)
        # What a backend does not say here shows in its answers.
        try:
            check_shapes(self.card, getattr(self._backend, "shapes", {}), str(model), str(self.bundle.path / CARD))
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
            InputError: the file or array is not a film that can be used.
            ModelError: the model failed, does not fit its card, or has been closed.
            UsageError: `source` is something else.
        """
        if isinstance(source, (str, os.PathLike)):
            return self.look([read_film(source, self.image_size)])[0]
        if isinstance(source, np.ndarray):
            # Here, so that who gives no arrays loads no Pillow.
            from edgecxr.runtime.image import from_array

            source = checked(from_array(source))
        if not isinstance(source, Radiograph):
            raise UsageError(f"predict takes a path or an array of pixels (H, W), not {type(source).__name__}")
        return self.look([film_of(source, self.image_size)])[0]

    @property
    def operating_point(self) -> str | None:
        """The rule on the card that chose the thresholds; None where the card has none."""
        return self._operating_point

    @property
    def image_size(self) -> int:
        """The side of the image that the model's input is made from: 224 or 448 px."""
        return source_size(self.card.size)

    def look(self, films: Sequence[FilmRead]) -> list[Prediction]:
        """Look at films that have been read for a model of `image_size`, at least one, all at once.

        Each prediction's time of the "model" is its share of what all took.

        Raises:
            ModelError: the model failed, does not fit its card, or has been closed.
        """
        start = time.perf_counter()
        images = box_mean(np.stack([film.image for film in films]), self.card.size)[:, None]
        reduced = time.perf_counter()
        outputs = self._backend.run(images)
        shares = {"preprocess": (reduced - start) / len(films), "model": (time.perf_counter() - reduced) / len(films)}
        probabilities = self._probabilities(outputs, len(films))
        return [
            self._prediction(film, dict(zip((*self.card.labels, ABNORMAL), row, strict=True)), attention, shares)
            for film, row, attention in zip(films, probabilities, outputs.attention, strict=True)
        ]

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
        self, film: FilmRead, probabilities: dict[str, float], attention: FloatArray, seconds: dict[str, float]
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
            warnings=(*film.warnings, *self.warnings),
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
        logits = np.column_stack([outputs.findings, outputs.abnormal]).astype(np.float64)
        if not (np.isfinite(logits).all() and np.isfinite(outputs.attention).all()):
            raise ModelError(
                f"the model in {self.bundle.path} gives values that are not numbers: "
                "use its fp32 file, or export the model again"
            )
        # As a tanh, the sigmoid overflows for no logit; with a tiny temperature the quotient may, to what is meant.
        with np.errstate(over="ignore"):
            return (0.5 * (1 + np.tanh(0.5 * logits / self._temperatures))).tolist()


def find_inputs(paths: Iterable[Path]) -> list[Path]:
    """Return the files to look at, each once.

    Files are taken as they are. Folders are searched with their subfolders, in sorted order, for `SUFFIXES` and for
    files whose first bytes are those of DICOM, PNG, JPEG or TIFF; hidden ones and DICOMDIR are left out. A path that
    does not exist and a folder without films are kept, so that they show up among the results as rejected.

    Args:
        paths: files and folders.
    """
    found: dict[Path, None] = {}
    for path in paths:
        films = _films_below(path) if os.path.isdir(path) else [path]
        found.update(dict.fromkeys(films or [path]))
    return list(found)


def _films_below(folder: Path) -> list[Path]:
    films: list[Path] = []
    # A subfolder that cannot be listed is kept, to be reported.
    for parent, folders, names in os.walk(folder, onerror=lambda error: films.append(Path(error.filename))):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        films.extend(path for name in sorted(names) if _is_film(path := Path(parent, name)))
    return films


def _is_film(path: Path) -> bool:
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return False
    try:
        # Anything but a regular file may block when it is opened.
        if not path.is_file():
            return False
        if path.suffix.lower() in SUFFIXES:
            return True
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return True  # reported when it is read
    return head[128:] == b"DICM" or head.startswith(_SIGNATURES)


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

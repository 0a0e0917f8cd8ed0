"""Bundle + backend -> predictions, for one film or for many files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.runtime.backend import open_backend
from edgecxr.runtime.bundle import Bundle
from edgecxr.runtime.preprocess import SIZES, model_input
from edgecxr.runtime.read import read_radiograph
from edgecxr.runtime.types import ABNORMAL, FloatArray, ModelCard, Outputs, Prediction, Radiograph, Rejection

PHANTOM_WARNING = "model learnt from synthetic phantom films only"

SUFFIXES = frozenset({".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})
"""Endings that a folder's files are taken by; other files are taken if their first bytes are those of such a format."""

_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*")


class Predictor:
    """A model that is ready to look at films.

    Args:
        bundle: an open bundle, or the path of one.
        backend: a key of `edgecxr.registry.BACKENDS`.
        operating_point: the rule on the card that turns probabilities into decisions.
        precision: which of the bundle's model files to run: "fp32", "fp16" or "int8".
        threads: how many threads compute; None leaves it to the backend.

    Raises:
        UsageError: the backend is unknown, or the card has operating points but not this one.
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
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        if self.card.size not in SIZES:
            raise ModelError(
                f"the card in {self.bundle.path} has size {self.card.size}, not one of {SIZES}: export again"
            )
        self._thresholds, self._warnings = _thresholds(self.card, operating_point, self.bundle.path)
        if self.card.phantom:
            self._warnings += (PHANTOM_WARNING,)
        self._temperatures = _temperatures(self.card, self.bundle.path)
        options = {} if threads is None else {"threads": threads}
        self._backend = open_backend(backend, self.bundle.artefact(precision), **options)

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.bundle.card

    def predict(self, source: Path | str | Radiograph | NDArray[np.floating]) -> Prediction:
        """Look at one film.

        Args:
            source: a path, a film that has been read, or its pixels (H, W) in [0, 1] with black air.

        Raises:
            InputError: the file or array is not a film that can be used.
            ModelError: the model failed, or does not fit its card.
        """
        if isinstance(source, (str, Path)):
            film, read_ms = self._read(Path(source))
            return self._look(film, {"read": read_ms})
        return self._look(source if isinstance(source, Radiograph) else _from_array(source), {})

    def predict_with_film(self, path: Path) -> tuple[Prediction, Radiograph]:
        """Look at one file and return the film too, for who draws on it; raises as `predict` does."""
        film, read_ms = self._read(path)
        return self._look(film, {"read": read_ms}), film

    def close(self) -> None:
        """Free the model."""
        self._backend.close()

    def __enter__(self) -> Predictor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read(self, path: Path) -> tuple[Radiograph, float]:
        if os.path.isdir(path):
            raise InputError(
                f"{path} is a folder in which no DICOM file or image can be found: give one that holds films",
                "not-found",
            )
        start = time.perf_counter()
        film = read_radiograph(path)
        return film, _ms_since(start)

    def _look(self, film: Radiograph, timings: dict[str, float]) -> Prediction:
        start = time.perf_counter()
        image = model_input(film, self.card.size)
        timings = timings | {"preprocess": _ms_since(start)}
        start = time.perf_counter()
        outputs = self._backend.run(image)
        timings["model"] = _ms_since(start)
        probabilities = self._probabilities(outputs)
        return Prediction(
            findings={label: probabilities[label] for label in self.card.labels},
            abnormal=probabilities[ABNORMAL],
            decisions={name: p >= self._thresholds[name] for name, p in probabilities.items()},
            attention=outputs.attention[0],
            model=self.card.name,
            source=film.source,
            timings_ms=timings,
            warnings=(*film.warnings, *self._warnings),
        )

    def _probabilities(self, outputs: Outputs) -> dict[str, float]:
        names = (*self.card.labels, ABNORMAL)
        logits = np.append(outputs.findings[0], outputs.abnormal[0]).astype(np.float64)
        if len(logits) != len(names):
            raise ModelError(
                f"the model in {self.bundle.path} gives {len(logits) - 1} findings and its card names "
                f"{len(names) - 1}: export it again"
            )
        if not (np.isfinite(logits).all() and np.isfinite(outputs.attention).all()):
            raise ModelError(
                f"the model in {self.bundle.path} gives values that are not numbers: "
                "use its fp32 file, or export it again"
            )
        # As a tanh, the sigmoid overflows for no logit.
        values = 0.5 * (1 + np.tanh(0.5 * logits / self._temperatures))
        return dict(zip(names, values.tolist(), strict=True))


def predict_files(
    predictor: Predictor, paths: Iterable[Path], on_film: Callable[[Radiograph, Prediction], None] | None = None
) -> Iterator[Prediction | Rejection]:
    """Look at files one after the other; a bad one gives a `Rejection` and never stops the rest.

    Args:
        predictor: the model.
        paths: what `find_inputs` returned.
        on_film: called with each film that got a prediction, before that is yielded; for overlays.

    Raises:
        ModelError: the model failed; what follows would be no better.
    """
    for path in paths:
        try:
            prediction, film = predictor.predict_with_film(path)
        except InputError as error:
            yield Rejection(str(path), error.reason, str(error))
            continue
        if on_film is not None:
            on_film(film, prediction)
        yield prediction


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


def _from_array(pixels: NDArray[np.floating]) -> Radiograph:
    usable = pixels.ndim == 2 and pixels.size > 0 and np.issubdtype(pixels.dtype, np.floating)
    # NaN fails both comparisons.
    if not usable or not (pixels.min() >= 0 and pixels.max() <= 1):
        raise InputError(
            f"an array of pixels must be (H, W) floats in [0, 1], not {pixels.dtype} of shape {pixels.shape}: "
            "scale it first",
            "unsupported",
        )
    return Radiograph(pixels.astype(np.float32), source="array")


def _thresholds(card: ModelCard, rule: str, source: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return name -> threshold, and a warning where the card has none."""
    names = (*card.labels, ABNORMAL)
    if card.operating_points and rule not in card.operating_points:
        raise UsageError(f"{source} has no operating point {rule!r} (there are: {', '.join(card.operating_points)})")
    points = card.operating_points.get(rule, {})
    absent = [name for name in names if name not in points]
    thresholds = {name: float(points.get(name, 0.5)) for name in names}
    if not absent:
        return thresholds, ()
    what = "any label" if len(absent) == len(names) else ", ".join(absent)
    return thresholds, (f"the model's card has no operating point for {what}: decided at 0.5",)


def _temperatures(card: ModelCard, source: Path) -> FloatArray:
    """Return (L + 1,) divisors of the logits, "abnormal" last."""
    values = np.array([card.temperature.get(name, 1.0) for name in (*card.labels, ABNORMAL)])
    if not (values > 0).all():
        raise ModelError(f"the card in {source} has a temperature that is not above 0: export the model again")
    return values


def _ms_since(start: float) -> float:
    return (time.perf_counter() - start) * 1000

"""Write results as DICOM files for a PACS.

Each film gets a structured report and a picture, which belong to its study.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgecxr.films.header import FILE_SHA256, FILE_TIME
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.dicom.objects import PICTURE, Origin, dicom_objects, header_kind
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.predictor import Predictor
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import printable

_REMEDY = "give another folder with --dicom"

# DICOM's dates have years of four digits; a file with a clock gone wrong gets the nearest of these.
_FIRST, _LAST = (int(datetime(year, 1, 2, tzinfo=timezone.utc).timestamp()) for year in (1900, 9999))


@dataclass(frozen=True)
class DicomOutcome:
    """What became of a film's DICOM results.

    Attributes:
        message: one line for people.
        reason: why a file is lacking, one of `edgecxr.vocabulary.WITHOUT_RESULT`; None if both are there.
        files: "kind", "path" and "SOPInstanceUID" of each file.
    """

    message: str
    reason: str | None = None
    files: tuple[dict[str, str], ...] = ()


class DicomResults:
    """Writer of a structured report and a picture for each film.

    They are a Comprehensive 3D SR and a Secondary Capture image.

    Args:
        folder: for the files.
        predictor: the model of the predictions.
        patient: whether results say who the patient is, in the attributes that DICOM requires.

    Attributes:
        patient: the same.
    """

    def __init__(self, folder: Path, predictor: Predictor, patient: bool = True) -> None:
        self._folder = folder
        self.patient = patient
        self._origin = Origin.of(predictor)
        self._written: dict[str, tuple[str, str]] = {}

    @property
    def header(self) -> str:
        """The kind of header that results need, of `edgecxr.films.header.HEADERS`."""
        return header_kind(self.patient)

    def write(self, film: FilmRead, prediction: Prediction) -> DicomOutcome:
        """Write a film's two files, as far as possible.

        They are dated by the last change of the film's file.

        Raises:
            UsageError: the files cannot be written.
        """
        header = film.header or {}
        seconds = min(max(int(header.get(FILE_TIME) or 0), _FIRST), _LAST)
        changed = datetime.fromtimestamp(seconds, timezone.utc)
        results = dicom_objects(film, prediction, self._origin, changed, self.patient)
        none_of, keywords = f"no DICOM result of {printable(film.source)}", ", ".join(results.keywords)
        if results.reason == "no-identifiers":
            return DicomOutcome(f"{none_of}: it has no usable {keywords}", results.reason)
        if results.reason == "no-patient-id":
            return DicomOutcome(f"{none_of}: its {keywords} cannot be repeated", results.reason)
        notes = [f"not repeated: {keywords}"] if keywords else []
        name, digest = header["SOPInstanceUID"], header[FILE_SHA256]
        earlier, other = self._written.setdefault(name, (film.source, digest))
        if other != digest:
            notes.append(f"{printable(earlier)} has the same SOPInstanceUID and another content")
        if results.reason == "may-show-names":
            notes.append("no picture: the film does not say that its pixels show no names")
        notes += [f"no {'picture' if kind == PICTURE else 'report'}: {cause}" for kind, cause in results.causes]
        if not results.objects:
            return DicomOutcome(f"{none_of}: {'; '.join(notes)}", results.reason)
        files = []
        for result in results.objects:
            target = self._folder / f"{result.kind}-{result.uid}.dcm"
            atomic_write(target, result.content, _REMEDY)
            files.append({"kind": result.kind, "path": str(target), "SOPInstanceUID": result.uid})
        note = f" ({'; '.join(notes)})" if notes else ""
        message = f"dicom: {', '.join(printable(file['path']) for file in files)}{note}"
        return DicomOutcome(message, results.reason, tuple(files))

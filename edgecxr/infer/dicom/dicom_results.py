"""Results as DICOM files for a PACS: a structured report and a picture for each film, beside it in its study."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
from highdicom.sr import AlgorithmIdentification
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from edgecxr import NOTICE, __version__
from edgecxr.bundle.bundle import sha256_of
from edgecxr.bundle.gate import warnings_of
from edgecxr.errors import brief
from edgecxr.films.header import PATIENT, REQUIRED
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.dicom.structured_report import SERIES_NUMBER, document, report
from edgecxr.infer.overlay import overlay, research_band
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.predictor import Predictor
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import printable

_DESCRIPTION = "edgecxr AI result, research use only, not for diagnosis"
_REMEDY = "give another folder with --dicom"


class DicomResults:
    """Writes a Comprehensive 3D SR and a Secondary Capture image for each film.

    Args:
        folder: for the files.
        predictor: that the predictions are of.
        patient: whether results say who the patient is, as far as DICOM wants them to.
    """

    def __init__(self, folder: Path, predictor: Predictor, patient: bool = True) -> None:
        self._folder = folder
        self._patient = patient
        self._of_model = predictor.warnings
        self._sha256 = sha256_of(predictor.bundle.artefact(predictor.precision))
        self._temperature = predictor.card.temperature
        self._written: dict[str, str] = {}

    @property
    def header(self) -> str:
        """What results need to know of a film: a key of `edgecxr.films.header.HEADERS`."""
        return "patient" if self._patient else "identifiers"

    def write(self, film: FilmRead, prediction: Prediction) -> str:
        """Write the two files of a film, and return one line that says so or why there are none.

        Raises:
            UsageError: they cannot be written.
        """
        header = film.header or {}
        lacking = [keyword for keyword in REQUIRED if not header.get(keyword)]
        if lacking:
            return f"no DICOM result of {printable(film.source)}: it has no usable {', '.join(lacking)}"
        name = header["SOPInstanceUID"]
        other = self._written.get(name, film.source)
        if other != film.source:
            return f"no DICOM result of {printable(film.source)}: {printable(other)} has the same SOPInstanceUID"
        if not self._patient:
            # What the reader says of a film may quote it; that the gate was overruled names reasons only.
            forced = warnings_of(prediction.gate)[:1] if prediction.gate.verdict == "forced" else ()
            prediction = replace(prediction, warnings=(*forced, *self._of_model))
        targets: list[tuple[Path, bytes]] = []
        # A patient's name that is part of the film itself cannot be left out of its picture.
        named = not self._patient and header["BurnedInAnnotation"] != "NO"
        for kind, made in (("sr", self._report), ("sc", self._picture)):
            if kind == "sc" and named:
                continue
            uids = self._uid(name, prediction, f"{kind} series"), self._uid(name, prediction, kind)
            try:
                content = _file_of(made, film, prediction, uids)
            except Exception as error:  # highdicom does not know every class of images
                return f"no DICOM result of {printable(film.source)}: {type(error).__name__}, {brief(error)}"
            targets.append((self._folder / f"{kind}-{uids[1]}.dcm", content))
        # Only now, so that a fault in the second leaves no first.
        for target, content in targets:
            atomic_write(target, content, _REMEDY)
        self._written[name] = film.source
        without = " (no picture: the film does not say that its pixels show no names)" if named else ""
        return f"dicom: {', '.join(printable(str(target)) for target, _ in targets)}{without}"

    def _uid(self, film: str, prediction: Prediction, kind: str) -> UID:
        """Return a UID that the same film and the same way to its result always get: a second run makes that object.

        Whatever changes what an object says is part of it: one UID must not stand for two contents.
        """
        point = json.dumps([prediction.operating_point, prediction.thresholds, self._temperature], sort_keys=True)
        gate = ",".join([prediction.gate.verdict, *(each.reason for each in prediction.gate.objections)])
        parts = ("edgecxr result", __version__, film, self._sha256, point, gate, str(self._patient), kind)
        return _uid_of(*parts)

    def _report(self, source: Dataset, film: FilmRead, prediction: Prediction, uids: tuple[UID, UID]) -> Dataset:
        point = prediction.operating_point
        algorithm = AlgorithmIdentification(
            name=_short(prediction.model) or "model",
            version=f"model sha256 {self._sha256[:16]}, edgecxr {__version__}",
            parameters=[f"operating point: {point}" if point else "no operating point: thresholds of 0.5"],
        )
        said = tuple(printable(warning) for warning in prediction.warnings)
        named = replace(prediction, model=_short(prediction.model))
        uid = partial(self._uid, source.SOPInstanceUID, prediction)
        content = report(source, named, said, algorithm, uid, _uid_of("edgecxr device", self._sha256))
        return document(source, content, uids, named.model, _DESCRIPTION)

    def _picture(self, source: Dataset, film: FilmRead, prediction: Prediction, uids: tuple[UID, UID]) -> Dataset:
        assert film.display is not None
        pixels = np.asarray(research_band(overlay(Image.fromarray(film.display), prediction)))
        now = datetime.now()
        picture = Dataset()
        picture.file_meta = FileMetaDataset()
        picture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        picture.SpecificCharacterSet = "ISO_IR 192"
        picture.StudyInstanceUID = source.StudyInstanceUID
        picture.SOPClassUID = SecondaryCaptureImageStorage
        picture.SeriesInstanceUID, picture.SOPInstanceUID = uids
        picture.SeriesNumber, picture.InstanceNumber = SERIES_NUMBER + 1, 1
        picture.SeriesDescription = _DESCRIPTION
        picture.Modality = "OT"
        picture.ConversionType = "WSD"
        picture.Manufacturer = picture.SecondaryCaptureDeviceManufacturer = "edgecxr"
        picture.ManufacturerModelName = picture.SecondaryCaptureDeviceManufacturerModelName = _short(prediction.model)
        picture.SoftwareVersions = picture.SecondaryCaptureDeviceSoftwareVersions = __version__
        picture.ImageType = ["DERIVED", "SECONDARY"]
        picture.InstanceCreationDate = picture.ContentDate = picture.DateOfSecondaryCapture = f"{now:%Y%m%d}"
        picture.InstanceCreationTime = picture.ContentTime = picture.TimeOfSecondaryCapture = f"{now:%H%M%S}"
        picture.PatientOrientation = picture.Laterality = ""  # unknown: the film may be of anything
        picture.ImageComments = NOTICE
        picture.DerivationDescription = "Film with a model's attention in colours, above a caption with its results"
        picture.SourceImageSequence = [_reference(source)]
        # Our caption names nobody; what the film itself shows, only its own file can tell.
        if film.header and film.header["BurnedInAnnotation"]:
            picture.BurnedInAnnotation = film.header["BurnedInAnnotation"]
        picture.Rows, picture.Columns, picture.SamplesPerPixel = pixels.shape
        picture.PhotometricInterpretation, picture.PlanarConfiguration = "RGB", 0
        picture.BitsAllocated, picture.BitsStored, picture.HighBit, picture.PixelRepresentation = 8, 8, 7, 0
        data = pixels.tobytes()
        picture.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
        return picture


def _uid_of(*parts: str) -> UID:
    """Return a UID that depends on nothing but `parts`."""
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _file_of(
    made: Callable[[Dataset, FilmRead, Prediction, tuple[UID, UID]], Dataset],
    film: FilmRead,
    prediction: Prediction,
    uids: tuple[UID, UID],
) -> bytes:
    """Return the DICOM file of what `made` makes, with the patient that the film's header names."""
    header = film.header or {}
    source = Dataset()
    file = io.BytesIO()
    # pydicom warns of old films' UIDs, which cannot be changed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in (*REQUIRED, *PATIENT):
            setattr(source, keyword, header[keyword] if keyword in REQUIRED else "")
        dataset = made(source, film, prediction, uids)
        # Here and not in `source`: highdicom quotes what it takes for odd names.
        for keyword in PATIENT:
            setattr(dataset, keyword, header.get(keyword, ""))
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _short(name: str) -> str:
    """Return a name as DICOM's long strings (LO) may have it."""
    return printable(name).replace("\\", "/")[:64]

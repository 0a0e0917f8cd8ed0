"""Predictions as DICOM objects in memory: a structured report and a picture.

A pure function of film, prediction, model and time: it keeps no files and remembers no earlier films, so that it may
run in any process and be repeated after a crash.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from functools import partial

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, Comprehensive3DSRStorage, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from edgecxr import NOTICE, __version__
from edgecxr.bundle.gate import warnings_of
from edgecxr.errors import brief
from edgecxr.films.header import (
    DESCRIPTIONS,
    FILE_TIME,
    FRAMES,
    ISSUERS,
    LOSSY,
    NOT_REPEATED,
    PATIENT,
    REQUIRED,
    SEQUENCES,
    STUDY_DESCRIPTION,
    WHOSE,
    ZONE,
    is_uid,
)
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.dicom.filled_report import filled_report
from edgecxr.infer.dicom.structured_report import SERIES_NUMBER, MadeBy, frame_of
from edgecxr.infer.dicom.uids import digest_of, uid_of
from edgecxr.infer.overlay import overlay, research_band
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.predictor import Predictor
from edgecxr.storage.json_values import parse_json
from edgecxr.terminal import printable

REPORT, PICTURE = "sr", "sc"
"""Kinds of objects."""

_DESCRIPTION = "edgecxr AI result, research use only, not for diagnosis"
_NOT_MADE = {REPORT: "no-report", PICTURE: "no-picture"}
_NO_CONTENT = ("source", "timings_ms", "attention")
"""Fields of a prediction that no result shows, and the map, which is digested as it lies in memory."""


@dataclass(frozen=True)
class Origin:
    """What made a prediction, as far as results depend on it.

    Attributes:
        sha256: of the model file.
        backend: what ran it.
        temperature: of the model's probabilities, as on its card.
        of_model: warnings that belong to every prediction.
        doubts: warnings about renderings. They and `of_model` quote nothing of a film.
    """

    sha256: str
    backend: str
    temperature: dict[str, float]
    of_model: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @classmethod
    def of(cls, predictor: Predictor) -> Origin:
        """Return the origin of a predictor's results."""
        return cls(
            predictor.identity.sha256,
            predictor.backend,
            predictor.card.temperature,
            predictor.warnings,
            tuple(message for _, message in predictor.doubts.values()),
        )


@dataclass(frozen=True)
class DicomObject:
    """A DICOM object as a file.

    Attributes:
        kind: `REPORT` or `PICTURE`.
        sop_class: its SOP class UID.
        uid: its SOP instance UID.
        content: the bytes of the file.
    """

    kind: str
    sop_class: str
    uid: str
    content: bytes


@dataclass(frozen=True)
class DicomObjects:
    """The objects of a film, and why some are lacking.

    Attributes:
        objects: a report and a picture, as far as they could be made.
        reason: why an object is lacking, one of `edgecxr.vocabulary.WITHOUT_RESULT`; None if both are there.
        keywords: of the film's attributes that are lacking ("no-identifiers"), that say who the patient is
            ("no-patient-id"), or else that results do not repeat.
        causes: kind of each object that could not be made -> the error, in words.
    """

    objects: tuple[DicomObject, ...] = ()
    reason: str | None = None
    keywords: tuple[str, ...] = ()
    causes: tuple[tuple[str, str], ...] = ()


def header_kind(patient: bool) -> str:
    """Return the kind of header that results need.

    Args:
        patient: whether they say who the patient is.

    Returns:
        A key of `edgecxr.films.header.HEADERS`.
    """
    return "patient" if patient else "identifiers"


def dicom_objects(
    film: FilmRead, prediction: Prediction, origin: Origin, when: datetime, patient: bool = True
) -> DicomObjects:
    """Return a film's results as DICOM objects.

    The same arguments give the same bytes under the same UIDs. Whatever changes the bytes changes the UIDs, since one
    UID must not stand for two contents. There is no picture if `patient` is false and the film does not say that its
    pixels show no names. There is no result without the identifiers that the film has, since it would be filed under
    another patient. If one object cannot be made, the other is.

    Args:
        film: the film, with a picture and a header of `header_kind`.
        prediction: of the film.
        origin: what made the prediction.
        when: the date and time of the results, such as when the film was received.
        patient: whether results say who the patient is.
    """
    header = film.header or {}
    if (without := unidentified(header)) is not None:
        return without
    lost = _not_repeated(header)
    if not patient:
        # The reader's warnings may quote the film; the warning about an overruled gate names only reasons.
        forced = warnings_of(prediction.gate)[:1] if prediction.gate.verdict == "forced" else ()
        doubts = [warning for warning in prediction.warnings if warning in origin.doubts]
        prediction = replace(prediction, warnings=(*forced, *doubts, *origin.of_model))
    when = in_zone(when, header[ZONE])
    uid = partial(_uid, _digest(film, prediction, origin, when, patient))
    objects, reasons, causes = [], [], []
    for kind, make in ((REPORT, _report), (PICTURE, _picture)):
        # A patient's name burnt into the film cannot be removed from its picture.
        if kind == PICTURE and not patient and header["BurnedInAnnotation"] != "NO":
            reasons.append("may-show-names")
            continue
        try:
            objects.append(as_file(kind, partial(make, film, prediction, origin, uid), header, uid, when))
        except Exception as error:  # of highdicom or Pillow, which know better than we what they cannot do
            reasons.append(_NOT_MADE[kind])
            causes.append((kind, f"{type(error).__name__}, {brief(error)}"))
    reason = ("not-made", *reasons)[1 if objects else 0] if reasons else None
    return DicomObjects(tuple(objects), reason, lost, tuple(causes))


def unidentified(header: dict[str, str]) -> DicomObjects | None:
    """Return that there is no result without identifiers.

    None if the film has those that a result needs.
    """
    lacking = tuple(keyword for keyword in REQUIRED if not is_uid(header.get(keyword, "")))
    if lacking:
        return DicomObjects(reason="no-identifiers", keywords=lacking)
    lost = tuple(keyword for keyword in WHOSE if keyword in _not_repeated(header))
    return DicomObjects(reason="no-patient-id", keywords=lost) if lost else None


def _not_repeated(header: dict[str, str]) -> tuple[str, ...]:
    return tuple(keyword for keyword in header[NOT_REPEATED].split() if keyword not in (*REQUIRED, *DESCRIPTIONS))


def _digest(film: FilmRead, prediction: Prediction, origin: Origin, when: datetime, patient: bool) -> str:
    """Return a digest of everything that decides the content of results."""
    header = {key: value for key, value in (film.header or {}).items() if key != FILE_TIME}
    answer = {
        field.name: getattr(prediction, field.name) for field in fields(prediction) if field.name not in _NO_CONTENT
    }
    digest = digest_of([__version__, header, when.isoformat(), origin, answer, patient])
    for pixels in (film.image, film.display, prediction.attention):
        if pixels is not None:
            digest.update(f"/{pixels.dtype}/{pixels.shape}/".encode())
            digest.update(pixels.tobytes())
    return digest.hexdigest()


def _uid(digest: str, part: str) -> UID:
    return uid_of("edgecxr result", digest, part)


def _report(
    film: FilmRead, prediction: Prediction, origin: Origin, uid: Callable[[str], UID], source: Dataset
) -> Dataset:
    point = prediction.operating_point
    parameter = f"operating point: {point}" if point else "no operating point: thresholds of 0.5"
    made_by = made_by_model(prediction.model, origin, parameter)
    comments = [*prediction.warnings, *filter(None, [prediction.doubtful])]
    return filled_report(source, prediction, tuple(printable(comment) for comment in comments), made_by, uid)


def made_by_model(model: str, origin: Origin, parameter: str) -> MadeBy:
    """Return what a report says of the model that made it."""
    return MadeBy(
        model=_short(model),
        version=f"model sha256 {origin.sha256[:16]}, edgecxr {__version__}",
        parameter=parameter,
        device=uid_of("edgecxr device", origin.sha256),
        description=_DESCRIPTION,
    )


def _picture(
    film: FilmRead, prediction: Prediction, origin: Origin, uid: Callable[[str], UID], source: Dataset
) -> Dataset:
    assert film.display is not None
    pixels = np.asarray(research_band(overlay(Image.fromarray(film.display), prediction)))
    picture = Dataset()
    picture.file_meta = FileMetaDataset()
    picture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    picture.SpecificCharacterSet = "ISO_IR 192"
    picture.StudyInstanceUID = source.StudyInstanceUID
    picture.SOPClassUID = SecondaryCaptureImageStorage
    picture.SeriesInstanceUID, picture.SOPInstanceUID = uid(f"{PICTURE} series"), uid(PICTURE)
    picture.SeriesNumber, picture.InstanceNumber = SERIES_NUMBER + 1, 1
    picture.SeriesDescription = _DESCRIPTION
    picture.Modality = "OT"
    picture.ConversionType = "WSD"
    picture.Manufacturer = picture.SecondaryCaptureDeviceManufacturer = "edgecxr"
    picture.ManufacturerModelName = picture.SecondaryCaptureDeviceManufacturerModelName = _short(prediction.model)
    picture.SoftwareVersions = picture.SecondaryCaptureDeviceSoftwareVersions = __version__
    picture.ImageType = ["DERIVED", "SECONDARY"]
    picture.PatientOrientation = picture.Laterality = ""  # unknown: the film may be of anything
    picture.ImageComments = NOTICE
    picture.DerivationDescription = "Film with a model's attention in colours, above a caption with its results"
    picture.SourceImageSequence = [_reference(source)]
    # The caption has no names; whether the pixels have some, only the film's file can tell.
    if film.header and film.header["BurnedInAnnotation"]:
        picture.BurnedInAnnotation = film.header["BurnedInAnnotation"]
    picture.Rows, picture.Columns, picture.SamplesPerPixel = pixels.shape
    picture.PhotometricInterpretation, picture.PlanarConfiguration = "RGB", 0
    picture.BitsAllocated, picture.BitsStored, picture.HighBit, picture.PixelRepresentation = 8, 8, 7, 0
    for keyword in LOSSY:
        if film.header and film.header[keyword]:
            setattr(picture, keyword, film.header[keyword])
    data = pixels.tobytes()
    picture.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))
    return picture


def as_file(
    kind: str, make: Callable[[Dataset], Dataset], header: dict[str, str], uid: Callable[[str], UID], when: datetime
) -> DicomObject:
    """Return an object of a film as a file, with its patient.

    Args:
        kind: `REPORT` or `PICTURE`.
        make: returns the object, given the film's identifiers.
        header: of the film; the patient is that of it.
        uid: returns the UID of a named part of the object.
        when: date and time of the object, in the film's zone.
    """
    source = Dataset()
    file = io.BytesIO()
    # pydicom warns of invalid UIDs of old films, which cannot be changed.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in (*REQUIRED, *PATIENT):
            setattr(source, keyword, header[keyword] if keyword in REQUIRED else "")
        if header.get(FRAMES):
            source.NumberOfFrames = header[FRAMES]
        dataset = make(source)
        # Set here and not in `source`, since highdicom's messages quote names that it finds odd.
        for keyword in PATIENT:
            setattr(dataset, keyword, header.get(keyword, ""))
        for keyword in (*ISSUERS, ZONE, STUDY_DESCRIPTION):
            if header.get(keyword):
                setattr(dataset, keyword, header[keyword])
        for keyword in SEQUENCES:
            if header.get(keyword):
                setattr(dataset, keyword, [Dataset.from_json(item) for item in parse_json(header[keyword])])
        _date(dataset, when)
        dataset.save_as(file, enforce_file_format=True)
    sop_class = Comprehensive3DSRStorage if kind == REPORT else SecondaryCaptureImageStorage
    return DicomObject(kind, str(sop_class), str(uid(kind)), file.getvalue())


def in_zone(when: datetime, zone: str) -> datetime:
    """Return a time in the film's time zone, if stated.

    Else it is in this machine's.
    """
    if not zone:
        return when.astimezone()
    offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:]))
    return when.astimezone(timezone(-offset if zone[0] == "-" else offset))


def _date(dataset: Dataset, when: datetime) -> None:
    """Set an object's dates and times, the same in every run."""
    for equipment in dataset.get("ContributingEquipmentSequence", []):
        equipment.ContributionDateTime = f"{when:%Y%m%d%H%M%S}"
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{event}Date", f"{when:%Y%m%d}")
        setattr(dataset, f"{event}Time", f"{when:%H%M%S}")
    if dataset.SOPClassUID == SecondaryCaptureImageStorage:
        dataset.DateOfSecondaryCapture, dataset.TimeOfSecondaryCapture = f"{when:%Y%m%d}", f"{when:%H%M%S}"


def _reference(source: Dataset) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    if (frame := frame_of(source)) is not None:
        item.ReferencedFrameNumber = frame
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
    purpose.CodeMeaning = "Source image for image processing operation"
    item.PurposeOfReferenceCodeSequence = [purpose]
    return item


def _short(name: str) -> str:
    """Return a name that is valid as a DICOM long string (LO)."""
    return printable(name).replace("\\", "/")[:64]

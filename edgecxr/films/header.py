"""Attributes of a DICOM file that its results repeat.

They are repeated as they stand in the file, since the PACS knows the study by them; a value that cannot be repeated is
named. `read_header` runs in the process that reads the film, and `checked_header` where its answer is used.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.films.read import is_dicom
from edgecxr.storage.reading import open_file

if TYPE_CHECKING:
    from pydicom import Dataset

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
"""Attributes that a result needs to refer to its film and to belong to its study."""

PATIENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""Attributes that every object must have, possibly empty: type 2 of the modules Patient and General Study."""

ISSUERS = ("IssuerOfPatientID", "TypeOfPatientID")
"""Attributes that belong to the PatientID."""

SEQUENCES = ("IssuerOfPatientIDQualifiersSequence", "IssuerOfAccessionNumberSequence")
"""Sequences that say who gave an identifier; their items are repeated as DICOM JSON (PS3.18 F)."""

WHOSE = ("PatientID", ISSUERS[0], SEQUENCES[0])
"""Attributes that say who the patient is: a result without one that its film has would be another patient's."""

LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
"""Attributes that say whether and how pixels were compressed with loss."""

ZONE = "TimezoneOffsetFromUTC"

STUDY_DESCRIPTION = "StudyDescription"

DESCRIPTIONS = ("Modality", "SeriesDescription")
"""Attributes that tell people which film it is, and that results do not repeat."""

NOT_REPEATED, FILE_SHA256, FILE_TIME = "NotRepeated", "FileSHA256", "FileTime"
"""Keys that are not DICOM's: keywords of values that cannot be repeated, separated by blanks; the file's digest; the
second of its last change."""

FRAMES = "NumberOfFrames"

_IDENTIFIERS = (*REQUIRED, FRAMES, "BurnedInAnnotation", *LOSSY, ZONE)
_OF_FILE = (NOT_REPEATED, FILE_SHA256, FILE_TIME)

HEADERS = {
    "uids": (*REQUIRED, NOT_REPEATED),
    "identifiers": (*_IDENTIFIERS, *_OF_FILE),
    "patient": (*_IDENTIFIERS, *PATIENT, *ISSUERS, *SEQUENCES, STUDY_DESCRIPTION, *DESCRIPTIONS, *_OF_FILE),
}
"""Kind of header -> its keys; only "patient" says who the patient is."""

_UID = re.compile(r"(?=.{3,64}\Z)[0-9]+(\.[0-9]+)+")
_LONGEST = 1024
_NUMBER = r"[+-]?[0-9]{1,10}(\.[0-9]{0,10})?([Ee][+-]?[0-9]{1,2})?"
_FORMS = {
    "LossyImageCompressionRatio": re.compile(rf"{_NUMBER}(\\ ?{_NUMBER})*"),
    ZONE: re.compile("[+-](0[0-9]|1[0-4])[0-5][0-9]"),
    FRAMES: re.compile("[0-9]{1,9}"),
}
"""Values that mean nothing in another form."""

_LATIN_1 = "ISO 2022 IR 100"
_NO_EXTENSION = ("", "ISO_IR 6", "ISO 2022 IR 6")
_ACR_NEMA_DATE = re.compile(r"([0-9]{4})\.([0-9]{2})\.([0-9]{2})")
_ACR_NEMA_TIME = re.compile(r"([0-9]{2}):([0-9]{2}):([0-9]{2})")


def read_header(path: Path, kind: str) -> dict[str, str]:
    """Return a file's attributes of a kind in `HEADERS`.

    Several values of an attribute are separated by backslashes, as in the file. Missing attributes are empty, and so
    are all attributes of a file that is not DICOM.

    Args:
        path: of a file that `read_film` has read.
        kind: a key of `HEADERS`.
    """
    values = dict.fromkeys(HEADERS[kind], "")
    with open_file(path) as file:
        if not is_dicom(file.read(512)):
            return values
    from edgecxr.films.elements import read_elements

    if FILE_SHA256 in values:
        digest = hashlib.sha256()
        with open_file(path) as file:
            while part := file.read(1 << 20):
                digest.update(part)
        values[FILE_SHA256], values[FILE_TIME] = digest.hexdigest(), str(int(path.stat().st_mtime))
    lost = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keywords = [keyword for keyword in values if keyword not in _OF_FILE]
        dataset, _ = read_elements(path, [*keywords, "SpecificCharacterSet"])
        for keyword in keywords:
            try:
                text = _text(dataset, keyword)
            except MemoryError:
                raise
            except Exception:  # a malformed element may raise nearly anything
                text = None
            if text is None:
                lost.append(keyword)
            values[keyword] = text or ""
    if LOSSY[0] in values and values[LOSSY[0]] != "01" and (method := _method(path)) is not None:
        values |= dict.fromkeys(LOSSY, "") | {LOSSY[0]: "01", "LossyImageCompressionMethod": method}
    values[NOT_REPEATED] = " ".join(lost)
    return values


def _method(path: Path) -> str | None:
    """Return by which method pixels lost something, as `lossy_method` does.

    None also of a malformed file.
    """
    from edgecxr.films.lossy import lossy_method

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return lossy_method(path)
        except MemoryError:
            raise
        except Exception:  # a malformed file may raise nearly anything
            return None


def checked_header(header: object, kind: str) -> dict[str, str]:
    """Return the header that another process sent.

    Raises:
        ValueError: it is no header of that kind.
    """
    if not isinstance(header, dict) or set(header) != set(HEADERS[kind]):
        raise ValueError("no header")
    if not all(type(value) is str and len(value) <= _LONGEST and _clean(value) for value in header.values()):
        raise ValueError("no header")
    return {str(key): str(value) for key, value in header.items()}


def is_uid(text: str) -> bool:
    """Return whether DICOM allows a UID (PS3.5 9)."""
    return _UID.fullmatch(text) is not None


def _text(dataset: Dataset, keyword: str) -> str | None:
    """Return an element's text, or None if it cannot be repeated."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    tag = tag_for_keyword(keyword)
    assert tag is not None
    if tag not in dataset:
        return ""
    if keyword in SEQUENCES:
        return _items(dataset, keyword)
    value: Any = dataset.get_item(tag).value
    if not isinstance(value, bytes):
        text = "\\".join(map(str, value)) if isinstance(value, list) else str(value or "")
    else:
        decoded = _decoded(value, dataset, dictionary_VR(tag))
        if decoded is None:
            return None
        text = decoded
    text = text.strip(" \0")
    if text and keyword in _FORMS and not _FORMS[keyword].fullmatch(text):
        return None
    for pattern in (_ACR_NEMA_DATE, _ACR_NEMA_TIME):  # PS3.5 6.2: old files have these for the same dates and times
        if dictionary_VR(tag) in ("DA", "TM"):
            text = pattern.sub(lambda match: "".join(match.groups()), text)
    return text if len(text) <= _LONGEST and _clean(text) else None


def _items(dataset: Dataset, keyword: str) -> str | None:
    """Return a sequence's items as DICOM JSON, or None.

    Only ASCII is repeated, since pydicom guesses where a character set is not declared.
    """
    items = [item.to_json_dict() for item in dataset[keyword].value]
    text = json.dumps(items, sort_keys=True, ensure_ascii=False) if any(items) else ""
    return text if len(text) <= _LONGEST and text.isascii() and "\\u00" not in text else None


def _decoded(value: bytes, dataset: Dataset, vr: str) -> str | None:
    """Return bytes as text by the file's declared character set, or None."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    from pydicom.charset import convert_encodings, decode_bytes, python_encoding
    from pydicom.valuerep import PN_DELIMS, TEXT_VR_DELIMS

    declared = dataset.get("SpecificCharacterSet")
    if not declared or vr not in ("LO", "SH", "PN"):
        return None
    terms = [declared] if isinstance(declared, str) else [str(term) for term in declared]
    # pydicom would take Latin-1 for a character set that it does not know, or that has no such bytes.
    if set(terms) <= set(_NO_EXTENSION) or not set(terms) <= set(python_encoding):
        return None
    text = decode_bytes(value, convert_encodings(declared), set(PN_DELIMS if vr == "PN" else TEXT_VR_DELIMS))
    latin = any("\x80" <= character <= "\xff" for character in text)
    return None if "\ufffd" in text or (latin and terms[0] in _NO_EXTENSION and _LATIN_1 not in terms) else text


def _clean(text: str) -> bool:
    """Return whether text can be written as UTF-8.

    It has no control characters but tabs and line breaks.
    """
    return not any(
        character in "\0\x1b" or "\x7f" <= character <= "\x9f" or unicodedata.category(character) == "Cs"
        for character in text
    )

"""The few attributes of a DICOM file that its results repeat, as plain strings that are checked on arrival.

`read_header` runs where films are read, in a process that can be killed; `checked_header` where its answer is used.
"""

from __future__ import annotations

import re
import warnings
from datetime import datetime
from pathlib import Path

from edgecxr.films.read import is_dicom

# What a DICOM string may not hold, and what cannot be written as UTF-8.
_CONTROL = r"\\\x00-\x1f\x7f\ud800-\udfff"
_TEXT = rf"[^{_CONTROL}]"
_UID = r"(?=.{3,64}\Z)[0-9]+(\.[0-9]+)+"
_NAME = rf"[^={_CONTROL}]{{0,64}}(=[^={_CONTROL}]{{0,64}}){{0,2}}"  # alphabetic, ideographic, phonetic
_DATE = r"[0-9]{8}"
_TIME = r"([01][0-9]|2[0-3])([0-5][0-9]([0-5][0-9](\.[0-9]{1,6})?)?)?"

REQUIRED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
"""Without these a result cannot name its film, nor lie in its study."""

_IDENTIFIERS = dict.fromkeys(REQUIRED, _UID) | {"BurnedInAnnotation": "YES|NO"}
_PATIENT = {
    "PatientName": _NAME,
    "PatientID": rf"{_TEXT}{{0,64}}",
    "PatientBirthDate": _DATE,
    "PatientSex": "[MFO]",
    "StudyDate": _DATE,
    "StudyTime": _TIME,
    "StudyID": rf"{_TEXT}{{0,16}}",
    "AccessionNumber": rf"{_TEXT}{{0,16}}",
    "ReferringPhysicianName": _NAME,
}

PATIENT = tuple(_PATIENT)
"""What every object of a study must have, if only empty: type 2 of the modules Patient and General Study."""

HEADERS = {"identifiers": _IDENTIFIERS, "patient": _IDENTIFIERS | _PATIENT}
"""What can be asked for -> keyword -> what its value must match: without and with who the patient is."""


def read_header(path: Path, kind: str) -> dict[str, str]:
    """Return a file's attributes of a kind in `HEADERS`; those that it lacks are empty, all of a file that is no DICOM.

    Args:
        path: of a file that `read_film` has read.
        kind: a key of `HEADERS`.
    """
    values = dict.fromkeys(HEADERS[kind], "")
    with path.open("rb") as file:
        if not is_dicom(file.read(512)):
            return values
    from pydicom import dcmread
    from pydicom.multival import MultiValue

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(values))
        for keyword in values:
            try:
                value = dataset.get(keyword)
                first = value[0] if isinstance(value, MultiValue) and value else value
                values[keyword] = "" if first is None else str(first).strip()
            except MemoryError:
                raise
            except Exception:  # one malformed element, which may raise nearly anything, is as good as none
                values[keyword] = ""
    return values


def checked_header(said: object, kind: str) -> dict[str, str]:
    """Return the header that another process sent, with empty values in place of those that DICOM does not allow.

    Raises:
        ValueError: it is no header of that kind.
    """
    forms = HEADERS[kind]
    if not isinstance(said, dict) or set(said) != set(forms) or not all(type(value) is str for value in said.values()):
        raise ValueError("no header")
    return {keyword: value if _fits(forms[keyword], value) else "" for keyword, value in said.items()}


def _fits(form: str, value: str) -> bool:
    if not re.fullmatch(form, value):
        return False
    if form == _DATE:
        try:
            datetime.strptime(value, "%Y%m%d")
        except ValueError:  # 31 February
            return False
    return True

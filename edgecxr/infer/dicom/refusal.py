"""A report that says why a film was not analysed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial

from pydicom import Dataset
from pydicom.uid import UID

from edgecxr import __version__
from edgecxr.errors import REASONS, brief
from edgecxr.films.header import FILE_TIME, ZONE
from edgecxr.infer.dicom.objects import (
    REPORT,
    DicomObjects,
    Origin,
    as_file,
    in_zone,
    made_by_model,
    unidentified,
)
from edgecxr.infer.dicom.structured_report import MadeBy, document, refusal_report
from edgecxr.infer.dicom.uids import digest_of, uid_of
from edgecxr.infer.prediction import Rejection


def refusal_objects(
    header: dict[str, str] | None, result: Rejection, model: str, origin: Origin, when: datetime, patient: bool = True
) -> DicomObjects:
    """Return a structured report of a film that got no prediction.

    The same arguments give the same bytes under the same UID.

    Args:
        header: of the film, of `edgecxr.infer.dicom.objects.header_kind`; None of a file that has none.
        result: why there is no prediction.
        model: name of the model that would have been asked.
        origin: of that model.
        when: the date and time of the report.
        patient: whether it says who the patient is, and quotes the film.
    """
    header = header or {}
    if (without := unidentified(header)) is not None:
        return without
    words = REASONS.get(result.reason, result.reason)
    quoted = [objection.message for objection in result.gate.objections] if result.gate and patient else []
    comments = tuple(brief(text, 400) for text in (f"Not analysed: {words}", *quoted))
    when = in_zone(when, header[ZONE])
    identifiers = {key: value for key, value in header.items() if key != FILE_TIME}
    digest = digest_of(
        [__version__, "not analysed", model, identifiers, when.isoformat(), origin, result.reason, comments, patient]
    )
    uid = partial(_uid, digest.hexdigest())
    made_by = made_by_model(model, origin, "none: the film was not analysed")
    make = partial(_report, result.reason, comments, made_by, uid)
    try:
        return DicomObjects((as_file(REPORT, make, header, uid, when),))
    except Exception as error:  # of highdicom, which knows better than we what it cannot do
        return DicomObjects(reason="not-made", causes=((REPORT, f"{type(error).__name__}, {brief(error)}"),))


def _uid(digest: str, part: str) -> UID:
    return uid_of("edgecxr refusal", digest, part)


def _report(
    reason: str, comments: tuple[str, ...], made_by: MadeBy, uid: Callable[[str], UID], source: Dataset
) -> Dataset:
    content = refusal_report(source, reason, comments, made_by, uid)
    return document(source, content, made_by, (uid("sr series"), uid(REPORT)))

"""Write a prediction as a DICOM Comprehensive 3D SR.

The template is TID 1500, Measurement Report.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr.enum import RelationshipTypeValues
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation

from edgecxr import NOTICE, __version__
from edgecxr.infer.dicom import codes as our_codes
from edgecxr.infer.dicom.codes import Code
from edgecxr.infer.prediction import Prediction
from edgecxr.vocabulary import ABNORMAL

STAND_IN = DigitalXRayImageStorageForPresentation
"""Class of a film while its report is made, since highdicom knows only DICOM's own classes."""

SERIES_NUMBER = 9901
"""Series number of reports; viewers that sort by number show them after the films."""


class MadeBy(NamedTuple):
    """What made a prediction, as a report says it.

    Attributes:
        model: its name, a valid DICOM long string; may be empty.
        version: of model and software.
        parameter: of the model, in words.
        device: the UID of the model as an observer, the same in all its reports.
        description: of the series of its reports.
    """

    model: str
    version: str
    parameter: str
    device: str
    description: str


def report(
    film: Dataset,
    prediction: Prediction,
    comments: tuple[str, ...],
    made_by: MadeBy,
    uid: Callable[[str], str],
) -> MeasurementReport:
    """Return the content of a report.

    The whole film comes first, then each finding in the order of the model's card.

    Args:
        film: the film of the prediction, with SOPInstanceUID.
        prediction: what is reported.
        comments: texts after the research notice and before everything else.
        made_by: what made the prediction.
        uid: returns the UID of a named part of this report, always the same for a name.
    """
    algorithm = AlgorithmIdentification(made_by.model or "model", made_by.version, parameters=[made_by.parameter])
    source = _source(film)
    whole = our_codes.ABNORMAL if prediction.decisions[ABNORMAL] else our_codes.NORMAL
    rows = [(ABNORMAL, our_codes.ABNORMAL_FILM, prediction.abnormal, [(our_codes.NORMALITY, whole)])]
    rows += [(label, our_codes.finding(label), p, []) for label, p in prediction.findings.items()]
    groups = []
    for label, code, probability, evaluations in rows:
        decision = our_codes.POSITIVE if prediction.decisions[label] else our_codes.NEGATIVE
        groups.append(
            MeasurementsAndQualitativeEvaluations(
                tracking_identifier=TrackingIdentifier(uid(f"finding {label}"), code.meaning),
                finding_type=_concept(code),
                algorithm_id=algorithm,
                measurements=[
                    _number(our_codes.PROBABILITY, probability),
                    _number(our_codes.THRESHOLD, prediction.thresholds[label]),
                ],
                qualitative_evaluations=[
                    QualitativeEvaluation(_concept(name), _concept(value))
                    for name, value in [(our_codes.DECISION, decision), *evaluations]
                ],
                source_images=[source],
            )
        )
    return _content(groups, made_by, comments)


def _content(
    groups: list[MeasurementsAndQualitativeEvaluations], made_by: MadeBy, comments: tuple[str, ...]
) -> MeasurementReport:
    observer = DeviceObserverIdentifyingAttributes(
        uid=made_by.device, name="edgecxr", manufacturer_name="edgecxr", model_name=made_by.model
    )
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(codes.DCM.Device, observer),
        ),
        procedure_reported=_concept(our_codes.CHEST_FILM),
        imaging_measurements=groups,
        title=codes.DCM.ImagingMeasurementReport,
        referenced_images=None,
    )
    _say(content, (NOTICE, *comments))
    return content


def refusal_report(
    film: Dataset, reason: str, comments: tuple[str, ...], made_by: MadeBy, uid: Callable[[str], str]
) -> MeasurementReport:
    """Return the content of a report without a prediction.

    Args:
        film: the film, with SOPInstanceUID.
        reason: one of `edgecxr.errors.REASONS`.
        comments: texts after the research notice.
        made_by: what would have made a prediction.
        uid: returns the UID of a named part of this report, always the same for a name.
    """
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid("film"), our_codes.ANALYSIS.meaning),
        finding_type=_concept(our_codes.ANALYSIS),
        algorithm_id=AlgorithmIdentification(made_by.model or "model", made_by.version, parameters=[made_by.parameter]),
        qualitative_evaluations=[
            QualitativeEvaluation(_concept(our_codes.ANALYSIS), _concept(our_codes.NOT_ANALYSED)),
            QualitativeEvaluation(_concept(our_codes.REASON), _concept(our_codes.reason(reason))),
        ],
        source_images=[_source(film)],
    )
    return _content([group], made_by, comments)


def document(film: Dataset, content: MeasurementReport, made_by: MadeBy, uids: tuple[str, str]) -> Comprehensive3DSR:
    """Return the DICOM object of a report.

    It is a series of its own in the study of its film. The film may be of any class, also a vendor's own.

    Args:
        film: what `report` was given, also with its study, its series and its patient.
        content: what `report` returned.
        made_by: what `report` was given.
        uids: of the series and of the object.
    """
    evidence = copy.deepcopy(film)
    evidence.SOPClassUID = STAND_IN
    document = Comprehensive3DSR(
        evidence=[evidence],
        content=content[0],
        series_instance_uid=uids[0],
        series_number=SERIES_NUMBER,
        sop_instance_uid=uids[1],
        instance_number=1,
        manufacturer="edgecxr",
        manufacturer_model_name=made_by.model,
        software_versions=__version__,
        series_description=made_by.description,
        # The report has all its content, but nobody has verified it.
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator = our_codes.PRIVATE
    scheme.CodingSchemeName = "edgecxr private codes"
    scheme.CodingSchemeResponsibleOrganization = "edgecxr"
    document.CodingSchemeIdentificationSequence = [scheme]
    document.SpecificCharacterSet = "ISO_IR 192"
    for element in document.iterall():
        if element.keyword == "ReferencedSOPClassUID" and element.value == STAND_IN:
            element.value = UID(film.SOPClassUID)
    return document


def frame_of(film: Dataset) -> int | None:
    """Return the number of the frame that was predicted, counted from 1.

    Only the first is. None if the film has a single frame: a reference then names none (PS3.3 10.3).
    """
    return 1 if int(film.get("NumberOfFrames") or 1) > 1 else None


def _source(film: Dataset) -> SourceImageForMeasurementGroup:
    frame = frame_of(film)
    return SourceImageForMeasurementGroup(STAND_IN, film.SOPInstanceUID, None if frame is None else [frame])


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, code.scheme, code.meaning)


def _number(name: Code, value: float) -> Measurement:
    return Measurement(_concept(name), float(value), _concept(our_codes.NO_UNITS))


def _say(content: MeasurementReport, comments: tuple[str, ...]) -> None:
    """Insert texts before the first item that the report contains.

    The template is extensible, so it allows them.
    """
    items = content[0].ContentSequence
    first = next(n for n, item in enumerate(items) if item.RelationshipType == "CONTAINS")
    for offset, text in enumerate(comments):
        items.insert(first + offset, comment_item(text))


def comment_item(text: str) -> TextContentItem:
    """Return a text that a report contains."""
    return TextContentItem(_concept(our_codes.COMMENT), text, RelationshipTypeValues.CONTAINS)

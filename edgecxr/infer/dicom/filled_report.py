"""Fill in a structured report that highdicom made before.

Nearly all of a report is the same for all films of a model, and highdicom takes long to make it. So it makes one, with
stand-ins for what belongs to a film and its prediction, and these alone are replaced for each film. The result is, byte
for byte, what `edgecxr.infer.dicom.structured_report` returns. What stays the same is encoded once.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from pydicom import DataElement, Dataset
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element
from pydicom.sequence import Sequence
from pydicom.uid import UID
from pydicom.valuerep import DS, EXPLICIT_VR_LENGTH_32

from edgecxr.infer.dicom import codes
from edgecxr.infer.dicom.structured_report import MadeBy, comment_item, document, frame_of, report
from edgecxr.infer.dicom.uids import uid_of
from edgecxr.infer.prediction import Prediction
from edgecxr.vocabulary import ABNORMAL

SERIES, REPORT = "sr series", "sr"
"""Names of the UIDs of a report's series and of the report itself."""

_OF_FILM = ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")

_BYTES = False, True
"""Encoding of a report: not of implicit VR, but little endian."""
_CHARACTERS = convert_encodings("ISO_IR 192")
"""Its character set, UTF-8."""

# A thread of its own has a form of its own, since filling in changes it.
_kept = threading.local()


def filled_report(
    film: Dataset, prediction: Prediction, comments: tuple[str, ...], made_by: MadeBy, uid: Callable[[str], str]
) -> Dataset:
    """Return the DICOM object of a report.

    It must be saved before the next is made in the same thread.

    Args:
        film: the film of the prediction, with the UIDs of study, series, class and instance, and an empty patient.
        prediction: what is reported.
        comments: texts after the research notice and before everything else.
        made_by: what made the prediction.
        uid: returns the UID of a named part of this report, always the same for a name.
    """
    key = (made_by, tuple(prediction.findings))
    form: _Form | None = getattr(_kept, "form", None)
    if form is None or form.key != key:
        form = _kept.form = _Form.of(film, prediction, made_by)
    return form.filled(film, prediction, comments, uid)


@dataclass
class _Form:
    """A report with stand-ins.

    Attributes:
        key: what it fits: a model, and the labels of its findings.
        report: the whole report.
        references: to the film in the groups of measurements.
        uids: elements whose value is one of a film's UIDs or of its report's, and whose.
        numbers: the items of probability and threshold of each output, in turn.
        decisions: the codes of the decision on each output.
        normality: the code of the decision on the whole film.
    """

    key: tuple[MadeBy, tuple[str, ...]]
    report: Dataset
    references: list[Dataset]
    uids: list[tuple[DataElement, str]]
    numbers: list[Dataset]
    decisions: list[Dataset]
    normality: Dataset

    @classmethod
    def of(cls, film: Dataset, prediction: Prediction, made_by: MadeBy) -> _Form:
        """Let highdicom make a report, and find the stand-ins."""
        name_of: dict[str, str] = {}

        def stand_in(name: str) -> str:
            value = uid_of("edgecxr stand-in", name)
            name_of[value] = name
            return value

        blank = copy.deepcopy(film)
        for keyword in _OF_FILM:
            setattr(blank, keyword, stand_in(keyword))
        outputs = prediction.outputs
        anything = replace(prediction, decisions=dict.fromkeys(outputs, True), thresholds=dict.fromkeys(outputs, 0.5))
        content = report(blank, anything, (), made_by, stand_in)
        example = document(blank, content, made_by, (stand_in(SERIES), stand_in(REPORT)))
        uids = [(element, name_of[element.value]) for element in example.iterall() if element.VR == "UI"
                and element.value in name_of]  # fmt: skip
        items = [item for item in _items(example) if "ValueType" in item]
        answers = {
            name: [item.ConceptCodeSequence[0] for item in items if item.ValueType == "CODE" and _is(item, name)]
            for name in (codes.DECISION, codes.NORMALITY)
        }
        form = cls(
            (made_by, tuple(prediction.findings)),
            example,
            [item.ReferencedSOPSequence[0] for item in items if item.ValueType == "IMAGE"],
            uids,
            [item.MeasuredValueSequence[0] for item in items if item.ValueType == "NUM"],
            answers[codes.DECISION],
            answers[codes.NORMALITY][0],
        )
        filled = {id(item) for item in (*form.references, *form.numbers, *form.decisions, form.normality)}
        filled |= {id(element) for element, _ in uids}
        for item in example.ContentSequence:
            _encode(item, filled)
        return form

    def filled(
        self, film: Dataset, prediction: Prediction, comments: tuple[str, ...], uid: Callable[[str], str]
    ) -> Dataset:
        """Replace the stand-ins, and return the report.

        What only some films have may be added to it: it does not become part of this form.
        """
        for element, name in self.uids:
            element.value = UID(film[name].value if name in _OF_FILM else uid(name))
        for reference in self.references:
            reference.pop("ReferencedFrameNumber", None)
            if (frame := frame_of(film)) is not None:
                reference.ReferencedFrameNumber = frame
        outputs = prediction.outputs
        values = [value for name in outputs for value in (outputs[name], prediction.thresholds[name])]
        for item, value in zip(self.numbers, map(float, values), strict=True):
            item.NumericValue, item.FloatingPointValue = DS(value, auto_format=True), value
        for item, name in zip(self.decisions, outputs, strict=True):
            _set(item, codes.POSITIVE if prediction.decisions[name] else codes.NEGATIVE)
        _set(self.normality, codes.ABNORMAL if prediction.decisions[ABNORMAL] else codes.NORMAL)
        report = Dataset()
        report.update(self.report)  # `Dataset(self.report)` would add the film's own elements to this form
        report.set_original_encoding(*_BYTES, _CHARACTERS)
        report.file_meta = copy.deepcopy(self.report.file_meta)
        report.file_meta.MediaStorageSOPInstanceUID = UID(uid(REPORT))
        items = list(self.report.ContentSequence)
        notice = next(n for n, item in enumerate(items) if item.RelationshipType == "CONTAINS")
        items[notice + 1 : notice + 1] = map(comment_item, comments)
        report["ContentSequence"] = DataElement("ContentSequence", "SQ", Sequence(items))
        return report


def _encode(item: Dataset, filled: set[int]) -> None:
    """Replace what stays the same in an item by its bytes.

    Args:
        item: of a sequence.
        filled: `id` of the data sets and elements that are filled in.
    """
    item.set_original_encoding(*_BYTES, default_encoding)  # else pydicom decodes and encodes again
    for element in list(item):
        items = element.value if element.VR == "SQ" else []
        parts = [part for each in items for part in _items(each)]
        if not filled.isdisjoint(map(id, [element, *parts, *(element for part in parts for element in part)])):
            for each in items:
                _encode(each, filled)
            continue
        file = DicomBytesIO()
        file.is_implicit_VR, file.is_little_endian = _BYTES
        write_data_element(file, element, _CHARACTERS)
        value = file.getvalue()[12 if element.VR in EXPLICIT_VR_LENGTH_32 else 8 :]  # tag, VR and length, PS3.5 7.1.2
        item[element.tag] = RawDataElement(element.tag, element.VR, len(value), value, 0, *_BYTES)


def _items(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set and all items of its sequences."""
    yield dataset
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _items(item)


def _is(item: Dataset, name: codes.Code) -> bool:
    concept = item.ConceptNameCodeSequence[0]
    return (concept.CodeValue, concept.CodingSchemeDesignator) == (name.value, name.scheme)


def _set(item: Dataset, code: codes.Code) -> None:
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code

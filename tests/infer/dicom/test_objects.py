"""DICOM results as a pure function: no folder, no memory, and one UID for one content."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from edgecxr.bundle.gate import GateResult
from edgecxr.bundle.tested import CardResult
from edgecxr.films.header import FILE_TIME, read_header
from edgecxr.films.radiograph import FilmRead
from edgecxr.films.read import read_film
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.predictor import Predictor
from edgecxr.metrics import Interval
from edgecxr.vocabulary import WITHOUT_RESULT
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle

objects = pytest.importorskip("edgecxr.infer.dicom.objects", reason="highdicom is not installed")

WHEN = datetime(2026, 3, 1, 12, 30, 15, tzinfo=timezone.utc)
STATED = {
    "StudyInstanceUID": "1.2.826.9.1", "SeriesInstanceUID": "1.2.826.9.2", "SOPInstanceUID": "1.2.826.9.3",
    "PatientName": "Quispe^Jane", "PatientID": "MRN-80417", "TimezoneOffsetFromUTC": "+0300",
    "StudyDescription": "Thorax", "SeriesDescription": "PA", "Modality": "DX",
}  # fmt: skip

Arguments = tuple[FilmRead, Prediction, Any, datetime]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Arguments:
    folder = tmp_path_factory.mktemp("objects")
    predictor = Predictor(tiny_bundle(folder / "model"))
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 230
    path = write(film(pixels, **STATED), folder, "film.dcm")
    read = replace(read_film(path, display=True), header=read_header(path, "patient"))
    return read, predictor.predict(path), objects.Origin.of(predictor), WHEN


def objects_of(arguments: Arguments, patient: bool = True) -> tuple[Any, ...]:
    result = objects.dicom_objects(*arguments, patient)
    assert result.reason is None
    return tuple(result.objects)


def test_the_same_arguments_give_the_same_bytes_whenever_the_file_was_changed(arguments: Arguments) -> None:
    read, *others = arguments
    assert read.header is not None
    moved = replace(read, source="elsewhere", header=read.header | {FILE_TIME: "1"})
    assert objects_of(arguments) == objects_of(arguments) == objects_of((moved, *others))  # type: ignore[arg-type]


def test_an_object_is_what_its_entry_says(arguments: Arguments) -> None:
    for entry in objects_of(arguments):
        dataset = dcmread(DicomBytesIO(entry.content))
        assert (dataset.SOPClassUID, dataset.SOPInstanceUID) == (entry.sop_class, entry.uid)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == entry.uid
        assert (dataset.ContentDate, dataset.ContentTime) == ("20260301", "153015"), "in the film's time zone"
        assert dataset.StudyDescription == "Thorax" and dataset.SeriesDescription != "PA"
        assert dataset.Modality == {"sr": "SR", "sc": "OT"}[entry.kind]


def test_the_report_says_which_outputs_are_unreliable(arguments: Arguments) -> None:
    read, prediction, *others = arguments
    first, second, *rest = prediction.outputs

    def comments(tested: dict[str, CardResult]) -> str:
        report, *_ = objects_of((read, replace(prediction, tested=tested), *others))  # type: ignore[arg-type]
        content = dcmread(DicomBytesIO(report.content)).ContentSequence
        return "; ".join(str(item.TextValue) for item in content if item.ValueType == "TEXT")

    sure, unsure = (CardResult(Interval(0.7, low, 0.8), 30, 40, {}) for low in (0.6, 0.4))
    assert "no results on test" in comments({})
    assert f"chance: {second}" in comments(dict.fromkeys([first, *rest], sure) | {second: unsure})
    assert "chance" not in comments(dict.fromkeys(prediction.outputs, sure))


def test_whatever_changes_the_bytes_changes_the_uids(arguments: Arguments) -> None:
    read, prediction, origin, when = arguments
    header, display = read.header, read.display
    assert header is not None and display is not None
    other_image, other_display, other_attention = read.image.copy(), display.copy(), prediction.attention.copy()
    other_image[0, 0] ^= 1
    other_display[0, 0] ^= 1
    other_attention[0, 0] += 1e-3
    films = [replace(read, image=other_image), replace(read, display=other_display)]
    films += [
        replace(read, header=header | {key: "1.2.3" if key.endswith("UID") else "x"})
        for key in header
        if key not in (FILE_TIME, "NotRepeated", "TimezoneOffsetFromUTC", "LossyImageCompressionRatio")
    ]
    label = next(iter(prediction.findings))
    predictions = [
        replace(prediction, attention=other_attention),
        replace(prediction, findings=prediction.findings | {label: 0.123}),
        replace(prediction, abnormal=0.123),
        replace(prediction, decisions=prediction.decisions | {label: not prediction.decisions[label]}),
        replace(prediction, thresholds=prediction.thresholds | {label: 0.123}),
        replace(prediction, warnings=(*prediction.warnings, "another film has this UID")),
        replace(prediction, model="other"),
        replace(prediction, precision="int8"),
        replace(prediction, operating_point="sensitivity90"),
        replace(prediction, gate=GateResult("forced", ())),
        replace(prediction, tested={label: CardResult(Interval(0.7, 0.6, 0.8), 30, 40, {})}),
        replace(prediction, tested={label: CardResult(Interval(0.7, 0.4, 0.8), 30, 40, {})}),
        replace(prediction, codes=("mirrored",)),
    ]
    origins = [
        replace(origin, sha256="0" * 64),
        replace(origin, backend="openvino"),
        replace(origin, temperature={"findings": 2.0}),
    ]
    # The making costs a third of a second; that a UID is the object's own is pinned above.
    varied = [objects._digest(*arguments, patient) for patient in (True, False)]
    varied += [objects._digest(changed, prediction, origin, when, True) for changed in films]
    varied += [objects._digest(read, changed, origin, when, True) for changed in predictions]
    varied += [objects._digest(read, prediction, changed, when, True) for changed in origins]
    varied += [objects._digest(read, prediction, origin, when.replace(second=16), True)]
    assert len(set(varied)) == len(varied) > 35
    one, other = objects_of(arguments), objects_of((films[0], prediction, origin, when))
    assert {entry.uid for entry in one}.isdisjoint(entry.uid for entry in other)


@pytest.mark.parametrize(
    ("change", "reason", "keywords"),
    [
        ({"StudyInstanceUID": ""}, "no-identifiers", ("StudyInstanceUID",)),
        ({"NotRepeated": "PatientID"}, "no-patient-id", ("PatientID",)),
    ],
)
def test_a_film_that_cannot_be_filed_gets_a_code(
    arguments: Arguments, change: dict[str, str], reason: str, keywords: tuple[str, ...]
) -> None:
    read, *others = arguments
    assert read.header is not None
    result = objects.dicom_objects(replace(read, header=read.header | change), *others)
    assert (result.objects, result.reason, result.keywords) == ((), reason, keywords)
    assert reason in WITHOUT_RESULT

"""The report of a film that was not analysed: why, for whom, and the same bytes each time."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO

from edgecxr.bundle.gate import GateResult
from edgecxr.errors import REASONS
from edgecxr.films.radiograph import Objection
from edgecxr.infer.prediction import Rejection

refusal = pytest.importorskip("edgecxr.infer.dicom.refusal", reason="highdicom is not installed")

WHEN = datetime(2026, 3, 1, 12, 30, 15, tzinfo=timezone.utc)
ORIGIN = refusal.Origin("ab" * 32, "onnxruntime", {})
HEADER = {
    "StudyInstanceUID": "1.2.826.9.1", "SeriesInstanceUID": "1.2.826.9.2", "SOPInstanceUID": "1.2.826.9.3",
    "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1", "PatientName": "Quispe^Jane", "PatientID": "MRN-80417",
    "AccessionNumber": "ACC-1", "TimezoneOffsetFromUTC": "+0300", "NotRepeated": "",
}  # fmt: skip


def rejected(reason: str = "view", message: str = "it is a lateral view") -> Rejection:
    return Rejection("film 7", reason, message, GateResult("refuse", (Objection(reason, message),)))


def refusal_report(result: Rejection, header: dict[str, str] | None = None, patient: bool = True) -> Dataset:
    objects = refusal.refusal_objects(HEADER if header is None else header, result, "model-28", ORIGIN, WHEN, patient)
    (entry,) = objects.objects
    dataset = dcmread(DicomBytesIO(entry.content))
    assert (dataset.SOPClassUID, dataset.SOPInstanceUID) == (entry.sop_class, entry.uid)
    return dataset


def texts(dataset: Dataset) -> str:
    return "\n".join(str(item.TextValue) for item in dataset.ContentSequence if item.ValueType == "TEXT")


@pytest.mark.parametrize("reason", REASONS)
def test_it_says_why_and_belongs_to_the_film(reason: str, tmp_path: Path) -> None:
    report = refusal_report(rejected(reason))
    assert (report.PatientID, report.AccessionNumber, report.Modality) == ("MRN-80417", "ACC-1", "SR")
    assert (report.ContentDate, report.ContentTime) == ("20260301", "153015"), "in the film's time zone"
    assert REASONS[reason] in texts(report) and "lateral" in texts(report) and "Research use only" in texts(report)
    codes = [element.value for element in report.iterall() if element.keyword == "CodeMeaning"]
    assert "Not analysed" in codes and reason in codes
    references = {element.value for element in report.iterall() if element.keyword == "ReferencedSOPInstanceUID"}
    assert references == {HEADER["SOPInstanceUID"]}
    checker = shutil.which("dciodvfy")
    if checker:
        report.save_as(tmp_path / "report.dcm")
        checked = subprocess.run([checker, tmp_path / "report.dcm"], capture_output=True, text=True, check=False)
        assert [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")] == []


def test_the_same_refusal_gives_the_same_bytes_and_another_one_another_uid() -> None:
    def objects(**changes: Any) -> Any:
        facts = {"header": HEADER, "result": rejected(), "model": "m", "origin": ORIGIN, "when": WHEN, "patient": True}
        (entry,) = refusal.refusal_objects(**facts | changes).objects
        return entry

    first = objects()
    assert first == objects()
    others = [
        {"header": HEADER | {"PatientID": "other"}}, {"result": rejected("body-part")},
        {"result": rejected(message="it is an oblique view")}, {"patient": False},
        {"origin": replace(ORIGIN, sha256="cd" * 32)}, {"when": WHEN.replace(second=16)}, {"model": "n"},
    ]  # fmt: skip
    assert len({first.uid, *(objects(**change).uid for change in others)}) == 1 + len(others)


def test_without_the_patient_nothing_of_the_film_is_quoted() -> None:
    header = {key: value for key, value in HEADER.items() if not key.startswith(("Patient", "Accession"))}
    report = refusal_report(rejected(message="the body part KNEE QUISPE is not the chest"), header, patient=False)
    assert "QUISPE" not in str(report) and REASONS["view"] in texts(report)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (None, "no-identifiers"),
        (HEADER | {"StudyInstanceUID": ""}, "no-identifiers"),
        (HEADER | {"NotRepeated": "PatientID"}, "no-patient-id"),
    ],
)
def test_without_identifiers_there_is_none(header: dict[str, str] | None, reason: str) -> None:
    objects = refusal.refusal_objects(header, rejected(), "m", ORIGIN, WHEN)
    assert (objects.objects, objects.reason) == ((), reason)

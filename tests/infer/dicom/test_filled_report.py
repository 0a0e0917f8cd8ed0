"""Reports that are filled in: byte for byte those that highdicom makes from scratch."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from edgecxr.films.header import PATIENT
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.predictor import Predictor
from edgecxr.vocabulary import ABNORMAL
from tests.films.dicom_files import film, write
from tests.infer.dicom.test_objects import STATED, Arguments, arguments, objects_of  # noqa: F401 - a fixture
from tests.tiny_bundle import tiny_bundle

filled_report = pytest.importorskip("edgecxr.infer.dicom.filled_report", reason="highdicom is not installed")

from edgecxr.infer.dicom.structured_report import MadeBy, document, report  # noqa: E402

TINY = MadeBy("tiny", "model sha256 00, edgecxr 1", "operating point: youden", "2.25.99", "a result")
WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which would take minutes
NUMBERS = st.floats(0, 1) | st.sampled_from([0, 1, 1 / 3, 1e-7, 0.12345678901234567])


@pytest.fixture(scope="module")
def prediction(tmp_path_factory: pytest.TempPathFactory) -> Prediction:
    import numpy as np

    folder = tmp_path_factory.mktemp("prediction")
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 230
    return Predictor(tiny_bundle(folder / "model")).predict(write(film(pixels), folder))


def source(number: int, sop_class: str = "1.2.840.10008.5.1.4.1.1.1.1") -> Dataset:
    film = Dataset()
    film.StudyInstanceUID, film.SeriesInstanceUID = f"1.2.826.9.{number}", f"1.2.826.9.{number}.2"
    film.SOPClassUID, film.SOPInstanceUID = sop_class, f"1.2.826.9.{number}.3"
    for keyword in PATIENT:
        setattr(film, keyword, "")
    return film


def uid_of(number: int) -> Any:
    return lambda name: f"2.25.{number}{sum(name.encode())}"


def content(dataset: Dataset) -> bytes:
    for equipment in dataset.ContributingEquipmentSequence:
        equipment.ContributionDateTime = "20260301123015"
    for event in ("InstanceCreation", "Content", "Series"):
        setattr(dataset, f"{event}Date", "20260301")
        setattr(dataset, f"{event}Time", "123015")
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def from_scratch(film: Dataset, prediction: Prediction, comments: tuple[str, ...], made_by: MadeBy, uid: Any) -> bytes:
    uids = (uid(filled_report.SERIES), uid(filled_report.REPORT))
    return content(document(film, report(film, prediction, comments, made_by, uid), made_by, uids))


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck), phases=WITHOUT_SHRINKING)
@given(data=st.data())
def test_a_filled_report_has_the_bytes_of_one_from_scratch(prediction: Prediction, data: st.DataObject) -> None:
    labels = list(prediction.findings)
    if data.draw(st.booleans()):
        labels += ["Scimitar sign"]
    values = {name: data.draw(NUMBERS) for name in (ABNORMAL, *labels)}
    changed = replace(
        prediction,
        abnormal=values[ABNORMAL],
        findings={name: values[name] for name in labels},
        thresholds={name: data.draw(NUMBERS) for name in values},
        decisions={name: data.draw(st.booleans()) for name in values},
    )
    made_by = data.draw(st.sampled_from([TINY, TINY._replace(model="", device="2.25.7")]))
    comments = tuple(data.draw(st.lists(st.sampled_from(["is small", "was turned", "ß"]), max_size=3)))
    number = data.draw(st.integers(1, 10**6))
    film = source(number, data.draw(st.sampled_from(["1.2.840.10008.5.1.4.1.1.1", "1.2.3.4.5"])))
    film.NumberOfFrames = data.draw(st.integers(1, 3))
    inputs = (film, changed, comments, made_by, uid_of(number))
    assert content(filled_report.filled_report(*inputs)) == from_scratch(*inputs)


@pytest.mark.filterwarnings("ignore")
def test_threads_do_not_write_into_each_other_s_reports(prediction: Prediction) -> None:
    def several(number: int) -> list[bytes]:
        film, uid = source(number), uid_of(number)
        return [content(filled_report.filled_report(film, prediction, (), TINY, uid)) for _ in range(5)]

    with ThreadPoolExecutor(3) as threads:
        by_thread = list(threads.map(several, range(3)))
    for number, contents in enumerate(by_thread):
        assert set(contents) == {from_scratch(source(number), prediction, (), TINY, uid_of(number))}


def test_nothing_of_one_film_is_in_the_report_of_the_next(arguments: Arguments) -> None:  # noqa: F811
    read, *others = arguments
    assert read.header is not None and STATED["StudyDescription"] == "Thorax"
    bare = read.header | dict.fromkeys(("PatientName", "PatientID", "StudyDescription", "TimezoneOffsetFromUTC"), "")
    bare |= {"StudyInstanceUID": "1.2.826.8.1", "SeriesInstanceUID": "1.2.826.8.2", "SOPInstanceUID": "1.2.826.8.3"}
    with_issuer = replace(read, header=read.header | {"IssuerOfPatientID": "elsewhere"})
    objects_of((with_issuer, *others))  # type: ignore[arg-type]
    after = objects_of((replace(read, header=bare), *others))  # type: ignore[arg-type]
    filled_report._kept.form = None
    assert after == objects_of((replace(read, header=bare), *others))  # type: ignore[arg-type]
    for text in (b"Quispe", b"MRN-80417", b"elsewhere", b"Thorax", b"1.2.826.9."):
        assert text not in after[0].content

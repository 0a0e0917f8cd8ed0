"""What DICOM results repeat of their film: loss, frames, dates; and whether of its patient."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

pytest.importorskip("edgecxr.infer.dicom.objects", reason="highdicom is not installed")

from edgecxr.errors import UsageError
from edgecxr.films.header import FILE_TIME, read_header
from edgecxr.films.read import read_film
from edgecxr.infer.dicom.dicom_results import DicomResults
from edgecxr.infer.predictor import Predictor
from edgecxr.infer.run import InferOptions, infer_paths, readers_for
from tests.films.dicom_files import compressed, film, write
from tests.infer.dicom.test_dicom_results import PATIENT, UIDS, results_of, scan
from tests.tiny_bundle import LABELS, tiny_bundle


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model", data={"phantom": True}))


def test_the_picture_says_that_its_film_was_compressed_with_loss(tmp_path: Path, predictor: Predictor) -> None:
    lossy = {
        "LossyImageCompression": "01",
        "LossyImageCompressionRatio": "12",
        "LossyImageCompressionMethod": "ISO_10918_1",
    }
    _, picture = results_of(predictor, scan(tmp_path, **lossy), tmp_path / "results")
    assert {keyword: str(picture[keyword].value) for keyword in lossy} == lossy


@pytest.mark.parametrize(
    ("syntax", "near", "irreversible", "stated", "expected"),
    [
        (JPEGBaseline8Bit, 0, False, None, ("01", "ISO_10918_1")),
        (JPEGBaseline8Bit, 0, False, "00", ("01", "ISO_10918_1")),
        (JPEGLSNearLossless, 3, False, None, ("01", "ISO_14495_1")),
        (JPEGLSNearLossless, 0, False, None, None), (JPEGLSLossless, 0, False, None, None),
        (JPEG2000, 0, True, "", ("01", "ISO_15444_1")), (JPEG2000, 0, False, None, None),
        (JPEG2000Lossless, 0, False, None, None), (ExplicitVRLittleEndian, 0, False, None, None),
    ],
)  # fmt: skip
def test_what_was_lost_is_said_although_the_header_does_not(
    tmp_path: Path, predictor: Predictor, syntax: str, near: int, irreversible: bool, stated: str | None,
    expected: tuple[str, str] | None,
) -> None:  # fmt: skip
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    dataset = film(grey, **PATIENT | UIDS | {"LossyImageCompression": stated})
    stream = io.BytesIO()
    if syntax == JPEGBaseline8Bit:
        Image.fromarray(grey).save(stream, "JPEG")
    elif syntax in (JPEG2000, JPEG2000Lossless):
        Image.fromarray(grey).save(stream, "JPEG2000", irreversible=irreversible, no_jp2=True)
    elif syntax in (JPEGLSNearLossless, JPEGLSLossless):
        stream.write(pytest.importorskip("jpeg_ls").encode_array(grey, lossy_error=near))
    if stream.getvalue():
        dataset = compressed(dataset, syntax, stream.getvalue())
    _, picture = results_of(predictor, write(dataset, tmp_path), tmp_path / "results")
    lossy = picture.get("LossyImageCompression"), picture.get("LossyImageCompressionMethod")
    assert lossy == (expected or (stated, None))


@pytest.mark.parametrize("frames", [1, 3])
def test_results_of_several_frames_are_those_of_the_first(tmp_path: Path, predictor: Predictor, frames: int) -> None:
    path = scan(tmp_path, "several.dcm", NumberOfFrames=frames, PixelData=bytes(range(256)) * 16 * frames)
    single = scan(tmp_path, SOPInstanceUID="1.2.826.9.9")
    for number, each in enumerate((path, single, path)):  # nothing of one is in the next
        report, picture = results_of(predictor, each, tmp_path / f"results-{number}")
        expected = 1 if each == path and frames > 1 else None
        assert picture.SourceImageSequence[0].get("ReferencedFrameNumber") == expected
        frame_numbers = [element.value for element in report.iterall() if element.keyword == "ReferencedFrameNumber"]
        assert frame_numbers == ([1] * (1 + len(LABELS)) if expected else [])


@given(seconds=st.integers(-(10**12), 10**12))
@settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck))
def test_a_clock_gone_wrong_costs_no_result(
    tmp_path_factory: pytest.TempPathFactory, predictor: Predictor, seconds: int
) -> None:
    # Few file systems keep such times, so they are put into what was read.
    folder = tmp_path_factory.mktemp("clock")
    path = scan(folder)
    header = read_header(path, "patient") | {FILE_TIME: str(seconds)}
    outcome = DicomResults(folder, predictor).write(
        replace(read_film(path, display=True), header=header), predictor.predict(path)
    )
    assert outcome.reason is None and len(outcome.files) == 2
    for file in outcome.files:
        assert re.fullmatch("[0-9]{8}", dcmread(file["path"]).ContentDate)


@pytest.mark.parametrize("patient", [True, False])
def test_results_with_and_without_the_patient_are_not_mixed(
    tmp_path: Path, predictor: Predictor, patient: bool
) -> None:
    path, results, folder = scan(tmp_path, BurnedInAnnotation="NO"), tmp_path / "results.jsonl", tmp_path / "results"

    def again(patient: bool) -> None:
        options = InferOptions(as_json=True, dicom=folder, patient=patient, resume=results)
        with readers_for(options, 1) as processes:
            infer_paths(predictor, processes, [path], options)

    again(patient)
    written = sorted(folder.iterdir())
    again(patient)
    with pytest.raises(UsageError, match="--no-phi"):
        again(not patient)
    assert sorted(folder.iterdir()) == written and len(results.read_text().splitlines()) == 1
    line = json.loads(results.read_text())
    line["dicom"].pop("patient")  # of an older version
    results.write_text(json.dumps(line) + "\n")
    again(True)
    with pytest.raises(UsageError, match="--no-phi"):
        again(False)

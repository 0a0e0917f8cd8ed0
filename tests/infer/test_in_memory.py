"""Films given as bytes, open files and data sets: as the file with the same bytes, and nothing is changed."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from edgecxr.errors import InputError, UsageError
from edgecxr.infer import in_memory
from edgecxr.infer.predictor import Predictor
from tests.films.dicom_files import compressed, film, write
from tests.tiny_bundle import tiny_bundle, tiny_gate


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    gate = tiny_gate(threshold=0.6)
    return Predictor(tiny_bundle(tmp_path_factory.mktemp("model") / "bundle", gate=gate))


def outcome(predictor: Predictor, source: Any) -> dict[str, Any]:
    """Return all that predict says of a film, but for its name and how long it took."""
    try:
        values = dataclasses.asdict(predictor.predict(source))
    except InputError as error:
        return {"reason": error.reason, "gate": error.gate}
    values["attention"] = values["attention"].tolist()
    return {key: value for key, value in values.items() if key not in ("source", "timings_ms")}


def four_ways(predictor: Predictor, path: Path, dataset: Dataset) -> list[dict[str, Any]]:
    content = path.read_bytes()
    with path.open("rb") as file:
        return [outcome(predictor, source) for source in (path, content, io.BytesIO(content), file, dataset)]


def written(dataset: Any, syntax: str, folder: Path) -> Path:
    if syntax == JPEGBaseline8Bit:
        stream = io.BytesIO()
        Image.fromarray(np.frombuffer(dataset.PixelData, np.uint8).reshape(dataset.Rows, dataset.Columns)).save(
            stream, "JPEG"
        )
        return write(compressed(dataset, syntax, stream.getvalue()), folder)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if syntax == RLELossless:
        dataset.compress(syntax)
    elif syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    return write(dataset, folder)


ELEMENTS = st.fixed_dictionaries({}, optional={
    "PhotometricInterpretation": st.sampled_from(["MONOCHROME1", "MONOCHROME2", "monochrome2", "ODD"]),
    "WindowCenter": st.integers(0, 300), "WindowWidth": st.sampled_from([1, 90, 200, float("nan")]),
    "ViewPosition": st.sampled_from(["PA", "LL", "odd"]), "Modality": st.sampled_from(["DX", "CT"]),
    "BodyPartExamined": st.sampled_from(["CHEST", "KNEE"]), "PixelPaddingValue": st.integers(0, 200),
    "Rows": st.sampled_from([64, 70, 300]), "PatientOrientation": st.sampled_from([["R", "F"], ["L", "H"], ["P", "F"]]),
    "SeriesDescription": st.sampled_from(["Thorax lateral", "Größe"]), "PixelData": st.none(),
    "SOPClassUID": st.sampled_from(["1.2.840.10008.5.1.4.1.1.1.1.1", "1.2.840.113619.4.30"]),
})  # fmt: skip
SYNTAXES = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian,
            RLELossless, JPEGBaseline8Bit]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
@given(elements=ELEMENTS, syntax=st.sampled_from(SYNTAXES), bits=st.sampled_from([8, 16]), seed=st.integers(0, 5))
def test_bytes_files_and_data_sets_are_read_like_the_file(
    predictor: Predictor, elements: dict[str, Any], syntax: str, bits: int, seed: int
) -> None:
    dtype = np.uint16 if bits == 16 and syntax != JPEGBaseline8Bit else np.uint8
    pixels = np.random.default_rng(seed).integers(0, 200, (70, 66)).astype(dtype)
    plain = film(pixels, PatientName="Quispe^Jane", SpecificCharacterSet="ISO_IR 192")
    if syntax in (RLELossless, JPEGBaseline8Bit):
        elements = {key: value for key, value in elements.items() if key not in ("Rows", "PhotometricInterpretation")}
    with tempfile.TemporaryDirectory() as folder:
        path = written(plain, syntax, Path(folder))
        for keyword, value in elements.items():
            setattr(plain, keyword, value) if value is not None else plain.pop(keyword)
        path = write(plain, Path(folder))
        read = dcmread(path)
        before, tags = copy.deepcopy(read), list(read.keys())
        expected, *others = four_ways(predictor, path, read)
        assert others == [expected] * len(others)
        assert [repr(read.get_item(tag)) for tag in tags] == [repr(before.get_item(tag)) for tag in tags]
        assert outcome(predictor, plain) == expected  # with elements that never were in a file


@pytest.mark.corpus
@pytest.mark.filterwarnings("ignore")
def test_odd_films_are_read_alike_from_memory(predictor: Predictor) -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    cases = Path(root).parent / "cases"
    for path in sorted([*(cases / "films").glob("*.dcm"), *(cases / "images").iterdir(), *cases.glob("films/*/*")]):
        with path.open("rb") as file:
            expected, *others = [outcome(predictor, source) for source in (path, path.read_bytes(), file)]
        assert others == [expected] * 2, path
        # A data set cannot have an element twice, or claim more bytes than it has.
        if path.parent.name != "images" and path.stem not in ("rows_twice", "pixeldata_claims_2GiB", "native_item"):
            assert outcome(predictor, dcmread(path, force=True)) == expected, path


def test_a_data_set_without_a_file_is_uncompressed_and_need_not_state_it(predictor: Predictor, tmp_path: Path) -> None:
    pixels = np.tile(np.arange(0, 200, dtype=np.uint16), (100, 1))
    whole = film(pixels, ViewPosition="PA")
    expected = outcome(predictor, write(whole, tmp_path))
    bare = Dataset()
    bare.update({element.tag: element for element in whole})
    assert outcome(predictor, bare) == expected
    bare.PatientName, bare.PixelAspectRatio = "x" * 300, [2, 1]
    assert outcome(predictor, bare) == expected


def test_what_cannot_be_read_is_named_and_has_the_reason_of_a_file(predictor: Predictor, tmp_path: Path) -> None:
    path = write(film(np.full((70, 70), 7, np.uint8)), tmp_path)
    closed = path.open("rb")
    closed.close()
    odd = film(np.zeros((70, 70), np.uint8))
    odd.Rows = "many"
    for source, name, reason in (
        (b"", "the bytes", "not-an-image"), (b"text", "the bytes", "not-an-image"),
        (path.read_bytes(), "the bytes", "blank"), (memoryview(bytearray(path.read_bytes())), "the bytes", "blank"),
        (io.BytesIO(path.read_bytes()[:-500]), "the open file", "malformed"), (closed, str(path), "not-found"),
        (dcmread(path), "the data set", "blank"), (odd, "the data set", "malformed"), (Dataset(), "the data set", None),
    ):  # fmt: skip
        with pytest.raises(InputError) as caught:
            predictor.predict(source)
        assert name in str(caught.value) and "/proc" not in str(caught.value) and "\n" not in str(caught.value)
        assert reason in (None, caught.value.reason)
    for source in (io.StringIO("text"), path.open(), 3, None, [b"x"]):
        with pytest.raises(UsageError):
            predictor.predict(source)  # type: ignore[arg-type]


def test_a_file_without_end_is_not_read_into_memory(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_memory, "MAX_BYTES", 5 << 20)
    with Path("/dev/zero").open("rb") as file, pytest.raises(InputError) as caught:
        predictor.predict(file)
    assert caught.value.reason == "unsupported"


def test_nothing_is_left_behind_and_threads_do_not_meet(predictor: Predictor, tmp_path: Path) -> None:
    contents = []
    for grey in range(20, 200, 20):
        pixels = np.zeros((64, 64), np.uint8)
        pixels[:32] = grey
        contents.append(write(film(pixels), tmp_path).read_bytes())
    alone = [outcome(predictor, content) for content in contents]
    outcomes: dict[int, Any] = {}

    def look(number: int) -> None:
        outcomes[number] = outcome(predictor, io.BytesIO(contents[number]))

    threads = [threading.Thread(target=look, args=(number,)) for number in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcomes[number] for number in range(len(contents))] == alone
    assert [
        path for path in Path("/proc/self/fd").iterdir() if path.exists() and "memfd:film" in path.readlink().name
    ] == []

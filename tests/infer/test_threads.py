"""One predictor, many threads: the same bits as one thread, and nothing of the process left changed."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

import edgecxr
from edgecxr.errors import InputError, ModelError
from edgecxr.films.codestreams.pixel_data import first_frame, transfer_syntax
from edgecxr.infer.predictor import Predictor
from tests.films.dicom_files import compressed, film, write
from tests.tiny_bundle import tiny_bundle

THREADS = 8
ROUNDS = 6


def noise(seed: int, bits: int = 12) -> np.ndarray:
    smooth = np.linspace(0, (1 << bits) - 64, 96 * 80).reshape(96, 80)
    return (smooth + np.random.default_rng(seed).integers(0, 64, (96, 80))).astype(np.uint16)


def jpeg_lossless(pixels: np.ndarray, bits: int) -> bytes:
    """Encode a film as JPEG lossless, process 14, first-order prediction: nothing that is installed writes it."""
    height, width = pixels.shape
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    written = []
    for difference in (values - predicted).ravel().tolist():
        category = abs(difference).bit_length()
        written.append(f"{category:05b}")  # 17 codes of five bits: category c has the code c
        if category:
            written.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    text = "".join(written)
    text += "1" * (-len(text) % 8)
    data = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    table = bytes([0, *(17 if length == 5 else 0 for length in range(1, 17)), *range(17)])
    frame = bytes([bits, *divmod(height, 256), *divmod(width, 256), 1, 1, 0x11, 0])
    scan = bytes([1, 1, 0, 1, 0, 0])
    segments = b"".join(
        bytes([0xFF, marker, *divmod(len(body) + 2, 256)]) + body
        for marker, body in ((0xC3, frame), (0xC4, table), (0xDA, scan))
    )
    stream = b"\xff\xd8" + segments + data + b"\xff\xd9"
    return stream + b"\0" * (len(stream) % 2)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return films of many syntaxes, whole and damaged."""
    folder = tmp_path_factory.mktemp("films")

    def dicom(name: str, **elements: Any) -> Any:
        return film(noise(len(name)), BitsStored=12, WindowCenter=2000, WindowWidth=3000, **elements)

    paths = [write(dicom("plain"), folder, "plain.dcm")]
    paths.append(write(dicom("odd", BodyPartExamined="HAND"), folder, "odd.dcm"))
    for seed in range(3):
        stream = jpeg_lossless(noise(seed), 12)
        whole = compressed(film(noise(seed), BitsStored=12), JPEGLosslessSV1, stream)
        paths.append(write(whole, folder, f"lossless{seed}.dcm"))
        # GDCM's libjpeg complains of this one on standard error.
        broken = compressed(film(noise(seed), BitsStored=12), JPEGLosslessSV1, stream[:5000] + b"\xff\xd9")
        paths.append(write(broken, folder, f"broken{seed}.dcm"))
    for name, syntax in (("j2k", JPEG2000Lossless), ("jls", JPEGLSLossless), ("rle", RLELossless)):
        dataset = dicom(name)
        dataset.compress(syntax, generate_instance_uid=False)
        paths.append(write(dataset, folder, f"{name}.dcm"))
    cut = folder / "cut.dcm"
    cut.write_bytes(paths[0].read_bytes()[:-2000])
    junk = compressed(film(noise(9)), JPEG2000Lossless, b"\xff\x4f\xff\x51 no JPEG 2000")
    write(junk, folder, "undecodable.dcm")
    for name in ("film.png", "film.jpg", "film.tif"):
        Image.fromarray((noise(7) >> 4).astype(np.uint8)).save(folder / name)
    picture = io.BytesIO()
    Image.fromarray((noise(8) >> 4).astype(np.uint8)).save(picture, "PNG")
    (folder / "cut.png").write_bytes(picture.getvalue()[:-50])
    (folder / "text.dcm").write_text("not a film")
    return [*sorted(folder.iterdir()), folder / "gone.dcm"]


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return edgecxr.load(tiny_bundle(tmp_path / "model").path, threads=2)


def outcome(predictor: Predictor, path: Path) -> tuple[Any, ...]:
    """Return all of a prediction but the times, to the last bit; or the rejection."""
    try:
        prediction = predictor.predict(path)
    except InputError as error:
        return error.reason, str(error)
    return (
        tuple(prediction.findings.values()),
        prediction.abnormal,
        prediction.decisions,
        prediction.attention.tobytes(),
        prediction.source,
        prediction.warnings,
    )


def at_once(work: Callable[[int], Any]) -> list[Any]:
    """Run `work` in all threads, which begin at the same moment and are made to take turns often."""
    ready = threading.Barrier(THREADS)

    def begin(number: int) -> Any:
        ready.wait()
        return work(number)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(begin, range(THREADS)))
    finally:
        sys.setswitchinterval(interval)


def test_threads_get_bit_by_bit_what_one_gets_alone(
    predictor: Predictor, films: list[Path], capfd: pytest.CaptureFixture[str]
) -> None:
    alone = {path: outcome(predictor, path) for path in films}
    assert sum(len(result) > 2 for result in alone.values()) >= 10  # most are predicted, the damaged ones are not
    assert {result[0] for result in alone.values() if len(result) == 2} == {
        "malformed", "undecodable", "not-an-image", "not-found", "body-part",
    }  # fmt: skip
    filters, show = list(warnings.filters), warnings.showwarning
    before = os.fstat(2)

    def work(number: int) -> list[Path]:
        mine = films * ROUNDS
        random.Random(number).shuffle(mine)
        return [path for path in mine if outcome(predictor, path) != alone[path]]

    assert at_once(work) == [[]] * THREADS

    assert warnings.filters == filters and warnings.showwarning is show
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
    capfd.readouterr()
    os.write(2, b"from this process\n")
    subprocess.run([sys.executable, "-c", "import os; os.write(2, b'from a child')"], check=True)
    assert capfd.readouterr().err == "from this process\nfrom a child"


def test_a_lossless_stream_that_ends_in_the_middle_is_rejected(films, predictor):
    broken = next(path for path in films if path.name == "broken0.dcm")
    with pytest.raises(InputError, match=r"broken0\.dcm .*Corrupt JPEG data") as error:
        predictor.predict(broken)
    assert error.value.reason == "undecodable"


def test_gdcm_in_many_threads_leaves_standard_error_where_it_was(films: list[Path]) -> None:
    # Without the lock that reading holds: whoever decodes directly is as safe.
    from pydicom import dcmread

    datasets = [dcmread(path) for path in films if path.name.startswith("lossless")]
    expected = [first_frame(dataset, transfer_syntax(dataset)).tobytes() for dataset in datasets]
    before = os.fstat(2)

    def work(number: int) -> bool:
        return all(
            first_frame(dataset, transfer_syntax(dataset)).tobytes() == pixels
            for _ in range(ROUNDS)
            for dataset, pixels in zip(datasets, expected, strict=True)
        )

    assert all(at_once(work))
    assert os.fstat(2).st_ino == before.st_ino


def test_a_model_that_is_closed_meanwhile_ends_well_or_says_so(tmp_path: Path) -> None:
    pixels = noise(1) / 4096
    for _ in range(10):
        predictor = edgecxr.load(tiny_bundle(tmp_path / "model").path, threads=1)
        expected = predictor.predict(pixels).findings

        def work(number: int, predictor: Predictor = predictor, expected: dict[str, float] = expected) -> int:
            if number == 0:
                predictor.close()
                return 0
            for done in range(50):
                try:
                    assert predictor.predict(pixels).findings == expected
                except ModelError as error:
                    assert "has been closed" in str(error)
                    return done
            return 50

        at_once(work)

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.benchmark import model_process
from edgecxr.benchmark.candidates import OPENER
from edgecxr.benchmark.model_process import Refused, Worker
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from tests.benchmark.benchmarked import STUDENT, workspace
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle

SHAPE = (1, 28, 28)


class Model:
    """Answers with the number of images, as a model of others may."""

    def __init__(self, most: int = 1000) -> None:
        self._most = most

    def run(self, images: np.ndarray) -> int:
        if len(images) > self._most:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(images)


def crash() -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def chatty() -> Model:
    os.write(1, b"an engine says what it likes\n")
    return Model()


@pytest.fixture
def worker(tmp_path: Path) -> Any:
    path = tiny_bundle(tmp_path / "model").artefact()
    process = Worker(OPENER, {"name": "onnxruntime", "path": path, "threads": 1}, SHAPE)
    yield process
    process.close()


def test_a_model_is_timed_in_a_process_of_its_own(worker: Worker) -> None:
    assert set(worker.start) == {"process", "open", "first"} and all(0 < s < 60 for s in worker.start.values())
    seconds = worker.time(4, 5, warm=1)
    assert len(seconds) == 5 and all(0 < s < 5 for s in seconds)
    images, past = worker.busy(2, 0.05)
    assert images >= 2 and images % 2 == 0 and past >= 0.05


def test_memory_is_that_of_the_workers_process(worker: Worker) -> None:
    held = np.ones(300 << 20, np.uint8)  # in this process, which the figure must not contain
    memory = worker.memory()
    assert memory is None or 20 < memory < 250
    assert held[0]


def test_the_way_from_a_file_is_timed_by_its_parts(worker: Worker, tmp_path: Path) -> None:
    path = write(film(np.arange(4096, dtype=np.uint16).reshape(64, 64), BitsStored=12), tmp_path)
    seconds = worker.film(path, 2)
    assert {stage: len(times) for stage, times in seconds.items()} == {"decode": 2, "preprocess": 2, "model": 2}


def test_it_goes_on_after_a_request_that_failed(worker: Worker, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="gone") as caught:
        worker.film(tmp_path / "gone.dcm", 1)
    assert not caught.value.absent
    assert len(worker.time(1, 2)) == 2


def test_all_films_of_a_split_are_answered(tmp_path: Path) -> None:
    place = workspace(tmp_path / "runs")
    path = place.export_dir(STUDENT) / "model.onnx"
    worker = Worker(OPENER, {"name": "onnxruntime", "path": path, "threads": 1}, SHAPE)
    data = Prepared.open(place.data_dir("quadrants"))
    outputs = worker.score(data.path, data.hash, "test", 7)
    with pytest.raises(Refused, match="has changed"):
        worker.score(data.path, "0" * 64, "test", 7)
    worker.close()
    assert isinstance(outputs, Outputs) and outputs.findings.shape == (24, 3) and not len(outputs.attention)


def test_a_model_that_does_not_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"gone\.onnx does not exist") as caught:
        Worker(OPENER, {"name": "onnxruntime", "path": tmp_path / "gone.onnx", "threads": 1}, SHAPE)
    assert not caught.value.absent


def test_a_missing_package_is_told_from_a_bad_model() -> None:
    with pytest.raises(Refused, match="not installed") as caught:
        Worker("tests.benchmark.test_model_process:absent", {}, SHAPE)
    assert caught.value.absent


def absent() -> Any:
    from edgecxr.errors import MissingPackage

    raise MissingPackage("openvino", "openvino", "the openvino backend")


def test_an_engine_that_crashes_takes_nothing_along() -> None:
    with pytest.raises(Refused, match="SIGSEGV"):
        Worker("tests.benchmark.test_model_process:crash", {}, SHAPE)


def test_a_process_that_dies_at_work_is_named() -> None:
    worker = Worker("tests.benchmark.test_model_process:Model", {"most": 2}, SHAPE)
    with pytest.raises(Refused, match="SIGKILL: too little memory"):
        worker.time(4, 1)
    with pytest.raises(Refused):
        worker.time(1, 1)
    worker.close()


class Sleeper(Model):
    """Answers once, and never again."""

    def run(self, images: np.ndarray) -> int:
        if len(images) > 1:
            time.sleep(600)
        return 1


def test_one_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker("tests.benchmark.test_model_process:Sleeper", {}, SHAPE)
    monkeypatch.setattr(model_process, "LIMIT", 0.3)
    with pytest.raises(Refused, match="did not answer"):
        worker.time(2, 1)
    assert not worker.alive


def test_one_that_died_while_it_was_idle_is_no_model_any_more() -> None:
    worker = Worker("tests.benchmark.test_model_process:Model", {}, SHAPE)
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(0.3)
    with pytest.raises(Refused, match="ended by"):
        worker.time(1, 1)
    assert not worker.alive


def test_ctrl_c_does_not_reach_it(tmp_path: Path) -> None:
    worker = Worker("tests.benchmark.test_model_process:Model", {}, SHAPE)
    os.kill(worker.pid, signal.SIGINT)
    assert len(worker.time(1, 1)) == 1
    worker.close()


def test_what_engines_print_is_kept_from_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    Worker("tests.benchmark.test_model_process:chatty", {}, SHAPE).close()
    out, err = capfd.readouterr()
    assert out == "" and "an engine says" in err

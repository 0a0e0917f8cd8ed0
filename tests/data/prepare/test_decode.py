"""What an image may do to the process that reads it."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.data.adapters.folder import Folder
from edgecxr.data.prepare import decode
from edgecxr.data.prepare.prepare import prepare
from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.workers import processes
from tests.data.noise import COUNT, contents, marked


def test_more_processes_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    one = prepare(marked(source), tmp_path / "one", 1)
    two = prepare(marked(source), tmp_path / "two", 2)
    assert contents(one.path) == contents(two.path)
    assert {path.name for path in tmp_path.iterdir()} == {"films", "one", "two"}


def test_killed_workers_cost_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[processes.Processes] = []

    def noted(count: int, time_limit: float) -> processes.Processes:
        pools.append(processes.Processes(count, time_limit))
        return pools[-1]

    monkeypatch.setattr(decode, "Processes", noted)
    gone = []

    def kill(done: int, total: int) -> None:
        if done in (4, 16):
            for process in pools[0]._all:
                # An image whose process is killed twice is taken for the cause.
                if process._process and not any(job.suspect for job in process.jobs):
                    process._process.kill()
                    gone.append(process._process.pid)

    killed = prepare(marked(source), tmp_path / "killed", 2, kill)
    monkeypatch.undo()
    assert len(set(gone)) >= 3, "of the second time too"
    assert contents(killed.path) == contents(prepare(marked(source), tmp_path / "whole", 1).path)


class Deadly(Folder):
    """Images of which some end the process that reads them, as a decoder's fault may."""

    def reader(self, index: int) -> Callable[[], Radiograph]:
        return partial(os._exit, 9) if index in (6, 22) else super().reader(index)


def test_an_image_that_ends_its_process_is_rejected_and_the_rest_goes_on(source: Path, tmp_path: Path) -> None:
    prepared = prepare(Deadly(source), tmp_path / "out", 2)
    assert len(prepared) == 26 and prepared.info["rejected"] == {"crash": 2, "not-an-image": 1, "not-found": 1}
    with (prepared.path / "rejected.csv").open(newline="") as file:
        messages = {row["id"]: row["message"] for row in csv.DictReader(file)}
    assert set(messages) == {"3.png", "5.png", "6.png", "22.png"}
    assert "6.png ended the process that read it: save or send the film again" in messages["6.png"]


def _killed() -> Radiograph:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


class Hopeless(Folder):
    """Images whose processes are killed, as a system without memory does it: that is no image's doing."""

    def reader(self, index: int) -> Callable[[], Radiograph]:
        return _killed


def test_processes_that_end_one_after_the_other_are_the_machine_s_doing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_MOST_KILLED", 3)
    with pytest.raises(EdgeCxrError, match=r"3 processes in a row were killed, .* with .*png: is there too little"):
        prepare(Hopeless(source), tmp_path / "out", 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops_at_the_first_image_that_cannot_be_used_and_goes_on_from_there(
    source: Path, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(InputError, match=r"(3|5)\.png .*--strict stops here") as caught:
        prepare(Folder(source), tmp_path / "out", workers, strict=True)
    assert caught.value.reason in ("not-an-image", "not-found") and not (tmp_path / "out").exists()
    for name in ("3.png", "5.png"):
        Image.fromarray(np.full((240, 240), 9, np.uint8) + np.eye(240, dtype=np.uint8)).save(source / name)
    assert len(prepare(Folder(source), tmp_path / "out", workers, strict=True)) == COUNT


class Faulty(Folder):
    """Images of which a decoder has trouble with one."""

    def reader(self, index: int) -> Callable[[], Radiograph]:
        return partial(divmod, 1, 0) if index == 0 else super().reader(index)  # type: ignore[return-value]


def test_a_fault_of_a_decoder_rejects_its_image_only(source: Path, tmp_path: Path) -> None:
    prepared = prepare(Faulty(source), tmp_path / "out", 1)
    assert prepared.info["rejected"]["undecodable"] == 1
    assert "0.png: ZeroDivisionError: integer division" in (prepared.path / "rejected.csv").read_text()


class Slow(Folder):
    """Images of which two never end, and one does at the second try."""

    def reader(self, index: int) -> Callable[[], Radiograph]:
        if index in (6, 22):
            return partial(time.sleep, 600)  # type: ignore[return-value]
        return partial(_slow_once, self.files[index]) if index == 8 else super().reader(index)


def _slow_once(file: Path) -> Radiograph:
    seen = file.with_suffix(".seen")
    if not seen.exists():
        seen.touch()
        time.sleep(600)
    return read_radiograph(file)


def test_an_image_that_takes_too_long_twice_is_rejected_and_the_rest_goes_on(source: Path, tmp_path: Path) -> None:
    prepared = prepare(Slow(source), tmp_path / "out", 2, time_limit=1)
    assert len(prepared) == 26 and prepared.info["rejected"] == {"too-slow": 2, "not-an-image": 1, "not-found": 1}
    assert "8.png" in prepared.ids
    said = (prepared.path / "rejected.csv").read_text()
    assert "6.png was not read within 1 s: save or send the film again, or raise --time-limit, with --retry" in said


class Mended(Slow):
    """The same images, when whatever kept them has passed."""

    def reader(self, index: int) -> Callable[[], Radiograph]:
        return Folder.reader(self, index)


@pytest.mark.parametrize("size", [224, 448])
def test_what_was_rejected_is_read_again_on_request_and_nothing_else(source: Path, tmp_path: Path, size: int) -> None:
    first = prepare(Slow(source), tmp_path / "out", 2, time_limit=1, size=size)
    assert first.info["rejected"]["too-slow"] == 2
    assert prepare(Mended(source), tmp_path / "out", 2).hash == first.hash, "what is finished is finished"
    seen: list[int] = []
    again = prepare(Mended(source), tmp_path / "out", 2, lambda done, total: seen.append(done), retry=True)
    assert seen[0] == COUNT - 4 and again.info["rejected"] == {"not-an-image": 1, "not-found": 1}
    assert contents(again.path) == contents(prepare(Mended(source), tmp_path / "whole", 1, size=size).path)
    # Where everything was read there is nothing to do; of an older set all is read.
    assert prepare(Mended(source), tmp_path / "out", 2, lambda done, total: seen.append(-1), retry=True)
    (again.path / "decoded.jsonl").unlink()
    prepare(Mended(source), tmp_path / "out", 2, lambda done, total: seen.append(done), retry=True)
    assert seen.count(0) == 1 and -1 in seen


def test_many_films_that_end_their_processes_end_nothing_else(source: Path, tmp_path: Path) -> None:
    for index in range(5, COUNT):
        (source / f"{index}.png").unlink(missing_ok=True)
    prepared = prepare(Crowd(source), tmp_path / "out", 1)
    assert len(prepared) == 4 and prepared.info["rejected"]["crash"] == COUNT - 5


class Crowd(Folder):
    """Images of which all but the first few end their process: one after the other, without a result between them."""

    def reader(self, index: int) -> Callable[[], Radiograph]:
        return partial(os._exit, 9) if index >= 5 else super().reader(index)  # type: ignore[return-value]


def test_a_limit_of_time_is_a_second_or_more(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--time-limit 0\.5: give at least 1 second"):
        prepare(Folder(source), tmp_path / "out", 1, time_limit=0.5)

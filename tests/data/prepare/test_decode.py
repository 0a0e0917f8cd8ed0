"""What an image may do to the process that reads it."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecxr.data.adapters.folder import folder
from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare import decode
from edgecxr.data.prepare.prepare import prepare
from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.workers import pool
from edgecxr.workers.waiting import Queue
from tests.data.noise import COUNT, contents, marked
from tests.workers.test_pool import gone as ended


def test_more_processes_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    alone = prepare(marked(source), tmp_path / "one", 1)
    two = prepare(marked(source), tmp_path / "two", 2)
    assert contents(alone.path) == contents(two.path)
    assert {path.name for path in tmp_path.iterdir()} == {"films", "one", "two"}


def test_killed_workers_cost_nothing(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[pool.Pool[Any, Any]] = []

    def noted(*arguments: Any) -> pool.Pool[Any, Any]:
        pools.append(pool.Pool(*arguments))
        return pools[-1]

    monkeypatch.setattr(decode, "Pool", noted)
    gone = []

    def kill(done: int, total: int) -> None:
        if done in (4, 16):
            for worker in pools[0]._workers:
                # An image whose process is killed twice is taken for the cause.
                if not any(job.ended for job in worker.jobs):
                    os.kill(worker.pid, signal.SIGKILL)
                    gone.append(worker.pid)
            # One that is just dying would still take an image.
            assert ended(gone)
        if done == 24 and pools[0]._template:
            os.kill(pools[0]._template._pid, signal.SIGKILL)

    killed = prepare(marked(source), tmp_path / "killed", 2, kill)
    monkeypatch.undo()
    assert len(set(gone)) >= 3, "of the second time too"
    assert contents(killed.path) == contents(prepare(marked(source), tmp_path / "whole", 1).path)


Faults = dict[int, Callable[[], Any]]


def faulty(source: Path, faults: Faults) -> Dataset:
    """Return images of which some do something to the process that reads them, as a decoder's fault may."""
    whole = folder(source)
    return dataclasses.replace(whole, readers=lambda index: faults.get(index) or whole.reader(index))


def deadly(source: Path) -> Dataset:
    """Return images of which some end the process that reads them."""
    return faulty(source, dict.fromkeys((6, 22), partial(os._exit, 9)))


def test_an_image_that_ends_its_process_is_rejected_and_the_rest_goes_on(source: Path, tmp_path: Path) -> None:
    prepared = prepare(deadly(source), tmp_path / "out", 2)
    assert len(prepared) == 26 and prepared.info["rejected"] == {"crash": 2, "not-an-image": 1, "not-found": 1}
    with (prepared.path / "rejected.csv").open(newline="") as file:
        messages = {row["id"]: row["message"] for row in csv.DictReader(file)}
    assert set(messages) == {"3.png", "5.png", "6.png", "22.png"}
    assert re.search(r"6\.png ended the process .*: save or send", messages["6.png"])


def _killed() -> Radiograph:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_processes_that_end_one_after_the_other_are_the_machine_s_doing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_MOST_KILLED", 3)
    with pytest.raises(EdgeCxrError, match=r"3 processes in a row .*killed, .* with .*png: .*too little"):
        prepare(faulty(source, dict.fromkeys(range(COUNT), _killed)), tmp_path / "out", 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_stops_at_the_first_image_that_cannot_be_used_and_goes_on_from_there(
    source: Path, tmp_path: Path, workers: int
) -> None:
    with pytest.raises(InputError, match=r"(3|5)\.png .*--strict stops here") as caught:
        prepare(folder(source), tmp_path / "out", workers, strict=True)
    assert caught.value.reason in ("not-an-image", "not-found") and not (tmp_path / "out").exists()
    for name in ("3.png", "5.png"):
        Image.fromarray(np.full((240, 240), 9, np.uint8) + np.eye(240, dtype=np.uint8)).save(source / name)
    assert len(prepare(folder(source), tmp_path / "out", workers, strict=True)) == COUNT


def test_a_fault_of_a_decoder_rejects_its_image_only(source: Path, tmp_path: Path) -> None:
    prepared = prepare(faulty(source, {0: partial(divmod, 1, 0)}), tmp_path / "out", 1)
    assert prepared.info["rejected"]["undecodable"] == 1
    assert "0.png: ZeroDivisionError: integer division" in (prepared.path / "rejected.csv").read_text()


def slow(source: Path) -> Dataset:
    """Return images of which two never end, and one does at the second try, after others: see `_slow_images`."""
    never = dict.fromkeys((6, 22), partial(time.sleep, 600))
    return faulty(source, {**never, 8: partial(_slow_once, source / "8.png")})


def _slow_once(file: Path) -> Radiograph:
    marker = file.with_suffix(".seen")
    if not marker.exists():
        time.sleep(600)
    return read_radiograph(file)


@pytest.fixture
def _slow_images(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the second try of `slow` end; what decodes cannot note itself that there was a first."""
    again = Queue.try_again

    def noted(queue: Queue[Any], job: Any, slow: bool) -> None:
        (source / f"{job.item.index}.seen").touch()
        again(queue, job, slow)

    monkeypatch.setattr(Queue, "try_again", noted)


@pytest.mark.usefixtures("_slow_images")
def test_an_image_that_takes_too_long_twice_is_rejected_and_the_rest_goes_on(source: Path, tmp_path: Path) -> None:
    prepared = prepare(slow(source), tmp_path / "out", 2, time_limit=2)
    assert len(prepared) == 26 and prepared.info["rejected"] == {"too-slow": 2, "not-an-image": 1, "not-found": 1}
    assert "8.png" in prepared.ids
    rejected = (prepared.path / "rejected.csv").read_text()
    assert re.search(r"6\.png .*not read within 2 s: .*--time-limit, .*--retry", rejected)


@pytest.mark.usefixtures("_slow_images")
@pytest.mark.parametrize("size", [224, pytest.param(448, marks=pytest.mark.long)])
def test_what_was_rejected_is_read_again_on_request_and_nothing_else(source: Path, tmp_path: Path, size: int) -> None:
    first = prepare(slow(source), tmp_path / "out", 2, time_limit=2, size=size)
    assert first.info["rejected"]["too-slow"] == 2
    assert prepare(folder(source), tmp_path / "out", 2).hash == first.hash, "what is finished is finished"
    counts: list[int] = []
    again = prepare(folder(source), tmp_path / "out", 2, lambda done, total: counts.append(done), retry=True)
    assert counts[0] == COUNT - 4 and again.info["rejected"] == {"not-an-image": 1, "not-found": 1}
    assert contents(again.path) == contents(prepare(folder(source), tmp_path / "whole", 1, size=size).path)
    # Where everything was read there is nothing to do; of an older set all is read.
    assert prepare(folder(source), tmp_path / "out", 2, lambda done, total: counts.append(-1), retry=True)
    (again.path / "decoded.jsonl").unlink()
    prepare(folder(source), tmp_path / "out", 2, lambda done, total: counts.append(done), retry=True)
    assert counts.count(0) == 1 and -1 in counts


def test_many_films_that_end_their_processes_end_nothing_else(source: Path, tmp_path: Path) -> None:
    for index in range(5, COUNT):
        (source / f"{index}.png").unlink(missing_ok=True)
    prepared = prepare(faulty(source, dict.fromkeys(range(5, COUNT), partial(os._exit, 9))), tmp_path / "out", 1)
    assert len(prepared) == 4 and prepared.info["rejected"]["crash"] == COUNT - 5


def test_a_limit_of_time_is_a_second_or_more(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--time-limit 0\.5: .*at least 1 second"):
        prepare(folder(source), tmp_path / "out", 1, time_limit=0.5)

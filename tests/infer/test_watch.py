from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.infer.predictor import Predictor
from edgecxr.infer.run import InferOptions, readers_for
from edgecxr.infer.watch import REST, Arrivals, watch
from tests.cli_workspace import edgecxr
from tests.infer.test_run import png
from tests.tiny_bundle import tiny_bundle


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "arrival").mkdir()
    return tmp_path / "arrival"


@pytest.fixture
def arrivals(folder: Path, clock: Clock) -> Iterator[Arrivals]:
    with Arrivals([folder], leave_out=[folder / "pictures"], clock=clock) as arrivals:
        yield arrivals


def ready(arrivals: Arrivals, clock: Clock, after: float = 0) -> list[str]:
    clock.now += after
    return [path.name for path in arrivals.poll().folder_of]


def test_a_film_is_taken_when_it_rests_and_again_when_it_changes(
    folder: Path, arrivals: Arrivals, clock: Clock
) -> None:
    png(folder / "a.png")
    png(folder / "sub" / "b.png")
    assert ready(arrivals, clock) == []
    assert ready(arrivals, clock, REST - 0.1) == []
    with (folder / "a.png").open("ab") as file:  # is still being written
        file.write(b"more")
    assert ready(arrivals, clock, 0.1) == ["b.png"]
    assert ready(arrivals, clock, REST - 0.1) == []
    assert ready(arrivals, clock, 0.1) == ["a.png"]
    assert ready(arrivals, clock, REST) == []
    os.utime(folder / "a.png", (1, 1))
    assert (ready(arrivals, clock), ready(arrivals, clock, REST)) == ([], ["a.png"])


def test_an_old_film_that_is_moved_there_must_rest_as_well(folder: Path, arrivals: Arrivals, clock: Clock) -> None:
    os.utime(png(folder / "a.png"), (1, 1))
    assert (ready(arrivals, clock), ready(arrivals, clock, REST)) == ([], ["a.png"])


def test_what_is_no_film_is_passed_over_once_and_pictures_are_left_out(
    folder: Path, arrivals: Arrivals, clock: Clock
) -> None:
    for name in ("notes.txt", ".hidden.png", "DICOMDIR"):
        (folder / name).write_text("any")
    png(folder / "pictures" / "a.png")
    arrivals.poll()
    clock.now += REST
    assert arrivals.poll().passed_over == {"other files": 1, "hidden": 1, "DICOMDIR": 1}
    assert not arrivals.poll().passed_over


def test_a_link_that_leads_nowhere_is_a_lost_film_once_it_stays_so_and_is_read_when_it_leads_somewhere(
    folder: Path, tmp_path: Path, arrivals: Arrivals, clock: Clock
) -> None:
    for name in ("late.png", "lost.png"):
        (folder / name).symlink_to(tmp_path / name)
    assert (ready(arrivals, clock), ready(arrivals, clock, REST - 0.1)) == ([], [])
    png(tmp_path / "late.png")
    assert ready(arrivals, clock, 0.1) == ["lost.png"]
    assert ready(arrivals, clock, REST) == ["late.png"]
    png(tmp_path / "lost.png")
    assert (ready(arrivals, clock, REST), ready(arrivals, clock, REST)) == ([], ["lost.png"])


def test_a_folder_that_vanishes_is_waited_for(
    folder: Path, arrivals: Arrivals, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    png(folder / "a.png")
    assert (ready(arrivals, clock), ready(arrivals, clock, REST)) == ([], ["a.png"])
    away = folder.rename(folder.with_name("away"))
    for _ in range(3):
        assert ready(arrivals, clock, REST) == []
    assert capsys.readouterr().err.count("is gone") == 1
    away.rename(folder)
    png(folder / "b.png")
    assert (ready(arrivals, clock), ready(arrivals, clock, REST)) == ([], ["b.png"])
    shutil.rmtree(folder)
    assert ready(arrivals, clock, REST) == []
    png(folder / "c.png")  # in a new folder of the same name
    assert (ready(arrivals, clock), ready(arrivals, clock, REST)) == ([], ["c.png"])


def test_one_folder_has_one_watcher(folder: Path, arrivals: Arrivals) -> None:
    with pytest.raises(UsageError, match="another process watches"), Arrivals([folder]):
        pass
    with Arrivals([folder.parent]):
        pass
    # Nor when the folder comes back, and another process was faster.
    folder.rename(folder.with_name("away"))
    arrivals.poll()
    folder.mkdir()
    with Arrivals([folder]), pytest.raises(UsageError, match="another process watches"):
        arrivals.poll()


def test_files_and_absent_folders_cannot_be_watched(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model").path
    for path in (png(tmp_path / "a.png"), tmp_path / "gone"):
        done = edgecxr("infer", path, "--watch", "--model", bundle, runs=tmp_path / "runs")
        assert done.code == 2 and "--watch" in done.error


class WatchEnded(Exception):
    pass


def test_films_of_before_during_and_after_a_run_are_predicted_once(folder: Path, tmp_path: Path) -> None:
    results, table = tmp_path / "results.jsonl", tmp_path / "table.csv"
    whole = png(folder / "a.png").read_bytes()

    def run(*steps: Callable[[], object]) -> list[tuple[str, str]]:
        """Watch, doing one step after each look at the folder; its files rest as long as REST in between."""
        left, clock = [*steps, lambda: None, lambda: None], Clock()

        def pause(seconds: float) -> None:
            assert seconds >= 1
            if not left:
                raise WatchEnded
            left.pop(0)()
            clock.now += REST

        options = InferOptions(as_json=True, resume=results, csv=table, workers=1)
        with (
            readers_for(options, None) as readers,
            Predictor(tiny_bundle(tmp_path / "model")) as predictor,
            pytest.raises(WatchEnded),
        ):
            watch(predictor, readers, Arrivals([folder], clock=clock), options, pause)
        lines = [json.loads(line) for line in results.read_text().splitlines()]
        return [(Path(line["source"]).name, line["status"]) for line in lines]

    half = [("a.png", "ok"), ("b.png", "rejected")]
    assert run(lambda: (folder / "b.png").write_bytes(whole[: len(whole) // 2])) == half
    assert run() == half
    (folder / "b.png").write_bytes(whole)
    assert run(lambda: png(folder / "c.png")) == [*half, ("b.png", "ok"), ("c.png", "ok")]
    assert run() == [*half, ("b.png", "ok"), ("c.png", "ok")]
    rows = [row.split(",")[:2] for row in table.read_text().splitlines()[1:]]
    assert [(Path(name).name, status) for name, status in rows] == [("a.png", "ok"), ("b.png", "ok"), ("c.png", "ok")]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_service_that_is_ended_says_what_it_has_done(folder: Path, tmp_path: Path, end: signal.Signals) -> None:
    png(folder / "a.png")
    results = tmp_path / "results.jsonl"
    bundle = tiny_bundle(tmp_path / "model").path
    command = [sys.executable, "-m", "edgecxr", "infer", str(folder), "--watch", "--json", "--resume", str(results)]
    # What runs in the background of a script ignores SIGINT, and its children do.
    ready = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen([*command, "--model", str(bundle)], stderr=subprocess.PIPE, text=True, **ready) as process:
        until = time.monotonic() + 120
        while not (results.exists() and results.read_text().endswith("\n")) and time.monotonic() < until:
            time.sleep(0.1)
        process.send_signal(end)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "1 film: 1 predicted; " in err and err.splitlines()[-1] == "interrupted"
    assert json.loads(results.read_text())["status"] == "ok"

"""Processes end with who started them, and may end before."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecxr.data.phantom import films
from edgecxr.processes import Processes

PROGRAM = """
import os, time
from edgecxr.processes import Processes
def pid(item):
    return os.getpid()
if __name__ == "__main__":
    with Processes(1, 60) as pool:
        print(list(pool.run(pid, [0]))[0][1], flush=True)
        time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = Path("/proc", parent.stdout.readline().strip())
    assert worker.name.isdigit() and worker.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while worker.exists() and (worker / "cmdline").read_bytes() and time.monotonic() < until:
        time.sleep(0.05)
    gone = not worker.exists() or not (worker / "cmdline").read_bytes()
    if not gone:
        os.kill(int(worker.name), signal.SIGKILL)
    assert gone


def test_phantoms_go_on_in_a_folder_whose_marker_was_being_written(tmp_path: Path) -> None:
    (tmp_path / f".{films.MARKER}.tmp").write_text('{"pha')
    films.write_phantom(tmp_path, 8, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "phantom.json", "test", "train"]


def _slept(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_items_are_taken_as_processes_get_free() -> None:
    taken: list[int] = []

    def items() -> Iterator[float]:
        for number in range(12):
            taken.append(number)
            yield 0.01

    with Processes(2, 60) as pool:
        results = pool.run(_slept, items())
        next(results)
        assert len(taken) <= 5, "two for each of two processes, and the one that came back"
        assert len(list(results)) == 11


def test_a_process_that_is_killed_while_it_has_nothing_to_do_costs_nothing() -> None:
    with Processes(1, 60) as pool:
        assert list(pool.run(abs, [-1])) == [(-1, 1)]
        for child in multiprocessing.active_children():
            child.kill()
            child.join()
        assert list(pool.run(abs, [-2, -3])) == [(-2, 2), (-3, 3)]


def test_what_the_work_raises_is_raised_and_the_processes_are_there_for_the_next() -> None:
    with Processes(2, 60) as pool:
        with pytest.raises(TypeError):
            list(pool.run(abs, ["one", -1]))  # type: ignore[arg-type]
        assert sorted(result for _, result in pool.run(abs, [-2, -3])) == [2, 3]  # type: ignore[type-var]
    assert not multiprocessing.active_children()


UNGUARDED = """
from edgecxr.processes import Processes
with Processes(1, 60) as pool:
    list(pool.run(abs, [-1]))
"""


def test_a_program_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode and "outside `if __name__ == '__main__'`?" in done.stderr.splitlines()[-1]

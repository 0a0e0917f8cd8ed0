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

from edgecxr.errors import EdgeCxrError
from edgecxr.phantom import make
from edgecxr.workers import processes
from edgecxr.workers.processes import Ended, Processes

PROGRAM = """
import os, time
from edgecxr.workers.processes import Processes
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
    (tmp_path / f".{make.MARKER}.tmp").write_text('{"pha')
    make.write_phantom(tmp_path, 8, workers=1)
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
from edgecxr.workers.processes import Processes
with Processes(1, 60) as pool:
    list(pool.run(abs, [-1]))
"""


def test_a_program_without_a_guard_is_told_of_it(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(UNGUARDED)
    done = subprocess.run([sys.executable, tmp_path / "program.py"], capture_output=True, text=True, timeout=60)
    assert done.returncode and "outside `if __name__ == '__main__'`?" in done.stderr.splitlines()[-1]


def _slept_in(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def test_no_item_waits_for_another_where_a_process_has_nothing_to_do() -> None:
    with Processes(2, 60) as pool:
        assert len({process for _, process in pool.run(_slept_in, [0.5, 0.5])}) == 2


def _slow_first(item: tuple[str, float]) -> str:
    name, seconds = item
    time.sleep(seconds)
    return name


def test_a_slow_item_is_tried_once_more_after_all_others_and_each_has_its_own_time() -> None:
    # The second of each process would be late if its clock were that of the first.
    items = [("slow", 600.0), *((f"{number}", 0.6) for number in range(4))]
    with Processes(1, 1.0) as pool:
        found = [(item[0], result) for item, result in pool.run(_slow_first, items)]
    assert found == [*((str(number), str(number)) for number in range(4)), ("slow", Ended("too-slow"))]


def _killed_if_odd(number: int) -> int:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_processes_that_are_killed_now_and_then_are_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MOST_KILLED", 3)
    with Processes(1, 60) as pool:
        found = dict(pool.run(_killed_if_odd, range(9)))
        assert found == {number: Ended("killed") if number % 2 else number for number in range(9)}
        # Over several runs, too: on a cluster each is of few films.
        assert list(pool.run(_killed_if_odd, [1])) == [(1, Ended("killed"))]
        with pytest.raises(EdgeCxrError, match="3 processes in a row were killed, the last one with 3"):
            list(pool.run(_killed_if_odd, [3]))


def _longer(item: bytes) -> bytes:
    return 2 * item


@pytest.mark.parametrize("size", [1000, 250_000, 3_000_000])
def test_items_of_any_size_and_their_answers_arrive(size: int) -> None:
    items = [bytes([number]) * size for number in range(6)]
    with Processes(2, 30) as pool:
        assert sorted(pool.run(_longer, items)) == [(item, 2 * item) for item in items]


TRAP = "from pathlib import Path; Path(__file__).with_suffix('.sprung').touch()"


@pytest.mark.skipif(sys.version_info < (3, 11), reason="an older Python always looks for the library's modules there")
def test_processes_import_nothing_from_the_folder_that_a_user_is_in(tmp_path: Path) -> None:
    here = tmp_path / "films"
    here.mkdir()
    for name in ("pydicom", "numpy", "socket", "dl"):
        (here / f"{name}.py").write_text(TRAP)
    (tmp_path / "program.py").write_text(PROGRAM.replace("time.sleep(60)", "pass"))
    done = subprocess.run([sys.executable, tmp_path / "program.py"], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip().isdigit(), done.stderr
    assert not list(here.glob("*.sprung"))


class Unloadable(Exception):
    """One that cannot be made again from its arguments."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def _fails(item: str) -> object:
    if item == "error":
        raise Unloadable(1, 2)
    return lambda: item


def test_an_error_or_a_result_that_cannot_be_sent_is_said() -> None:
    with Processes(1, 60) as pool:
        with pytest.raises(EdgeCxrError, match="Unloadable: 1 and 2"):
            list(pool.run(_fails, ["error"]))
        with pytest.raises(Exception, match=r"(?i)pickle"):
            list(pool.run(_fails, ["result"]))


def test_a_machine_without_room_for_a_process_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(processes, "_start_server", full)
    with Processes(1, 60) as pool, pytest.raises(EdgeCxrError, match=r"to work .*Too many open files"):
        list(pool.run(abs, [-1]))


def _ends_once(item: tuple[str, str]) -> str:
    name, seen = item
    if name == "suspect":
        if not Path(seen).exists():
            Path(seen).touch()
            os._exit(9)
        time.sleep(2)
    return name


def test_no_item_waits_behind_one_that_has_ended_a_process(tmp_path: Path) -> None:
    names = ["suspect", *(str(number) for number in range(20))]
    with Processes(2, 60) as pool:
        found = [result for _, result in pool.run(_ends_once, [(name, str(tmp_path / "seen")) for name in names])]
    assert sorted(map(str, found)) == sorted(names) and found[-1] == "suspect"

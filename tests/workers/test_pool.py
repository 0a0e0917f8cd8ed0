"""Workers may end, hang, lie or be killed: no more than their item suffers from it."""

from __future__ import annotations

import faulthandler
import gc
import math
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.errors import EdgeCxrError, InputError, MissingPackage, UsageError
from edgecxr.workers import pool as pools
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Limits, Work, WorkerEnd, run

Function = Callable[[Any], tuple[Any, bytes]]


def as_it_is(item: Any, answer: Any, data: bytes) -> Any:
    return answer if answer is not None else data


def as_ended(item: Any, ended: WorkerEnd) -> str:
    return ended.reason


def pool_of(do: Function, count: int = 1, fork: bool = False, **limits: Any) -> Pool[Any, Any]:
    return Pool(Work(do, as_it_is, as_ended), count, Limits(**limits), fork)


def pid(item: object) -> tuple[int, bytes]:
    return os.getpid(), b""


def negative(item: int) -> tuple[int, bytes]:
    return -item, b""


def slept(seconds: float) -> tuple[float, bytes]:
    time.sleep(seconds)
    return seconds, b""


def runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def gone(processes: list[int], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while any(map(runs, processes)) and time.monotonic() < until:
        time.sleep(0.02)
    return not any(map(runs, processes))


# ---- life


PROGRAM = """
import time
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Work, run
from tests.workers.test_pool import as_ended, as_it_is, pid, slept
pool = Pool(Work({work}, as_it_is, as_ended), 1, fork={fork})
if {work} is slept:
    pool.submit(600)
    pool.poll(3)
    print(*pool.pids, pool._template._pid, flush=True)
else:
    print(*dict(run(pool, [0])).values(), pool._template._pid, flush=True)
time.sleep(60)
"""
ROOT = str(Path(__file__).parents[2])


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("work", ["pid", "slept"])
def test_workers_end_when_their_parent_is_killed_whether_they_are_at_work_or_not(work: str, fork: bool) -> None:
    command = [sys.executable, "-c", PROGRAM.format(work=work, fork=fork)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    assert parent.stdout
    processes = [int(word) for word in parent.stdout.readline().split()]
    assert len(processes) == 2 and all(map(runs, processes))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(processes)


@pytest.mark.parametrize("fork", [False, True])
def test_workers_end_with_who_asked(fork: bool) -> None:
    with pool_of(pid, 2, fork) as pool:
        assert len(list(run(pool, range(4)))) == 4
        pool.submit(5)
        pool.poll(0)
        processes = [*pool.pids, pool._template._pid]  # type: ignore[union-attr]
        assert all(map(runs, processes))
    assert gone(processes)


@pytest.mark.parametrize("fork", [False, True])
def test_a_pool_outlives_the_thread_that_made_it(fork: bool) -> None:
    pools: list[Pool[Any, Any]] = []

    def make() -> None:
        pools.append(pool_of(pid, 1, fork))
        pools[0].submit(0)
        pools[0].poll(60)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    with pools[0] as pool:
        before = pool.pids
        time.sleep(0.2)
        assert dict(run(pool, [1, 2])) == dict.fromkeys([1, 2], before[0]) and pool.pids == before


@pytest.mark.parametrize("fork", [False, True])
def test_a_template_that_dies_is_replaced_and_no_item_is_lost(fork: bool) -> None:
    with pool_of(slept, 2, fork) as pool:
        results = run(pool, [0.2] * 6)
        assert next(results)[1] == 0.2
        os.kill(pool._template._pid, signal.SIGKILL)  # type: ignore[union-attr]
        assert [result for _, result in results] == [0.2] * 5
        os.kill(pool._template._pid, signal.SIGKILL)  # type: ignore[union-attr]
        time.sleep(0.1)
        assert dict(run(pool, [0.01])) == {0.01: 0.01}


def test_templates_that_die_with_an_item_again_and_again_cost_that_item() -> None:
    with pool_of(_kills_its_template) as pool:
        assert dict(run(pool, ["bad", "good"])) == {"bad": "killed", "good": "good"}


def _kills_its_template(item: str) -> tuple[str, bytes]:
    if item == "bad":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return item, b""


def test_a_process_that_is_killed_while_it_has_nothing_to_do_costs_nothing() -> None:
    with pool_of(negative) as pool:
        assert dict(run(pool, [1])) == {1: -1}
        (worker,) = pool.pids
        os.kill(worker, signal.SIGKILL)
        gone([worker])
        assert dict(run(pool, [2, 3])) == {2: -2, 3: -3}


def test_ctrl_c_is_the_parents_to_answer() -> None:
    with pool_of(slept) as pool:
        pool.submit(0.5)
        pool.poll(0.3)
        for process in (*pool.pids, pool._template._pid):  # type: ignore[union-attr]
            os.kill(process, signal.SIGINT)
        assert pool.poll(10) == [(0.5, 0.5)]


class Waits:
    """An object whose end waits for a thread, of which a fork has none."""

    def __init__(self) -> None:
        self.itself = self  # only the collector can end it
        self._stop, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        self._stop.wait()
        self._ended.set()

    def __del__(self) -> None:
        self._stop.set()
        self._ended.wait()


def _collects(item: int) -> tuple[int, bytes]:
    gc.collect()
    return item, b""


def test_a_fork_ends_no_object_of_its_parent() -> None:
    gc.disable()
    try:
        Waits()
        with pool_of(_collects, 1, fork=True, seconds=10) as pool:
            assert dict(run(pool, [1])) == {1: 1}
    finally:
        gc.enable()


# ---- items and results


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("size", [1000, 250_000, 3_000_000])
def test_items_of_any_size_and_their_answers_arrive(size: int, fork: bool) -> None:
    items = [bytes([number]) * size for number in range(6)]
    with pool_of(_twice, 2, fork, seconds=30) as pool:
        assert sorted(run(pool, items)) == [(item, 2 * item) for item in items]


def _twice(item: bytes) -> tuple[None, bytes]:
    return None, 2 * item


def test_a_result_is_handed_out_before_the_next_item_is_there() -> None:
    with pool_of(negative, 2) as pool:
        pool.submit(1)
        assert pool.poll(60) == [(1, -1)]
        assert pool.poll(60) == [] and not pool.outstanding, "nothing to wait for"
        pool.submit(2)
        assert pool.poll(60) == [(2, -2)]


def test_poll_waits_no_longer_than_it_is_told_and_returns_what_is_ready() -> None:
    with pool_of(slept, 2) as pool:
        pool.submit(0.0)
        pool.poll(60)
        pool.submit(30.0)
        pool.submit(0.0)
        begun = time.monotonic()
        assert pool.poll(20) == [(0.0, 0.0)]
        assert pool.poll(0.3) == [] and pool.poll() == [] and pool.outstanding == 1
        assert time.monotonic() - begun < 15


def test_items_are_taken_as_processes_get_free() -> None:
    taken: list[int] = []

    def items() -> Iterator[float]:
        for number in range(12):
            taken.append(number)
            yield 0.01

    with pool_of(slept, 2) as pool:
        results = run(pool, items())
        next(results)
        assert len(taken) <= 5, "two for each of two processes, and the one that came back"
        assert len(list(results)) == 11


def test_no_item_waits_for_another_where_a_process_has_nothing_to_do() -> None:
    with pool_of(_slept_in, 2) as pool:
        assert len({process for _, process in run(pool, [0.5, 0.5])}) == 2


def _slept_in(seconds: float) -> tuple[int, bytes]:
    time.sleep(seconds)
    return os.getpid(), b""


def test_a_worker_is_replaced_after_so_many_items() -> None:
    with pool_of(pid, renew_after=2) as pool:
        used = [process for _, process in run(pool, range(6))]
        assert len(set(used)) == 3 and used[0] == used[1] != used[2] == used[3] and gone(used[:4])


# ---- what goes wrong with an item


def _ends(item: str) -> tuple[str, bytes]:
    faulthandler.disable()  # pytest's, which would print what it was doing
    if item.startswith("SIG"):
        os.kill(os.getpid(), signal.Signals[item])
    if item == "exit":
        os._exit(0)
    return item, b""


@pytest.mark.parametrize("fork", [False, True])
@pytest.mark.parametrize("tries", [1, 2])
def test_an_item_that_ends_its_worker_costs_that_item_alone(tries: int, fork: bool) -> None:
    items = ["a", "SIGSEGV", "b", "SIGKILL", "exit", "c", "SIGABRT"]
    with pool_of(_ends, 2, fork, tries=tries) as pool:
        results = dict(run(pool, items))
        assert results == {
            "a": "a", "b": "b", "c": "c", "SIGSEGV": "crash", "SIGKILL": "killed", "exit": "crash", "SIGABRT": "crash",
        }  # fmt: skip
        assert dict(run(pool, ["d"])) == {"d": "d"}


def test_how_a_worker_ended_is_told() -> None:
    with Pool(Work(_ends, as_it_is, lambda item, ended: ended), 1) as pool:
        results = dict(run(pool, ["SIGSEGV", "exit"]))
    assert results == {"SIGSEGV": WorkerEnd("crash", -signal.SIGSEGV), "exit": WorkerEnd("crash", 0)}


def _slow_first(item: tuple[str, float]) -> tuple[str, bytes]:
    name, seconds = item
    time.sleep(seconds)
    return name, b""


@pytest.mark.parametrize("fork", [False, True])
def test_an_item_is_not_late_because_nobody_asked_for_it(fork: bool) -> None:
    with pool_of(negative, 1, fork, seconds=0.5) as pool:
        for number in range(3):
            pool.submit(number)
        results = pool.poll(60)
        time.sleep(1.5)
        while pool.outstanding:
            results += pool.poll(60)
        pool.submit(7)
        # A quick worker has answered by now, a slow one has not.
        results += pool.poll(0)
        time.sleep(1.5)
        results += pool.poll(60)
        assert results == [(0, 0), (1, -1), (2, -2), (7, -7)]


def test_a_slow_item_is_tried_once_more_after_all_others_and_each_has_its_own_time() -> None:
    # The second of each process would be late if its clock were that of the first.
    items = [("slow", 600.0), *((f"{number}", 0.6) for number in range(4))]
    with pool_of(_slow_first, seconds=1.0, tries=2) as pool:
        results = [(item[0], result) for item, result in run(pool, items)]
    assert results == [*((str(number), str(number)) for number in range(4)), ("slow", "too-slow")]


def test_an_item_may_have_a_limit_of_its_own() -> None:
    with pool_of(slept, seconds=0.2) as pool:
        pool.submit(0.6, seconds=30)
        pool.submit(0.6)
        assert pool.poll(20) + pool.poll(20) == [(0.6, 0.6), (0.6, "too-slow")]


STOPPED = """
from tests.workers.test_pool import pool_of, slept
with pool_of(slept, seconds=3.0, tries=1) as pool:
    pool.submit(0.0)
    pool.poll(60)
    print(*pool.pids, flush=True)
    pool.submit(1.5)
    print(pool.poll(60), flush=True)
"""


def test_time_in_which_all_processes_were_stopped_is_not_an_items() -> None:
    command = [sys.executable, "-c", STOPPED]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": ROOT})
    assert parent.stdout
    processes = [parent.pid, *map(int, parent.stdout.readline().split())]
    time.sleep(0.5)
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    time.sleep(5)
    for process in processes:  # this one first, so that it looks before the worker can answer
        os.kill(process, signal.SIGCONT)
        time.sleep(0.3)
    assert parent.stdout.read() == "[(1.5, 1.5)]\n" and parent.wait() == 0


def _allocates(mib: int) -> tuple[int, bytes]:
    return int(np.ones(mib << 20, np.uint8)[-1]), b""


@pytest.mark.parametrize("fork", [False, True])
def test_an_item_that_wants_too_much_memory_is_refused_and_its_worker_replaced(fork: bool) -> None:
    with pool_of(_allocates, 1, fork, memory_mib=200) as pool:
        pool.submit(1)
        pool.poll(60)
        before = pool.pids
        assert dict(run(pool, [100, 600, 10])) == {100: 1, 600: "memory", 10: 1}
        assert pool.pids != before


def test_processes_that_are_killed_now_and_then_are_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "_MOST_KILLED", 3)
    with pool_of(_killed_if_odd, tries=2) as pool:
        assert dict(run(pool, range(9))) == {number: "killed" if number % 2 else number for number in range(9)}
        # Over several runs, too: on a cluster each is of few films.
        assert list(run(pool, [1])) == [(1, "killed")]
        with pytest.raises(EdgeCxrError, match=r"3 processes in a row .*killed, .*with 3"):
            list(run(pool, [3]))


def _killed_if_odd(number: int) -> tuple[int, bytes]:
    if number % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, b""


def _ends_once(marker: str, name: str) -> tuple[str, bytes]:
    if name == "suspect":
        if not Path(marker).exists():
            Path(marker).touch()
            os._exit(9)
        time.sleep(2)
    return name, b""


def test_no_item_waits_behind_one_that_has_ended_a_process(tmp_path: Path) -> None:
    names = ["suspect", *(str(number) for number in range(20))]
    with pool_of(partial(_ends_once, str(tmp_path / "seen")), 2, seconds=60, tries=2) as pool:
        results = [result for _, result in run(pool, names)]
    assert sorted(results) == sorted(names) and results[-1] == "suspect"


# ---- errors and lies


ERRORS = {
    "usage": UsageError("give another"),
    "input": InputError("no film", "malformed"),
    "missing": MissingPackage("openvino", "openvino", "it"),
    "other": ValueError("1 and 2"),
}


def _fails(name: str) -> tuple[Any, bytes]:
    if name in ERRORS:
        raise ERRORS[name]
    return (object() if name == "not plain" else name), b""


def test_an_error_is_raised_as_it_was_and_the_processes_are_there_for_the_next() -> None:
    with pool_of(_fails, 2) as pool:
        for name, error in ERRORS.items():
            kind = type(error) if isinstance(error, EdgeCxrError) else EdgeCxrError
            with pytest.raises(kind, match="ValueError: 1 and 2" if name == "other" else str(error)[:8]) as caught:
                list(run(pool, [name]))
            assert getattr(caught.value, "reason", None) == getattr(error, "reason", None)
        with pytest.raises(EdgeCxrError, match="not JSON serializable"):
            list(run(pool, ["not plain"]))
        assert dict(run(pool, ["a", "b"])) == {"a": "a", "b": "b"}


def test_an_error_costs_no_result_of_another_item() -> None:
    with pool_of(_fails) as pool:
        for name in ("a", "usage", "b"):
            pool.submit(name)
        results: dict[str, str] = {}
        errors = 0
        while pool.outstanding:
            try:
                results.update(pool.poll(60))
            except UsageError:
                errors += 1
        assert results == {"a": "a", "b": "b"} and errors == 1


def _answers_what_it_likes(message: bytes) -> tuple[Any, bytes]:
    if message:
        for descriptor in range(3, 64):  # that to the parent is one of them
            try:
                if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                    os.write(descriptor, message)
            except OSError:
                continue
        time.sleep(60)
    return "good", b""


@pytest.mark.parametrize("fork", [False, True])
def test_what_no_worker_answers_ends_it_and_costs_its_item(fork: bool) -> None:
    head = pools_head
    lies = [
        head(1 << 30, 0), head(2, 1 << 62), head(2, 0) + b"{}", head(4, 0) + b"true", head(3, 0) + b"\xff\xff\xff",
        head(18, 0) + b'["error", "what?"]', head(11, 0) + b'["what", 1]', head(20, 0) + b'["error", [1, 2, 3]]',
        head(7, 0) + b"[[[[[[[", b"\0" * 11,
    ]  # fmt: skip
    with pool_of(_answers_what_it_likes, 1, fork, seconds=2) as pool:
        results = [result for _, result in run(pool, [*lies, b""])]
    assert set(results[:-1]) <= {"crash", "too-slow"} and results[-1] == "good" and len(results) == len(lies) + 1


def pools_head(text: int, data: int) -> bytes:
    return text.to_bytes(4, "big") + data.to_bytes(8, "big")


def test_an_answer_that_is_not_accepted_ends_its_worker() -> None:
    def accept(item: int, answer: Any, data: bytes) -> int:
        if item == 2:
            raise ValueError
        return int(answer)

    with Pool(Work(negative, accept, lambda item, ended: 0), 1) as pool:
        assert dict(run(pool, [1, 2, 3])) == {1: -1, 2: 0, 3: -3}


def test_an_answer_is_no_larger_than_it_may_be() -> None:
    with Pool(Work(_twice, as_it_is, as_ended, largest=1000), 1) as pool:
        assert list(run(pool, [b"1" * 100, b"1" * 600])) == [(b"1" * 100, b"1" * 200), (b"1" * 600, "crash")]


# ---- no process


def test_work_that_does_not_load_says_why() -> None:
    with pool_of(Unloadable(), 2) as pool, pytest.raises(EdgeCxrError, match=r"ModuleNotFoundError.*no_such_module"):
        list(run(pool, [1, 2, 3]))


class Unloadable:
    """Work that can be pickled here, and not loaded elsewhere."""

    def __call__(self, item: Any) -> tuple[Any, bytes]:
        raise AssertionError

    def __reduce__(self) -> tuple[Any, ...]:
        return (__import__, ("no_such_module",))


def test_a_machine_without_room_for_a_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(pools.Template, "start_worker", full)
    with pool_of(negative) as pool, pytest.raises(EdgeCxrError, match=r"to work .*Too many open files"):
        list(run(pool, [1]))
    monkeypatch.setattr("os.posix_spawn", full)
    with pool_of(negative) as pool, pytest.raises(EdgeCxrError, match=r"to work .*Too many open files"):
        list(run(pool, [1]))


def _limits_itself(item: int) -> tuple[int, bytes]:
    return item, b""


def test_a_worker_that_cannot_be_started_just_now_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pools.Template.start_worker
    started: list[int] = []

    def once(template: Any) -> Any:
        if started:
            raise OSError(11, "Resource temporarily unavailable")
        started.append(1)
        return real(template)

    monkeypatch.setattr(pools.Template, "start_worker", once)
    with pool_of(_limits_itself, 4) as pool:
        assert sorted(item for item, _ in run(pool, range(8))) == list(range(8)) and len(pool.pids) == 1


def test_poll_without_items_returns_at_once() -> None:
    with pool_of(negative) as pool:
        assert pool.poll(math.inf) == [] and not pool.pids

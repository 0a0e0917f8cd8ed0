from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecxr.bench import lanes
from edgecxr.bench.candidates import Candidate, Model
from edgecxr.bench.lanes import Lane, Samples
from edgecxr.bench.worker import Refused


class Fake:
    """A worker of which one image takes `ms`, and that takes at most `most` at a time."""

    def __init__(self, ms: float = 1.0, most: int = 1000) -> None:
        self.start = {"process": 0.1, "open": 0.1, "first": 0.1}
        self.ms, self.most, self.closed = ms, most, False
        self.asked: list[tuple[int, int]] = []

    def time(self, batch: int, runs: int, warm: int = 0) -> list[float]:
        self.asked.append((batch, runs))
        if batch > self.most:
            raise Refused("too many")
        return [batch * self.ms / 1000] * runs

    def busy(self, batch: int, seconds: float) -> tuple[int, float]:
        return 10 * batch, seconds

    def memory(self) -> float:
        return 42.0

    def close(self) -> None:
        self.closed = True


class Meter:
    name, scope = "RAPL", "CPU package"

    def start(self) -> None: ...

    def stop(self) -> float:
        return 5.0


def lane(worker: Any) -> Lane:
    model = Model("a", "student", (1, 28, 28), "trained")
    return Lane(Candidate(model, "onnxruntime", "fp32", "", {}, None), Samples(), worker)


def test_batches_are_powers_of_four_and_the_largest() -> None:
    assert lanes.sizes(64) == [4, 16, 64]
    assert lanes.sizes(100) == [4, 16, 64, 100]
    assert lanes.sizes(1) == [] and lanes.sizes(2) == [2]


def test_a_quick_model_runs_more_often_in_a_turn_but_none_without_end() -> None:
    for ms, runs in ((0.1, lanes.MOST_RUNS), (50.0, 5), (2000.0, 3)):
        one = lane(Fake(ms))
        lanes.warm_up(one)
        assert one.runs_per_turn == runs
        lanes.take_turn(one)
        assert len(one.samples.runs) == runs


def test_batches_that_take_too_long_or_too_much_are_skipped_with_the_reason() -> None:
    slow = lane(Fake(400.0))
    slow.samples.runs = [0.4]
    lanes.batches(slow, 64, None)
    assert list(slow.samples.batches) == [4, 16] and "about 26 s" in slow.samples.skipped[64]
    small = lane(Fake(1.0, most=4))
    small.samples.runs = [0.001]
    lanes.batches(small, 64, None)
    assert list(small.samples.batches) == [4] and small.samples.skipped == {16: "too many"}
    assert small.samples.host_largest == 42.0


def test_one_that_fails_keeps_what_it_has_and_the_others_go_on() -> None:
    good, bad = lane(Fake()), lane(Fake(most=0))
    bad.samples.runs = [0.5]
    both = [bad, good]
    lanes.each(both, lanes.take_turn)
    assert both == [good] and bad.worker.closed  # type: ignore[attr-defined]
    assert bad.samples.problem == "too many" and bad.samples.runs == [0.5] and good.samples.runs


def test_energy_is_that_of_an_image_alone_and_at_the_best_batch() -> None:
    one = lane(Fake())
    one.samples.batches = {4: [0.002], 16: [0.016]}
    lanes.energy(one, Meter(), 2.0)
    assert [(e["batch"], e["joules_per_image"], e["watts"]) for e in one.samples.energy] == [
        (1, 0.5, 2.5), (4, 0.125, 2.5),
    ]  # fmt: skip


def test_an_engine_that_is_not_installed_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = []

    def refuse(opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> Any:
        tried.append(opener)
        raise Refused("needs openvino", absent=True)

    monkeypatch.setattr(lanes, "Worker", refuse)
    group = [lane(None).candidate] * 3
    absent: dict[str, str] = {}
    with lanes.opened(group, {"a/onnxruntime/fp32": Samples()}, absent, None) as found:
        assert found == []
    assert len(tried) == 1 and absent == {"onnxruntime": "needs openvino"}


def test_what_a_model_takes_of_a_gpus_memory_is_seen_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    used = iter([100.0, 350.0, 350.0, 400.0])
    monkeypatch.setattr(lanes, "Worker", lambda *args: Fake())
    one = Candidate(Model("a", "student", (1, 28, 28), "trained"), "tensorrt", "fp16", "", {}, None, gpu=True)
    samples = {one.id: Samples()}
    with lanes.opened([one], samples, {}, lambda: next(used)) as found:
        found[0].samples.runs = [0.001]
        lanes.batches(found[0], 4, lambda: next(used))
    assert samples[one.id].device == 300.0

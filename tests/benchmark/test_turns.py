from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgecxr.benchmark import turns
from edgecxr.benchmark.candidates import Candidate, Model
from edgecxr.benchmark.model_process import Refused
from edgecxr.benchmark.turns import Lane, Samples


class Fake:
    """A worker of which one image takes `ms`, and that takes at most `most` at a time."""

    def __init__(self, ms: float = 1.0, most: int = 1000) -> None:
        self.start = {"process": 0.1, "open": 0.1, "first": 0.1}
        self.ms, self.most, self.closed, self.engine = ms, most, False, None
        self.dies = False
        self.calls: list[tuple[int, int]] = []

    def time(self, batch: int, runs: int, warm: int = 0) -> list[float]:
        self.calls.append((batch, runs))
        if batch > self.most:
            self.closed = self.dies
            raise Refused("too many")
        return [batch * self.ms / 1000] * runs

    def busy(self, batch: int, seconds: float) -> tuple[int, float]:
        return 10 * batch, seconds

    def memory(self) -> float:
        return 42.0

    def close(self) -> None:
        self.closed = True

    @property
    def alive(self) -> bool:
        return not self.closed


class Meter:
    name, scope = "RAPL", "CPU package"

    def start(self) -> None: ...

    def stop(self) -> float:
        return 5.0


def lane(worker: Any) -> Lane:
    model = Model("a", "student", (1, 28, 28), "trained")
    return Lane(Candidate(model, "onnxruntime", "fp32", "", {}, None), Samples(), worker)


def test_batches_are_powers_of_four_and_the_largest() -> None:
    assert turns.sizes(64) == [4, 16, 64]
    assert turns.sizes(100) == [4, 16, 64, 100]
    assert turns.sizes(1) == [] and turns.sizes(2) == [2]


def test_a_turn_is_a_quarter_of_a_second_or_three_runs() -> None:
    for ms, runs in ((0.1, 2500), (50.0, 5), (2000.0, 3)):
        fake_lane = lane(Fake(ms))
        turns.warm_up(fake_lane)
        assert fake_lane.runs_per_turn == runs
        turns.take_turn(fake_lane)
        assert len(fake_lane.samples.runs) == runs


def test_batches_that_take_too_long_or_too_much_are_skipped_with_the_reason() -> None:
    slow = lane(Fake(400.0))
    slow.samples.runs = [0.4]
    turns.batches(slow, 64, None)
    assert list(slow.samples.batches) == [4, 16] and "about 26 s" in slow.samples.skipped[64]
    small = lane(Fake(1.0, most=4))
    small.samples.runs = [0.001]
    turns.batches(small, 64, None)
    assert list(small.samples.batches) == [4] and small.samples.skipped == {16: "too many"}
    assert small.samples.host_largest == 42.0


def test_one_that_fails_keeps_what_it_has_and_the_others_go_on() -> None:
    good, bad = lane(Fake()), lane(Fake(most=0))
    bad.samples.runs = [0.5]
    both = [bad, good]
    turns.take_turns(both)
    assert both == [good] and bad.worker.closed  # type: ignore[attr-defined]
    assert bad.samples.problems == {"latency": "too many"} and bad.samples.runs == [0.5] and good.samples.runs


def test_a_stage_that_fails_costs_no_more_than_that_stage() -> None:
    def fail(lane: Lane) -> None:
        raise Refused("no such film")

    fake_lane = lane(Fake())
    rest = [fake_lane]
    turns.for_each_lane(rest, "film", fail)
    assert rest == [fake_lane] and fake_lane.samples.problems == {"film": "no such film"}


def test_a_batch_that_ended_the_process_is_remembered_and_the_rest_is_kept() -> None:
    fake_lane = lane(Fake(most=4))
    fake_lane.worker.dies = True  # type: ignore[attr-defined]
    fake_lane.samples.runs = [0.001]
    rest = [fake_lane]
    turns.for_each_lane(rest, "throughput", lambda lane: turns.batches(lane, 64, None))
    assert rest == [] and fake_lane.samples.problems == {"throughput": "batch 16: too many"}
    again = Lane(fake_lane.candidate, fake_lane.samples, Fake())
    turns.batches(again, 64, None)
    assert [batch for batch, _ in again.worker.calls] == [4]  # type: ignore[attr-defined]
    assert len(fake_lane.samples.batches[4]) > 20 and fake_lane.samples.skipped == {16: "too many"}


def test_turns_are_begun_by_each_in_turn() -> None:
    order: list[int] = []

    class RecordingFake(Fake):
        def time(self, batch: int, runs: int, warm: int = 0) -> list[float]:
            order.append(id(self))
            return super().time(batch, runs, warm)

    both = [lane(RecordingFake(100.0)), lane(RecordingFake(100.0))]
    turns.take_turns(both)
    first, second = (id(each.worker) for each in both)
    assert order[2:8] == [first, second, second, first, first, second]


def test_energy_is_that_of_an_image_alone_and_at_the_best_batch() -> None:
    fake_lane = lane(Fake())
    fake_lane.samples.batches = {4: [0.002], 16: [0.016]}
    turns.energy(fake_lane, Meter(), 2.0)
    assert [(e["batch"], e["joules_per_image"], e["watts"]) for e in fake_lane.samples.energy] == [
        (1, 0.5, 2.5), (4, 0.125, 2.5),
    ]  # fmt: skip


def test_an_engine_that_is_not_installed_is_tried_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = []

    def refuse(opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> Any:
        tried.append(opener)
        raise Refused("needs openvino", absent=True)

    monkeypatch.setattr(turns, "Worker", refuse)
    group = [lane(None).candidate] * 3
    absent: dict[str, str] = {}
    with turns.opened(group, {"a/onnxruntime/fp32": Samples()}, absent, None) as (lanes, left):
        assert lanes == [] and left == []
    assert len(tried) == 1 and absent == {"onnxruntime": "needs openvino"}


def test_what_a_model_takes_of_a_gpus_memory_is_seen_around_it_and_does_not_grow_with_the_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "Worker", lambda *args: Fake())
    candidate = Candidate(Model("a", "student", (1, 28, 28), "trained"), "tensorrt", "fp16", "", {}, None, gpu=True)
    samples = {candidate.id: Samples()}
    for _ in range(3):
        used = iter([100.0, 350.0, 350.0, 400.0])
        with turns.opened([candidate], samples, {}, lambda used=used: next(used)) as (lanes, _):
            lanes[0].samples.runs = [0.001]
            turns.batches(lanes[0], 4, lambda used=used: next(used))
    assert (samples[candidate.id].device, samples[candidate.id].device_largest) == (250.0, 300.0)


def test_what_finds_no_room_is_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "Worker", lambda *args: Fake())
    names = "abc"
    group = [Candidate(Model(name, "student", (1, 28, 28), "trained"), "torch", "fp32", "", {}, None) for name in names]
    samples = {each.id: Samples() for each in group}
    with turns.opened(group, samples, {}, None, lambda: False) as (lanes, left):
        assert [each.candidate.model.name for each in lanes] == ["a"] and left == group[1:]


def test_a_meter_that_fails_costs_the_energy_alone() -> None:
    class Broken(Meter):
        def stop(self) -> float:
            raise OSError("no such device")

    with pytest.raises(Refused, match="the meter failed"):
        turns.energy(lane(Fake()), Broken(), 1.0)

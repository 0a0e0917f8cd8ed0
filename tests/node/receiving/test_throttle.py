"""The log hears of an address now and then, and never of none for good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.node.receiving import throttle
from edgecxr.node.receiving.throttle import EVERY, Throttle


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now[0])
    return now


def test_a_key_comes_through_once_in_its_time(clock: list[float]) -> None:
    gate = Throttle()
    assert [gate.allows(key) for key in ("a", "a", "b")] == [True, False, True]
    clock[0] += EVERY + 1
    assert [gate.allows(key) for key in ("a", "a")] == [True, False]


def test_a_flood_of_addresses_mutes_nobody_for_good(clock: list[float]) -> None:
    gate = Throttle()
    assert sum(gate.allows(f"flood {number}") for number in range(5000)) == throttle.MOST
    assert not gate.allows("the modality")
    clock[0] += EVERY + 1
    assert gate.allows("the modality")


@given(st.lists(st.tuples(st.floats(0, 2 * EVERY), st.sampled_from("abc")), max_size=30))
def test_two_lines_about_one_key_are_far_apart(events: list[tuple[float, str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = 0.0
        patch.setattr(throttle.time, "monotonic", lambda: now)
        gate, last = Throttle(), {}
        for wait, key in events:
            now += wait
            if gate.allows(key):
                assert now - last.get(key, float("-inf")) > EVERY
                last[key] = now
            else:
                assert now - last[key] <= EVERY

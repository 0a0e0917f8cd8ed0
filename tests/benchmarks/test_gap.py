"""benchmarks/gap.py and paper.py: the share of the gap that a method closes, ours and the paper's."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import paper
from gap import Sample, gap, over_seeds, paired, share

from edgecxr.metrics import Interval


def sample(value: float, spread: float = 0.0, seed: int = 0) -> Sample:
    return Sample(value, value + spread * np.random.default_rng(seed).normal(size=2000))


def shared(teacher: Sample, plain: Sample, taught: Sample) -> Interval | None:
    return share(teacher, {0: plain}, {0: taught}, seed=0)


def test_a_share_by_hand():
    closed = shared(sample(0.80), sample(0.70), sample(0.76))
    assert closed is not None
    assert (closed.value, closed.low, closed.high) == pytest.approx((0.6, 0.6, 0.6))
    worse = shared(sample(0.80), sample(0.70), sample(0.69))
    assert worse is not None and worse.value == pytest.approx(-0.1)


def test_a_gap_that_may_be_none_has_no_share():
    teacher, plain = sample(0.75, 0.02, 1), sample(0.74, 0.02, 2)
    difference = gap(teacher, {0: plain}, seed=0)
    assert difference.low < 0 < difference.high
    assert shared(teacher, plain, sample(0.745, 0.02, 3)) is None
    assert shared(sample(0.70), sample(0.75), sample(0.76)) is None  # the student is better than its teacher
    assert share(sample(0.80), {0: sample(0.70)}, {1: sample(0.76)}, seed=0) is None  # no seed in common


def test_the_interval_of_a_share_is_paired():
    # All three move together from one replicate to the other: the share hardly does.
    shift = 0.03 * np.random.default_rng(0).normal(size=2000)
    teacher, plain, taught = (Sample(v, v + shift) for v in (0.80, 0.70, 0.76))
    together = shared(teacher, plain, taught)
    assert together is not None and together.high - together.low < 1e-9
    apart = shared(sample(0.80, 0.03, 1), sample(0.60, 0.03, 2), sample(0.72, 0.03, 3))
    assert apart is not None and apart.low < 0.6 < apart.high and apart.high - apart.low > 0.2


@pytest.mark.parametrize("correlation", [-0.8, 0.0, 0.9])
@pytest.mark.parametrize("seeds", [3, 5])
def test_the_interval_of_a_share_holds_the_truth_as_often_as_it_says(seeds, correlation):
    rng = np.random.default_rng(0)
    spread = 0.01**2 * np.array([[1, correlation], [correlation, 1]])
    teacher = Sample(0.9, np.full(20, 0.9))
    held = []
    for trial in range(400):
        students = rng.multivariate_normal([0.7, 0.8], spread, seeds)
        plain, taught = (
            {number: Sample(value, np.full(20, value)) for number, value in enumerate(side)} for side in students.T
        )
        closed = share(teacher, plain, taught, seed=trial)
        assert closed is not None
        held.append(closed.low <= 0.5 <= closed.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.035)


def test_the_ends_of_an_interval_do_not_depend_on_the_draw():
    students = [sample(value, 0.005, number) for number, value in enumerate((0.80, 0.82, 0.85, 0.81, 0.84))]
    ends = [over_seeds(students, seed).interval for seed in range(40)]
    width = ends[0].high - ends[0].low
    assert np.std([end.low for end in ends]) < 0.01 * width and np.std([end.high for end in ends]) < 0.01 * width


def test_seeds_are_averaged_and_widen_the_interval():
    first, other = sample(0.70, 0.001, 1), sample(0.80, 0.001, 2)
    both = over_seeds([first, other], seed=0)
    assert both.value == pytest.approx(0.75)
    assert np.median(both.replicates) == pytest.approx(0.75, abs=0.01)
    # Of two values next to nothing is known: 12.7 standard errors of 0.05 to either side.
    assert 2 * 8 * 0.05 < both.interval.high - both.interval.low < 2 * 20 * 0.05
    alone = over_seeds([first], seed=5)
    assert np.array_equal(alone.replicates, first.replicates)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_over_seeds_holds_the_truth_as_often_as_it_says(seeds):
    rng = np.random.default_rng(0)
    fixed = np.zeros(1000)
    held = 0
    for trial in range(400):
        interval = over_seeds(
            [Sample(value, value + fixed) for value in rng.normal(0.8, 0.01, seeds)], seed=trial
        ).interval
        held += interval.low <= 0.8 <= interval.high
    assert held / 400 == pytest.approx(0.95, abs=0.03)


def test_a_difference_is_paired_by_seed():
    ours = {0: sample(0.81, 0.01, 1), 1: sample(0.72, 0.01, 1), 5: sample(0.9)}
    theirs = {1: sample(0.71, 0.01, 1), 0: sample(0.80, 0.01, 1), 7: sample(0.1)}
    pairs = paired(ours, theirs)
    assert [pair.value for pair in pairs] == pytest.approx([0.01, 0.01])
    # The seeds differ by 0.09, their differences by nothing: the interval is as narrow as the films allow.
    interval = over_seeds(pairs, seed=0).interval
    assert interval.low == pytest.approx(0.01) and interval.high == pytest.approx(0.01)
    assert len(paired({3: sample(0.9)}, theirs, unlike=True)) == 3
    with pytest.raises(ValueError, match="several teachers"):
        paired(ours, theirs, unlike=True)


def test_the_paper_s_shares_that_the_project_is_held_to():
    assert paper.share("tiny", "findings", "mlcak", 28) == pytest.approx(0.61, abs=0.005)
    assert paper.share("tiny", "abnormal", "mlcak", 28) == pytest.approx(0.88, abs=0.005)
    assert paper.share("base", "findings", "mlcak", 112) is None  # there the student beats its teacher
    assert paper.student("huge", "findings", "mlcak", 28) is None
    assert paper.student("small", "abnormal", "one-to-one", 56) == 0.8891

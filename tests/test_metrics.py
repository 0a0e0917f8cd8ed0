from __future__ import annotations

import math

import numpy as np
import pytest

from edgecxr import metrics

NAN = math.nan


def pairs(targets, scores):
    """AUROC by counting pairs."""
    positive = [s for t, s in zip(targets, scores, strict=True) if t >= 0.5]
    negative = [s for t, s in zip(targets, scores, strict=True) if t < 0.5]
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


def test_auroc_equals_the_share_of_ordered_pairs_with_ties_and_unknown_targets():
    rng = np.random.default_rng(0)
    targets = rng.choice([0.0, 1.0, 0.3, 0.7, NAN], 200)
    scores = rng.integers(0, 12, 200).astype(float)  # many ties
    assert metrics.auroc(targets, scores) == pytest.approx(pairs(targets, scores), abs=1e-12)


@pytest.mark.parametrize("targets", [[1, 1, NAN], [0, 0, 0], [NAN, NAN, NAN]])
def test_one_class_has_no_auroc(targets):
    assert math.isnan(metrics.auroc(np.array(targets, float), np.arange(3.0)))


def test_weights_count_as_repetitions():
    rng = np.random.default_rng(1)
    targets, scores = rng.integers(0, 2, 30).astype(float), rng.integers(0, 9, 30).astype(float)
    weights = rng.integers(0, 4, 30)
    repeated = metrics.auroc(np.repeat(targets, weights), np.repeat(scores, weights))
    assert metrics.weighted_auroc(targets, scores, weights[None].astype(float))[0] == pytest.approx(repeated)


def test_the_bootstrap_draws_whole_patients():
    patients = np.array(["a", "a", "b", "c", "c", "c"])
    weights = metrics.patient_weights(patients, replicates=200, seed=3)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 3] == weights[:, 5]).all()
    # As many patients as there are, drawn with replacement.
    assert (weights[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert weights[:, 2].max() >= 2


def test_intervals_of_clustered_films_are_wider_than_if_films_were_independent():
    rng = np.random.default_rng(2)
    sick = rng.integers(0, 2, 60)
    targets, scores = np.repeat(sick, 10).astype(float), np.repeat(sick + rng.normal(0, 1.5, 60), 10)
    clustered, naive = (
        metrics.aurocs(targets[:, None], scores[:, None], metrics.patient_weights(names)).of(0)
        for names in (np.repeat(np.arange(60), 10), np.arange(600))
    )
    assert clustered.low < clustered.value < clustered.high
    assert clustered.high - clustered.low > 2 * (naive.high - naive.low)


def test_the_macro_average_leaves_out_labels_with_one_class():
    targets = np.array([[0, 1], [1, 1], [0, 1], [1, 1]], float)
    scores = np.array([[0.1, 0], [0.9, 1], [0.2, 2], [0.8, 3]])
    scored = metrics.aurocs(targets, scores, metrics.patient_weights(np.arange(4), 50))
    assert math.isnan(scored.labels[1])
    assert scored.macro.value == 1.0


def test_a_replicate_that_loses_a_class_drops_that_label_for_both_models():
    ours = metrics.Aurocs(np.array([0.9, 0.8]), np.array([[0.9, NAN], [0.9, 0.8]]))
    theirs = metrics.Aurocs(np.array([0.7, 0.8]), np.array([[0.7, 0.6], [0.7, 0.8]]))
    difference = metrics.macro_difference(ours, theirs)
    assert difference.value == pytest.approx(0.1)
    # The first replicate compares the first label only (0.2), the second both (0.1).
    assert (difference.low, difference.high) == (pytest.approx(0.1025), pytest.approx(0.1975))


def test_youden_takes_the_threshold_of_greatest_sensitivity_plus_specificity():
    targets = np.array([0, 0, 1, 0, 1, 1], float)
    probabilities = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    # Between 0.2 and 0.3: sensitivity 1, specificity 2/3; between 0.4 and 0.5: 2/3 and 1. The first one wins a tie.
    assert metrics.operating_point(targets, probabilities, "youden") == pytest.approx(0.25)


def test_sensitivity90_keeps_the_highest_specificity_that_finds_nine_of_ten():
    targets = np.array([1] * 10 + [0] * 10, float)
    probabilities = np.r_[np.linspace(0.5, 0.95, 10), np.linspace(0.05, 0.5, 10)]
    threshold = metrics.operating_point(targets, probabilities, "sensitivity90")
    sensitivity, specificity = metrics.sensitivity_specificity(targets, probabilities, threshold)
    assert sensitivity == pytest.approx(0.9)
    assert specificity == 1.0
    assert 0.5 < threshold < 0.55


def test_an_operating_point_needs_both_classes():
    assert math.isnan(metrics.operating_point(np.ones(3), np.array([0.1, 0.2, 0.3]), "youden"))


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert metrics.sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0.0, 0.5, 1.0]

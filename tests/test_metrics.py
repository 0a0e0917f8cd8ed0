from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr import metrics
from edgecxr.evaluate.operating_points import operating_point

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
    assert operating_point(targets, probabilities, "youden") == pytest.approx(0.25)


def test_sensitivity90_keeps_the_highest_specificity_that_finds_nine_of_ten():
    targets = np.array([1] * 10 + [0] * 10, float)
    probabilities = np.r_[np.linspace(0.5, 0.95, 10), np.linspace(0.05, 0.5, 10)]
    threshold = operating_point(targets, probabilities, "sensitivity90")
    sensitivity, specificity = metrics.sensitivity_specificity(targets, probabilities, threshold)
    assert sensitivity == pytest.approx(0.9)
    assert specificity == 1.0
    assert 0.5 < threshold < 0.55


def test_an_operating_point_needs_both_classes():
    assert math.isnan(operating_point(np.ones(3), np.array([0.1, 0.2, 0.3]), "youden"))


def test_sigmoid_does_not_overflow():
    with np.errstate(all="raise"):
        assert metrics.sigmoid(np.array([-1e4, 0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_a_soft_target_is_positive_from_one_half_on():
    targets = np.array([0.5, 0.49, NAN, 1, 0])
    assert metrics.binarise(targets)[[0, 1, 3, 4]].tolist() == [1, 0, 1, 0]
    assert metrics.counts(targets) == (2, 2)
    # Positives score 2 and 1, negatives 1 and 3: one win and one tie of four pairs.
    assert metrics.auroc(targets, np.array([2.0, 1.0, 9.0, 1.0, 3.0])) == pytest.approx(1.5 / 4)


def test_a_weighting_without_one_of_the_classes_has_no_auroc():
    weights = np.array([[1, 1, 1], [0, 1, 1], [1, 0, 0]], float)
    areas = metrics.weighted_auroc(np.array([1.0, 0.0, 0.0]), np.array([1.0, 0.0, 2.0]), weights)
    assert areas[0] == 0.5
    assert np.isnan(areas[1:]).all()


def test_the_interval_covers_the_true_value_about_as_often_as_it_says():
    shift, covered, studies = 1.0, 0, 200
    true = 0.5 * (1 + math.erf(shift / 2))  # P(N(1, 1) > N(0, 1))
    targets = np.repeat([0.0, 1.0], 50)
    for study in range(studies):
        scores = np.random.default_rng(study).normal(size=100) + shift * targets
        weights = metrics.patient_weights(np.arange(100), replicates=300, seed=study)
        area = metrics.aurocs(targets[:, None], scores[:, None], weights).of(0)
        covered += area.low <= true <= area.high
    assert 0.90 <= covered / studies <= 0.99


def test_a_seed_fixes_the_replicates_that_two_models_are_compared_on():
    patients = np.arange(20)
    assert (metrics.patient_weights(patients, 50, seed=4) == metrics.patient_weights(patients, 50, seed=4)).all()
    assert (metrics.patient_weights(patients, 50, seed=4) != metrics.patient_weights(patients, 50, seed=5)).any()


def test_a_paired_interval_is_narrower_than_each_model_s_own():
    rng = np.random.default_rng(6)
    targets = rng.integers(0, 2, (150, 2)).astype(float)
    theirs = targets + rng.normal(0, 1.2, (150, 2))
    ours = theirs + 0.1 * targets  # the same mistakes, nearly
    weights = metrics.patient_weights(np.arange(150), 500)
    a, b = metrics.aurocs(targets, ours, weights), metrics.aurocs(targets, theirs, weights)
    difference = metrics.macro_difference(a, b)
    assert difference.value == pytest.approx(a.macro.value - b.macro.value)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.high - difference.low < 0.3 * (b.macro.high - b.macro.low)
    turned = metrics.macro_difference(b, a)
    assert (turned.low, turned.high) == (pytest.approx(-difference.high), pytest.approx(-difference.low))


def test_models_without_a_common_label_cannot_be_compared():
    first = metrics.Aurocs(np.array([0.9, NAN]), np.array([[0.9, NAN]]))
    other = metrics.Aurocs(np.array([NAN, 0.8]), np.array([[NAN, 0.8]]))
    assert math.isnan(metrics.macro_difference(first, other).value)
    assert math.isnan(metrics.Aurocs(np.array([NAN]), np.array([[NAN]])).macro.value)


def test_an_interval_is_cut_at_both_tails_and_leaves_out_lost_replicates():
    samples = np.r_[np.arange(1001.0), NAN, NAN]
    interval = metrics.interval(500.0, samples)
    assert (interval.low, interval.high) == (pytest.approx(25), pytest.approx(975))
    assert str(metrics.Interval(0.87654, 0.8, 0.9)) == "0.877 (0.800 to 0.900)"
    assert math.isnan(metrics.interval(0.5, np.array([NAN])).low)


@pytest.mark.parametrize("rule", metrics.OPERATING_RULES)
@pytest.mark.parametrize("seed", range(8))
def test_no_other_threshold_is_better(rule, seed):
    rng = np.random.default_rng(seed)
    targets = rng.choice([0.0, 1.0, 0.2, 0.8, NAN], 40)
    probabilities = rng.integers(0, 15, 40) / 15  # ties within and between the classes
    rates = metrics.sensitivity_specificity(targets, probabilities, operating_point(targets, probabilities, rule))
    every = [metrics.sensitivity_specificity(targets, probabilities, t) for t in (*np.unique(probabilities), 2.0)]
    if rule == "youden":
        assert sum(rates) == pytest.approx(max(map(sum, every)))
        assert rates[0] == max(pair[0] for pair in every if sum(pair) > sum(rates) - 1e-9)
    else:
        least = int(rule.removeprefix("sensitivity")) / 100
        assert rates[0] >= least
        assert rates[1] == max(pair[1] for pair in every if pair[0] >= least)


def test_films_with_one_score_are_all_called_positive():
    targets, same = np.array([0.0, 1.0, 1.0]), np.full(3, 0.123456789)
    for rule in metrics.OPERATING_RULES:
        threshold = operating_point(targets, same, rule)
        assert metrics.sensitivity_specificity(targets, same, threshold) == (1.0, 0.0)


def test_an_operating_point_of_tied_scores_by_hand():
    targets = np.array([0, 0, 1, 0, 1, 1], float)
    probabilities = np.array([0.2, 0.4, 0.4, 0.4, 0.6, 0.6])
    # At 0.3: 3/3 and 1/3; at 0.5: 2/3 and 3/3, the better sum. Ninety percent of three films are all three.
    assert operating_point(targets, probabilities, "youden") == pytest.approx(0.5)
    assert operating_point(targets, probabilities, "sensitivity90") == pytest.approx(0.3)


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="sensitivity80"):
        operating_point(np.array([0.0, 1.0]), np.array([0.1, 0.2]), "sensitivity80")


def test_the_threshold_itself_counts_as_positive_and_unknown_targets_not_at_all():
    targets, probabilities = np.array([1, 1, 0, 0, NAN]), np.array([0.5, 0.4, 0.5, 0.3, 0.9])
    assert metrics.sensitivity_specificity(targets, probabilities, 0.5) == (0.5, 0.5)
    sensitivity, specificity = metrics.sensitivity_specificity(np.zeros(2), np.array([0.1, 0.2]), 0.15)
    assert math.isnan(sensitivity)
    assert specificity == 0.5


def test_sigmoid_at_its_limits_and_between():
    assert metrics.sigmoid(np.array([-math.inf, math.inf])).tolist() == [0.0, 1.0]
    assert metrics.sigmoid(np.float32([1.5]))[0] == pytest.approx(1 / (1 + math.exp(-1.5)), abs=1e-12)


def test_a_p_value_by_hand():
    # One of nine replicates is below zero: twice (1 + 1) of (9 + 1).
    assert metrics.p_value(np.array([-1, *range(1, 9)], float)) == pytest.approx(0.4)
    assert metrics.p_value(np.zeros(10)) == 1
    assert metrics.p_value(np.array([np.nan, 1.0, 2.0, 3.0])) == pytest.approx(0.5)
    assert np.isnan(metrics.p_value(np.array([np.nan])))
    samples = np.random.default_rng(0).normal(0.5, 1, 500)
    assert metrics.p_value(samples) == metrics.p_value(-samples)


def test_p_is_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(1)
    values = [metrics.p_value(rng.normal(rng.normal(), 1, 400)) for _ in range(1000)]
    for share in (0.05, 0.2, 0.5):
        assert np.mean(np.array(values) <= share) == pytest.approx(share, abs=0.04)


def test_the_predictive_value_by_hand():
    # Of 1000 people 10 are ill: 9 are found, and 99 of 990 healthy ones are called.
    assert metrics.predictive_value(0.9, 0.9, 0.01) == pytest.approx(9 / 108)
    assert metrics.predictive_value(1, 1, 0.5) == 1
    assert np.isnan(metrics.predictive_value(0, 1, 0.5))


def test_no_replicates_give_no_aurocs_and_an_interval_of_nothing() -> None:
    targets, scores = np.array([1.0, 0.0, 1.0]), np.array([0.2, 0.1, 0.4])
    assert metrics.weighted_auroc(targets, scores, np.ones((0, 3))).shape == (0,)
    assert np.isnan(metrics.interval(0.5, metrics.weighted_auroc(targets, scores, np.ones((0, 3)))).low)


LABELLED = st.lists(st.tuples(st.sampled_from([0.0, 1.0, np.nan]), st.integers(0, 6)), min_size=1, max_size=25)


@given(LABELLED, st.integers(0, 1000))
def test_average_precision_is_the_mean_precision_at_each_positive(films, seed):
    targets, scores = np.array([t for t, _ in films]), np.array([s for _, s in films], float)
    weights = np.random.default_rng(seed).integers(0, 3, (4, len(films))).astype(np.float32)
    for weight, value in zip(weights, metrics.average_precision(targets, scores, weights), strict=True):
        # Films drawn twice are two films.
        labelled = [(t, s) for (t, s), w in zip(films, weight, strict=True) if not np.isnan(t) for _ in range(int(w))]
        positives = [s for t, s in labelled if t == 1]
        if not positives or len(positives) == len(labelled):
            assert np.isnan(value)
            continue
        at = [
            sum(s >= threshold for s in positives) / sum(s >= threshold for _, s in labelled) for threshold in positives
        ]
        assert value == pytest.approx(np.mean(at))


@given(LABELLED)
def test_the_curves_have_the_areas_of_the_table(films):
    targets, scores = np.array([t for t, _ in films]), np.array([s for _, s in films], float)
    if min(metrics.counts(targets)) == 0:
        return
    wrong, sensitivity, precision = metrics.curve(targets, scores)
    steps = np.diff(np.r_[0, wrong])
    area = float((steps * (np.r_[0, sensitivity[:-1]] + sensitivity) / 2).sum())
    assert area == pytest.approx(metrics.auroc(targets, scores))
    average = metrics.average_precision(targets, scores, np.ones((1, len(films))))[0]
    assert (np.diff(np.r_[0, sensitivity]) * precision).sum() == pytest.approx(average)


@given(LABELLED, st.integers(0, 6))
def test_rates_of_one_of_each_are_sensitivity_and_specificity(films, threshold):
    targets, scores = np.array([t for t, _ in films]), np.array([s for _, s in films], float)
    whole = [float(rate[0]) for rate in metrics.rates(targets, scores, threshold, np.ones((1, len(films)), np.float32))]
    assert whole == pytest.approx(metrics.sensitivity_specificity(targets, scores, threshold), nan_ok=True)

from __future__ import annotations

import numpy as np
import pytest

from edgecxr.evaluate.probability_calibration import TEMPERATURES, calibrated, fit_temperature, reliability
from edgecxr.metrics import sigmoid


def test_a_reliability_by_hand():
    nan = np.nan
    probabilities = np.array([0.1, 0.15, 0.9, 0.95, 1.0, 0.5])
    calibration = reliability(np.array([0, 1, 1, 0.7, 0.4, nan]), probabilities, bins=2)
    assert calibration.counts.tolist() == [2, 3]
    assert calibration.predicted == pytest.approx([0.125, 2.85 / 3])
    assert calibration.observed == pytest.approx([0.5, 2 / 3])
    assert calibration.error == pytest.approx((2 * 0.375 + 3 * (0.95 - 2 / 3)) / 5)


def test_nothing_known_has_no_error():
    calibration = reliability(np.array([np.nan]), np.array([0.5]))
    assert len(calibration.counts) == 0
    assert np.isnan(calibration.error)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 20000)
    targets = (rng.random(20000) < sigmoid(logits)).astype(float)
    targets[::9] = np.nan
    assert fit_temperature(targets, logits * scale) == pytest.approx(scale, rel=0.05)


def test_the_temperature_is_where_the_loss_is_least():
    rng = np.random.default_rng(1)
    logits, targets = rng.normal(0, 3, 200), rng.integers(0, 2, 200).astype(float)
    targets[:150] = logits[:150] > 0

    def loss(temperature):
        p = calibrated(logits, temperature)
        return -np.mean(targets * np.log(p) + (1 - targets) * np.log(1 - p))

    best = fit_temperature(targets, logits)
    assert loss(best) <= min(loss(best * 1.01), loss(best * 0.99))


def test_what_cannot_be_fitted_is_left_as_it_is():
    targets = np.repeat([0.0, 1.0], 30)
    right = np.where(targets == 1, 2.0, -2.0)
    assert fit_temperature(targets, right) == 1  # perfectly separated: ever smaller is ever better
    assert fit_temperature(targets, -right) == 1
    assert fit_temperature(targets, np.where(targets == 1, 1e5, -1e5)) == 1
    assert fit_temperature(np.ones(60), np.arange(60.0)) == 1
    # Of 19 positives nothing is fitted, of 20 it is.
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, 400)
    targets = (rng.random(400) < sigmoid(logits / 3)).astype(float)
    few = np.where(np.cumsum(targets) <= 19, targets, np.nan)
    enough = np.where(np.cumsum(targets) <= 20, targets, np.nan)
    assert fit_temperature(few, logits) == 1
    assert TEMPERATURES[0] < fit_temperature(enough, logits) != 1

"""Which images calibrate INT8."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from edgecxr.errors import InputError
from edgecxr.export.calibration_images import choose
from tests.conftest import write_prepared


def data(tmp_path, abnormal, splits=None):
    count = len(abnormal)
    images = np.random.default_rng(0).integers(0, 256, (count, 224, 224), dtype=np.uint8)
    abnormal = np.array(abnormal, np.float32)
    targets = np.stack([abnormal, abnormal], axis=1)
    return write_prepared(tmp_path / "data", images, targets, abnormal, splits or ["train"] * count)


def test_both_kinds_in_the_proportion_of_the_training_split(tmp_path):
    prepared = data(tmp_path, [1] * 30 + [0] * 90 + [1] * 40, ["train"] * 120 + ["val"] * 40)
    chosen = choose(prepared, 40, seed=3)
    assert len(chosen.rows) == 40 == len(set(chosen.rows))
    assert prepared.abnormal[chosen.rows].sum() == 10
    assert set(prepared.splits[chosen.rows]) == {"train"}
    pixels = b"".join(prepared.images[row].tobytes() for row in chosen.rows)
    assert chosen.sha256 == hashlib.sha256(pixels).hexdigest()
    assert chosen.to_dict() == {
        "data": "data", "split": "train", "images": 40, "seed": 3, "sha256": chosen.sha256
    }  # fmt: skip


def test_the_seed_decides(tmp_path):
    prepared = data(tmp_path, [0, 1] * 30)
    first, again, other = (choose(prepared, 20, seed) for seed in (0, 0, 1))
    assert (first.rows == again.rows).all() and first.sha256 == again.sha256
    assert first.sha256 != other.sha256


def test_a_small_split_gives_all_it_has_and_a_rare_kind_is_not_lost(tmp_path):
    prepared = data(tmp_path, [1] + [0] * 39)
    assert len(choose(prepared, 500, 0).rows) == 40
    assert prepared.abnormal[choose(prepared, 10, 0).rows].sum() == 1


def test_films_of_unknown_kind_are_used_too(tmp_path):
    prepared = data(tmp_path, [1, 0, np.nan] * 10)
    assert len(choose(prepared, 30, 0).rows) == 30


@pytest.mark.parametrize(
    ("abnormal", "message"),
    [([0, 1] * 7, "has 14 training images, too few"), ([1] * 40, "all normal or all abnormal")],
)
def test_what_nobody_can_calibrate_on_is_refused(tmp_path, abnormal, message):
    with pytest.raises(InputError, match=message) as caught:
        choose(data(tmp_path, abnormal), 500, 0)
    assert caught.value.reason == "dataset" and "--fp16" in str(caught.value)

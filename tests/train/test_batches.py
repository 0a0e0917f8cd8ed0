from __future__ import annotations

import numpy as np
import pytest
import torch

from edgecxr.runtime.preprocess import box_mean
from edgecxr.train.batches import Batches, augment, view

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [224, 112, 56, 28])
def test_training_sees_the_very_pixels_that_the_device_sees(size):
    base = np.random.default_rng(size).integers(0, 256, (4, 224, 224), dtype=np.uint8)
    on_device = box_mean(base, size)
    in_training = view(torch.from_numpy(base).float().unsqueeze(1), size).squeeze(1).numpy()
    assert in_training.dtype == on_device.dtype == np.float32
    assert (in_training == on_device).all()


@pytest.mark.parametrize("size", [112, 28])
def test_that_holds_after_augmentation_too(size):
    base = torch.randint(0, 256, (3, 1, 224, 224)).float()
    moved = augment(base, 1.0, torch.Generator().manual_seed(1))
    assert not torch.equal(moved, base)
    assert torch.equal(moved, moved.round())
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert (view(moved, size).squeeze(1).numpy() == box_mean(moved.squeeze(1).numpy().astype(np.uint8), size)).all()


def test_no_augmentation_leaves_films_as_they_are():
    base = torch.randint(0, 256, (3, 1, 224, 224)).float()
    assert augment(base, 0, torch.Generator()) is base


def test_an_epoch_holds_every_film_once_in_an_order_of_seed_and_epoch(prepared):
    batches = Batches(prepared, "train", 7, CPU)

    def epoch(seed, number):
        return torch.cat([batch.base.flatten(1).sum(1) for batch in batches.shuffled(seed, number, 0)])

    first = epoch(0, 0)
    assert torch.equal(first, epoch(0, 0))
    assert not torch.equal(first, epoch(0, 1))
    assert not torch.equal(first, epoch(1, 0))
    in_order = torch.cat([batch.base.flatten(1).sum(1) for batch in batches.in_order()])
    assert torch.equal(first.sort().values, in_order.sort().values)
    assert len(batches) == -(-len(batches.rows) // 7)


def test_a_film_keeps_its_targets(prepared):
    for batch in Batches(prepared, "train", 8, CPU).shuffled(0, 0, 0):
        bright_left = batch.base[:, 0, :, :112].mean((1, 2)) > batch.base[:, 0, :, 112:].mean((1, 2)) + 60
        assert torch.equal(bright_left.float(), batch.targets[:, 0])

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from edgecxr.errors import UsageError
from edgecxr.films.resize import box_mean
from edgecxr.train.batches import DRAWS, Batches, augment, open_batches, resident_images, view, with_labels
from edgecxr.train.device import Device

CPU = torch.device("cpu")


def draws(count: int, strength: float, seed: int) -> torch.Tensor:
    return (torch.rand(count, DRAWS, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * strength


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
    moved = augment(base, draws(3, 1.0, 1))
    assert not torch.equal(moved, base)
    assert torch.equal(moved, moved.round())
    assert moved.min() >= 0
    assert moved.max() <= 255
    assert (view(moved, size).squeeze(1).numpy() == box_mean(moved.squeeze(1).numpy().astype(np.uint8), size)).all()


@pytest.mark.parametrize("size", [448, 224, 112, 56, 28])
def test_of_448_px_the_student_sees_the_box_mean_of_the_very_view_of_the_teacher(size):
    base = torch.from_numpy(np.random.default_rng(size).integers(0, 256, (2, 1, 448, 448))).float()
    moved = augment(base, draws(2, 1.0, 1))
    assert torch.equal(moved, moved.round())
    large = moved.squeeze(1).numpy().astype(np.uint8)
    sums = large.reshape(2, 224, 2, 224, 2).sum(axis=(2, 4), dtype=int)
    expected = box_mean(large if size == 448 else ((sums + 2) // 4).astype(np.uint8), size)
    assert (view(moved, size).squeeze(1).numpy() == expected).all()


def test_batches_hold_the_larger_of_what_teacher_and_student_see(detailed):
    device = Device(CPU, "fp32")
    for size, teacher_size, train, val in ((448, 224, 448, 448), (28, 448, 448, 224), (28, 224, 224, 224)):
        opened = open_batches(detailed, 8, device, size, teacher_size)
        for batches, side, split in zip(opened, (train, val), ("train", "val"), strict=True):
            films = torch.cat([batch.base for batch in batches.in_order()])[:, 0].numpy()
            expected = detailed.large if side == 448 else detailed.images
            assert (films == expected[detailed.rows(split)]).all()


def test_no_augmentation_leaves_films_as_they_are(clinic):
    rows = {film.tobytes() for film in clinic.images[clinic.rows("train")]}
    for batch in Batches(clinic, "train", 8, CPU).shuffled(0, 0, 0.0):
        assert all(film.numpy().astype(np.uint8).tobytes() in rows for film in batch.base)


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


@pytest.mark.parametrize("size", [224, 56])
@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_augmented_films_too_are_what_a_device_could_have_seen(size, strength):
    base = torch.from_numpy(np.random.default_rng(size).integers(0, 256, (2, 1, 224, 224))).float()
    moved = augment(base, draws(2, strength, size))
    assert torch.equal(moved, moved.round())
    assert (view(moved, size).squeeze(1).numpy() == box_mean(moved.squeeze(1).numpy().astype(np.uint8), size)).all()


def test_the_augmentation_of_an_epoch_is_drawn_from_seed_and_epoch(prepared):
    batches = Batches(prepared, "train", 7, CPU)

    def epoch(seed, number):
        return torch.cat([batch.base for batch in batches.shuffled(seed, number, 1.0)])

    first = epoch(3, 1)
    assert torch.equal(first, epoch(3, 1))
    assert not torch.equal(first, epoch(3, 2))
    assert not torch.equal(first, epoch(4, 1))


def test_the_grid_is_that_of_an_affine_map():
    base = torch.randint(0, 256, (4, 1, 224, 224)).float()
    move = draws(4, 1.0, 2)
    move[:, 4:] = 0  # no change of the exposure
    angle, scale = move[:, 0] * (10 * np.pi / 180), 1 + move[:, 1] * 0.1
    cos, sin, shift = angle.cos() * scale, angle.sin() * scale, move[:, 2:4] * 0.1
    theta = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).reshape(4, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [4, 1, 224, 224], align_corners=False)
    expected = torch.nn.functional.grid_sample(base, grid, align_corners=False)
    assert (augment(base, move) - expected).abs().max() < 0.6  # rounded to whole grey values


def test_augmentation_moves_a_film_a_little_and_never_mirrors_it():
    base = torch.zeros(32, 1, 224, 224)
    base[:, :, 60:100, 130:180] = 200  # off the centre in both directions
    moved = augment(base, draws(32, 1.0, 0))[:, 0]
    weight = moved / moved.sum((1, 2), keepdim=True)
    rows = (weight.sum(2) * torch.arange(224.0)).sum(1)
    columns = (weight.sum(1) * torch.arange(224.0)).sum(1)
    assert (rows - 79.5).abs().max() < 35
    assert (columns - 154.5).abs().max() < 35
    assert rows.std() > 2
    assert columns.std() > 2
    assert moved.amax((1, 2)).std() > 5  # the exposure


def test_only_films_of_the_split_are_seen_with_their_own_targets(clinic):
    rows = clinic.rows("val")
    batches = list(Batches(clinic, "val", 5, CPU).in_order())
    assert [len(batch.base) for batch in batches] == [5, 5, 2]
    base = torch.cat([batch.base for batch in batches])
    assert (base[:, 0].numpy() == clinic.images[rows]).all()
    np.testing.assert_array_equal(torch.cat([batch.targets for batch in batches]).numpy(), clinic.targets[rows])
    np.testing.assert_array_equal(torch.cat([batch.abnormal for batch in batches]).numpy(), clinic.abnormal[rows])


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_several_processes_see_together_what_one_sees(clinic, ranks):
    """Twenty-four films in batches of 11: the last batch has two, fewer than there are processes."""
    alone = list(Batches(clinic, "train", 11, CPU).shuffled(1, 2, 1.0))
    of_ranks = [list(Batches(clinic, "train", 11, CPU, rank, ranks).shuffled(1, 2, 1.0)) for rank in range(ranks)]
    assert len(alone[-1].base) == 2
    for step, whole in enumerate(alone):
        parts = [batches[step] for batches in of_ranks]
        counted = [part for part in parts if part.weight]
        films = torch.cat([part.base for part in counted])
        ours = sorted(film.numpy().tobytes() for film in films)
        assert ours == sorted(film.numpy().tobytes() for film in whole.base)
        # A process without a film of its own borrows one, of which nothing is known.
        assert all(part.targets.isnan().all() and part.abnormal.isnan().all() for part in parts if not part.weight)
        assert sum(part.weight for part in parts) == pytest.approx(ranks)
        # The average of the processes' means is the mean over the whole batch, of losses ...
        mean = sum(part.weight * part.base.mean() for part in parts) / ranks
        assert float(mean) == pytest.approx(float(whole.base.mean()), rel=1e-5)
        # ... and of masked targets, whose known ones are spread unevenly.
        masked = sum(part.targets.nan_to_num().sum() / part.label_counts[0] for part in parts) / ranks
        assert float(masked) == pytest.approx(float(whole.targets.nanmean()), rel=1e-5)
        assert torch.equal(parts[0].label_counts * ranks, whole.label_counts)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_validation_is_divided_and_comes_together_again(clinic, ranks):
    of_ranks = [list(Batches(clinic, "val", 5, CPU, rank, ranks).in_order()) for rank in range(ranks)]
    films = torch.stack([torch.cat([batch.base for batch in batches]) for batches in of_ranks])
    together = films.transpose(0, 1).flatten(0, 1)[:12, 0]
    assert (together.numpy() == clinic.images[clinic.rows("val")]).all()


def test_reading_ahead_gives_the_same_and_ends_with_an_abandoned_epoch(clinic):
    plain, ahead = (Batches(clinic, "train", 5, CPU) for _ in range(2))
    ahead.read_ahead = 2  # as on a GPU that the images do not fit on
    for batch, other in zip(plain.shuffled(0, 0, 1.0), ahead.shuffled(0, 0, 1.0), strict=True):
        assert torch.equal(batch.base, other.base)
    epoch = ahead.shuffled(0, 0, 0.0)
    next(epoch)
    assert [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]
    epoch.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("read-ahead")]


def test_a_split_goes_to_a_gpu_part_by_part(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4), dtype=np.uint8)
    part_sizes = []

    class Mapped:
        shape = images.shape

        def __getitem__(self, rows):
            part_sizes.append(len(rows))
            return images[rows]

    monkeypatch.setattr("edgecxr.train.batches.COPY", 8)
    rows = np.arange(3, 50, 2)
    there = resident_images(Mapped(), rows, torch.device("cpu"))
    assert np.array_equal(there.numpy(), images[rows]) and part_sizes == [8, 8, 8]
    assert resident_images(Mapped(), rows[:0], torch.device("cpu")).shape == (0, 4, 4)


@pytest.mark.parametrize("taught", [False, True])
def test_some_labels_are_among_more_and_validation_keeps_all(clinic, taught):
    def with_any(films, rows):
        return rows[~np.isnan(np.column_stack([films.targets[rows], films.abnormal[rows]])).all(axis=1)]

    rows, fewer = clinic.rows("train"), set()
    all_known = with_any(clinic, rows)
    for count in (1, 7, len(all_known)):
        films = with_labels(clinic, count, taught)
        left = films.rows("train")
        chosen = with_any(films, left)
        others = all_known[np.isin(clinic.patients[all_known], clinic.patients[chosen])]
        assert count <= len(chosen) and fewer <= set(chosen) and set(others) == set(chosen), "whole patients"
        assert (set(left) == set(rows)) if taught else set(clinic.patients[left]) == set(clinic.patients[chosen])
        fewer = set(chosen)
        for split in ("val", "test"):
            assert (films.rows(split) == clinic.rows(split)).all()
            assert np.array_equal(films.targets[films.rows(split)], clinic.targets[clinic.rows(split)], equal_nan=True)
    with pytest.raises(UsageError, match=f"has {len(all_known)} training films with labels"):
        with_labels(clinic, len(all_known) + 1, taught)

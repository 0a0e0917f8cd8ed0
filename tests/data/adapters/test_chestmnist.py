"""ChestMNIST: one file, read film by film, and what is wrong with it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.data.adapters.chestmnist import chestmnist
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.tables.labels import SETS
from edgecxr.errors import InputError
from tests.data.layouts import (
    chestmnist_layout,
    named,
    pixels,
)


@pytest.mark.parametrize("side", [64, 224])
def test_chestmnist_is_read_from_its_one_file(tmp_path: Path, side: int) -> None:
    dataset = chestmnist(chestmnist_layout(tmp_path / f"chestmnist_{side}.npz", side).parent)
    assert dataset.labels == SETS["nih14"] and len(dataset) == 15
    assert dataset.splits.tolist() == ["train"] * 8 + ["val"] * 3 + ["test"] * 4
    assert dataset.abnormal.tolist() == [0, *[1] * 7, 0, 1, 1, 0, 1, 1, 1]
    assert named(dataset, "test-000001") == {"Cardiomegaly": 1, "abnormal": 1}
    for index, expected in ((0, 0), (7, 7), (8, 0), (14, 3)):
        film = pickle.loads(pickle.dumps(dataset.reader(index)))()
        np.testing.assert_allclose(film.pixels, pixels(expected, side) / 255, atol=1e-6)
        assert len(film.warnings) == (side < 224)
    assert len(pickle.dumps(dataset.reader(7))) < side * side + 1000, "one image travels, not all"


def test_what_is_no_chestmnist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not hold .*chestmnist\*\.npz \(it .*none\)"):
        chestmnist(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        chestmnist(tmp_path / "chestmnist.npz")
    path = chestmnist_layout(tmp_path / "chestmnist.npz")
    whole = path.read_bytes()
    for content in (b"no zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no ChestMNIST"):
            chestmnist(path)
    np.savez(path, **{f"{split}_labels": np.full((3, 14), 2) for split in ("train", "val", "test")})
    with pytest.raises(InputError, match=r"train_labels is int64 \(3, 14\), not"):
        chestmnist(path)
    chestmnist_layout(tmp_path / "chestmnist_64.npz")
    with pytest.raises(InputError, match=r"it holds chestmnist\.npz, chestmnist_64\.npz"):
        chestmnist(tmp_path)


def test_workers_give_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    source: Any = chestmnist(chestmnist_layout(tmp_path / "chestmnist_64.npz"))
    hashes = {prepare(source, tmp_path / f"by-{workers}", workers).hash for workers in (1, 2)}
    assert len(hashes) == 1

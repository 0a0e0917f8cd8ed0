from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from edgecxr import resolve
from edgecxr.data.pack import open_pack, pack, packed_images
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, UsageError
from edgecxr.workspace import Workspace
from tests.cli_workspace import edgecxr


def test_a_pack_holds_the_films_labels_and_groups_of_the_split(clinic: Prepared, tmp_path: Path) -> None:
    packed = pack(clinic, "test", None, tmp_path / "test.npz")
    rows = clinic.rows("test")
    np.testing.assert_array_equal(packed.images, clinic.images[rows])
    np.testing.assert_array_equal(packed.targets, clinic.targets[rows])
    np.testing.assert_array_equal(packed.abnormal, clinic.abnormal[rows])
    assert packed.labels == clinic.labels and packed.phantom == clinic.phantom
    assert set(packed.splits) == {"test"} and len(packed.boxes) == 0
    groups = {(a, b) for a, b in zip(packed.patients, clinic.patients[rows], strict=True)}
    assert len(groups) == len(set(packed.patients)) == len(set(clinic.patients[rows]))


def test_names_of_films_and_patients_stay_behind(clinic: Prepared, tmp_path: Path) -> None:
    pack(clinic, "test", None, tmp_path / "test.npz")
    with np.load(tmp_path / "test.npz") as arrays:
        texts = [json.dumps(arrays[name].tolist()) for name in arrays.files if name != "images"]
        assert arrays["patients"].dtype.kind == "i"
    assert not any(f'"{name}"' in text for name in (*clinic.ids, *clinic.patients) for text in texts)
    assert not any(name in text for name in clinic.ids for text in texts)


def test_whole_patients_are_drawn_until_there_are_enough_films(clinic: Prepared, tmp_path: Path) -> None:
    packed = pack(clinic, "test", 5, tmp_path / "few.npz", seed=3)
    assert 5 <= len(packed) <= 6
    rows = clinic.rows("test")
    originals = [int(np.flatnonzero((clinic.images[rows] == image).all(axis=(1, 2)))[0]) for image in packed.images]
    chosen = set(clinic.patients[rows[originals]])
    assert len(packed) == int(np.isin(clinic.patients[rows], list(chosen)).sum()), "of a patient, all films or none"
    again = pack(clinic, "test", 5, tmp_path / "again.npz", seed=3)
    assert again.hash == packed.hash
    assert pack(clinic, "test", 5, tmp_path / "other.npz", seed=4).hash != packed.hash


def test_another_pack_is_not_written_over_one_that_is_there(clinic: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "test.npz"
    first = pack(clinic, "test", 4, path)
    assert pack(clinic, "test", 4, path).hash == first.hash, "the same once more is no loss"
    with pytest.raises(UsageError, match="there already"):
        pack(clinic, "test", None, path)
    assert open_pack(path).hash == first.hash


def test_a_pack_has_the_films_at_448_px_where_the_data_set_has_them(detailed: Prepared, tmp_path: Path) -> None:
    packed = pack(detailed, "test", None, tmp_path / "test.npz")
    assert detailed.large is not None
    np.testing.assert_array_equal(packed.images_for(448), detailed.large[detailed.rows("test")])


def test_a_pack_without_them_says_how_to_get_them(clinic: Prepared, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"pack it from .* --size 448"):
        pack(clinic, "test", None, tmp_path / "test.npz").images_for(448)


def test_other_labels_are_another_pack(clinic: Prepared, tmp_path: Path) -> None:
    first = pack(clinic, "test", None, tmp_path / "a.npz")
    renamed = dataclasses.replace(clinic, labels=("A", "B", "C"))
    assert pack(renamed, "test", None, tmp_path / "b.npz").hash != first.hash


def test_more_films_than_there_are_is_all_of_them(clinic: Prepared, tmp_path: Path) -> None:
    assert len(pack(clinic, "test", 10_000, tmp_path / "all.npz")) == len(clinic.rows("test"))


def test_where_a_data_set_is_named_a_pack_is_taken_too(clinic: Prepared, tmp_path: Path) -> None:
    path = tmp_path / "test.npz"
    pack(clinic, "test", None, path)
    assert len(resolve.dataset(Workspace(tmp_path), str(path))) == len(clinic.rows("test"))


@pytest.mark.parametrize(("split", "count", "name"), [("tset", 1, "a.npz"), ("test", 0, "a.npz"), ("test", 1, "a.zip")])
def test_what_cannot_be_packed(clinic: Prepared, tmp_path: Path, split: str, count: int, name: str) -> None:
    with pytest.raises(UsageError):
        pack(clinic, split, count, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["gone", "text", "other arrays", "newer", "true", "cut", "shapes"])
def test_what_is_no_pack_is_refused_with_its_name(clinic: Prepared, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pack.npz"
    pack(clinic, "test", None, path)
    with np.load(path) as arrays:
        content = {name: arrays[name] for name in arrays.files}
    if kind == "gone":
        path.unlink()
    elif kind == "text":
        path.write_text("image,Dark")
    elif kind == "other arrays":
        np.savez(path, other=np.zeros(3))
    elif kind in ("newer", "true"):
        info = json.loads(str(content["info"])) | {"format": 99 if kind == "newer" else True}
        np.savez(path, **content | {"info": np.array(json.dumps(info))})
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:500])
    else:
        np.savez(path, **content | {"targets": content["targets"][:3]})
    with pytest.raises(InputError, match=r"pack\.npz") as caught:
        open_pack(path)
    assert caught.value.reason == ("not-found" if kind == "gone" else "dataset")


def test_images_alone_are_enough_to_verify_an_engine(tmp_path: Path) -> None:
    images = np.zeros((2, 448, 448), np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    assert packed_images(tmp_path / "images.npz", 448).shape == images.shape
    with pytest.raises(InputError, match="224"):
        packed_images(tmp_path / "images.npz")


def test_the_command_says_how_much_it_packed(clinic: Prepared, tmp_path: Path) -> None:
    runs = clinic.path.parents[1]
    typed = edgecxr("data", "pack", "clinic", "--n", "4", "--out", tmp_path / "few.npz", runs=runs)
    assert typed.code == 0 and "few.npz: 4 of 12 test films of clinic" in typed.out
    assert edgecxr("data", "pack", "gone", runs=runs).code == 3

"""Data sets as they are distributed: labels cell by cell, splits, files, boxes, and what is wrong with them."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread

from edgecxr.data import chexpert as chexpert_module
from edgecxr.data.cache import prepare
from edgecxr.data.chestmnist import ChestMnist
from edgecxr.data.chexpert import chexpert
from edgecxr.data.dataset import CxrDataset
from edgecxr.data.labels import SETS
from edgecxr.data.mimic import mimic
from edgecxr.data.nih import nih
from edgecxr.data.vinbigdata import vinbigdata
from edgecxr.data.vindr import VinDr
from edgecxr.errors import InputError, UsageError
from tests.cli_workspace import edgecxr
from tests.data.layouts import (
    CHEXPERT_ROWS,
    CHEXPERT_TEST,
    NIH_ROWS,
    NIH_TEST,
    VINBIGDATA_ROWS,
    chestmnist_layout,
    chexpert_batches,
    chexpert_layout,
    chexpert_test,
    mimic_layout,
    mimic_manual,
    nih_layout,
    picture,
    pixels,
    table,
    vinbigdata_layout,
)
from tests.runtime.dicom_files import without_transfer_syntax

NAN = float("nan")


def named(dataset: CxrDataset, image: str) -> dict[str, float]:
    """Return label -> target of an image, what is 0 left out."""
    (row,) = np.flatnonzero(dataset.ids == image)
    values = dict(zip(dataset.labels, dataset.targets[row].tolist(), strict=True))
    return {label: value for label, value in values.items() if value != 0} | {"abnormal": float(dataset.abnormal[row])}


def splits_of(dataset: CxrDataset) -> dict[str, str]:
    return dict(zip(dataset.ids.tolist(), dataset.splits.tolist(), strict=True))


# ---- NIH ChestX-ray14


def test_nih_has_each_finding_of_each_line(tmp_path: Path) -> None:
    dataset = nih(nih_layout(tmp_path))
    assert dataset.labels == SETS["nih14"] and dataset.ids.tolist() == list(NIH_ROWS)
    for image, cell in NIH_ROWS.items():
        found = set() if cell == "No Finding" else set(cell.split("|"))
        assert named(dataset, image) == dict.fromkeys(found, 1.0) | {"abnormal": float(bool(found))}
    assert not np.isnan(dataset.targets).any()
    assert dataset.patients.tolist() == [str(int(image[:8])) for image in NIH_ROWS]
    splits = splits_of(dataset)
    assert {image for image, split in splits.items() if split == "test"} == set(NIH_TEST)
    assert "val" in splits.values() and splits["00000001_000.png"] == splits["00000001_001.png"]
    assert all(file.exists() for file in dataset.files) and {file.parent.parent.name for file in dataset.files} == {
        "images_001", "images_002",
    }  # fmt: skip
    np.testing.assert_allclose(dataset.reader(1)().pixels, pixels(1) / 255, atol=1e-6)


def test_nih_boxes_are_scaled_to_smaller_films_and_follow_the_labels(tmp_path: Path) -> None:
    dataset = nih(nih_layout(tmp_path, side=256), labels="vindr14")
    # Of 1024 px, a quarter each; the film with the infiltrate and the one with the effusion likewise.
    assert [(box.label, *box[2:]) for box in dataset.boxes] == [
        ("Cardiomegaly", 64, 128, 192, 192),
        ("Infiltration", 25.125, 25.125, 37.625, 37.625),
        ("Pleural effusion", 0, 0, 256, 256),
    ]
    assert named(dataset, "00000004_000.png")["Nodule/Mass"] == 1
    assert np.isnan(dataset.targets[:, dataset.labels.index("ILD")]).all()
    assert any("does not know of Aortic enlargement" in text for text in dataset.provenance["warnings"])


def test_nih_films_in_one_folder_and_the_later_table_are_found(tmp_path: Path) -> None:
    nih_layout(tmp_path)
    (tmp_path / "Data_Entry_2017.csv").rename(tmp_path / "Data_Entry_2017_v2020.csv")
    (tmp_path / "images").mkdir()
    for path in sorted(tmp_path.glob("images_*/images/*.png")):
        path.rename(tmp_path / "images" / path.name)
    assert all(file.exists() for file in nih(tmp_path).files)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: (folder / "test_list.txt").unlink(),
            r"is not NIH ChestX-ray14: test_list\.txt should be there",
        ),
        (
            lambda folder: (folder / "Data_Entry_2017.csv").unlink(),
            r"Data_Entry_2017_v2020\.csv or Data_Entry_2017\.csv",
        ),
        (
            lambda folder: (folder / "test_list.txt").write_text("gone.png\n"),
            r"names images that .* lacks \(gone\.png\)",
        ),
        (lambda folder: (folder / "test_list.txt").write_text(""), "names no images"),
        (lambda folder: (folder / "test_list.txt").write_text("00000001_000.png"), "both name 00000001_000.png"),
        (lambda folder: [shutil.rmtree(path) for path in folder.glob("images_*")], "none of the 10 listed images"),
    ],
)
def test_a_folder_that_is_not_nih_says_what_is_missing(
    tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    folder = nih_layout(tmp_path / "nih")
    spoil(folder)
    with pytest.raises(InputError, match=said) as caught:
        nih(folder)
    assert caught.value.reason == "dataset" and "\n" not in str(caught.value)


def test_a_finding_that_nih_does_not_have_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3 of .*'Edema\|Edemma' holds what is no finding .*\(Edemma\)"):
        nih(
            nih_layout(
                tmp_path,
                rows={"00000001_000.png": "Edema", "00000002_000.png": "Edema|Edemma"},
                test=("00000002_000.png",),
            )
        )


def test_a_place_that_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("a")
    for place, said in ((tmp_path / "gone", "does not exist"), (tmp_path / "file.csv", "is a file")):
        with pytest.raises(InputError, match=rf"{said}: give the folder of NIH ChestX-ray14, which holds Data_Entry"):
            nih(place)


@pytest.mark.corpus
def test_real_labels_go_through_the_tables_and_come_back(tmp_path: Path) -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    with Path(root, "nih_dev", "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    entries, lists = [], {"train": [], "val": [], "test": []}  # type: ignore[var-annotated]
    for row in rows:
        name = Path(row["image"]).name
        findings = [label for label in SETS["nih14"] if row[label] == "1"]
        entries.append(
            (name, "|".join(findings) or "No Finding", 0, row["patient"], row["age"], row["sex"], row["view"])
        )
        lists[row["split"]].append(name)
    header = (
        "Image Index",
        "Finding Labels",
        "Follow-up #",
        "Patient ID",
        "Patient Age",
        "Patient Gender",
        "View Position",
    )
    table(tmp_path / "Data_Entry_2017_v2020.csv", header, entries)
    (tmp_path / "test_list.txt").write_text("\n".join(lists["test"]))
    (tmp_path / "train_val_list.txt").write_text("\n".join(lists["train"] + lists["val"]))
    (tmp_path / "images").symlink_to(Path(root, "nih_dev", "img"))
    dataset = nih(tmp_path)
    expected = np.array([[float(row[label]) for label in SETS["nih14"]] for row in rows])
    np.testing.assert_array_equal(dataset.targets, expected)
    np.testing.assert_array_equal(dataset.abnormal, [float(row["abnormal"]) for row in rows])
    assert (dataset.splits == "test").sum() == len(lists["test"])
    assert dataset.patients.tolist() == [row["patient"] for row in rows]
    assert not any("more than one split" in text for text in dataset.provenance["warnings"])


# ---- CheXpert


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", NAN), ("ones", 1.0), ("zeros", 0.0)])
def test_chexpert_has_each_observation_of_each_line(tmp_path: Path, uncertain: str, value: float) -> None:
    dataset = chexpert(chexpert_layout(tmp_path), uncertain=uncertain)
    assert dataset.labels == SETS["chexpert13"]
    frontal = {f"{split}/{path}": says for (split, path), says in CHEXPERT_ROWS.items() if "frontal" in path}
    assert dataset.ids.tolist() == list(frontal)
    for row, says in enumerate(frontal.values()):
        expected = [value if says.get(label) == -1 else says.get(label, 0.0) for label in dataset.labels]
        np.testing.assert_array_equal(dataset.targets[row], expected)
        # Uncertain of all that it mentions, a report is uncertain of whether the film is normal.
        sure = any(says.get(label) == 1 for label in dataset.labels if label != "Support Devices")
        doubtful = -1 in says.values() and not sure
        np.testing.assert_array_equal(dataset.abnormal[row], value if doubtful else 1 - says.get("No Finding", 0.0))
    assert dataset.patients.tolist() == [image.split("/")[1] for image in frontal]
    assert [split == "test" for split in dataset.splits] == [image.startswith("valid") for image in frontal]
    assert "val" in dataset.splits
    dataset.reader(0)()


def test_chexpert_takes_lateral_films_on_request_and_folders_of_any_name(tmp_path: Path) -> None:
    assert len(chexpert(chexpert_layout(tmp_path / "my copy"), any_view=True)) == len(CHEXPERT_ROWS)


def test_chexpert_is_found_in_the_folders_of_its_batches(tmp_path: Path) -> None:
    whole, batches = chexpert(chexpert_layout(tmp_path / "whole")), chexpert(chexpert_batches(tmp_path / "batches"))
    assert batches.ids.tolist() == whole.ids.tolist() and all(file.exists() for file in batches.files)
    assert [file.read_bytes() for file in batches.files] == [file.read_bytes() for file in whole.files]
    assert batches.unlisted == ()
    picture(tmp_path / "batches" / "CheXpert-v1.0 batch 3 (train 2)" / "patient00009" / "study1" / "view1_frontal.jpg")
    assert len(chexpert(tmp_path / "batches").unlisted) == 1


@pytest.mark.parametrize("name", ["test_labels.csv", "groundtruth.csv"])
def test_chexpert_with_its_test_set_validates_on_valid(tmp_path: Path, name: str) -> None:
    folder = chexpert_test(chexpert_batches(tmp_path), name)
    dataset = chexpert(folder)
    frontal = {f"test/{path}": says for path, says in CHEXPERT_TEST.items() if "frontal" in path}
    assert dataset.ids[dataset.splits == "test"].tolist() == list(frontal)
    assert all(image.startswith("valid/") for image in dataset.ids[dataset.splits == "val"])
    abnormal = dict(zip(dataset.ids.tolist(), dataset.abnormal.tolist(), strict=True))
    assert [abnormal[image] for image in list(frontal)[:4]] == [1, 0, 1, 0] and np.isnan(abnormal[list(frontal)[4]])
    for image, says in frontal.items():
        found = {label: 1 for label in SETS["chexpert13"] if says[label]}
        assert named(dataset, image) | {"abnormal": 0} == {"abnormal": 0, **found}
        dataset.reader(dataset.ids.tolist().index(image))()
    said = [text for text in dataset.provenance["warnings"] if "without films" in text]
    assert said == (["studies of groundtruth.csv without films, left out: 1"] if name == "groundtruth.csv" else [])
    assert len(chexpert(folder, any_view=True)) == len(dataset) + 2 and dataset.unlisted == ()
    assert dataset.provenance["cut"] == []
    (folder / name).rename(folder / "test" / name)
    assert chexpert(folder).ids.tolist() == dataset.ids.tolist(), "in test/, too"


def test_what_people_are_not_sure_of_is_neither_normal_nor_abnormal() -> None:
    devices, edema = (chexpert_module.OWN.index(label) for label in ("Support Devices", "Edema"))
    own = np.zeros((4, 13), np.float32)
    own[[0, 1, 2], devices] = 1
    own[[1, 3], edema] = NAN
    own[2, edema] = 1
    # Devices; devices and perhaps an oedema; both for sure; nothing but perhaps an oedema. No Finding is never ticked.
    _, abnormal = chexpert_module.as_read(own, np.ones(4, np.float32))
    np.testing.assert_array_equal(abnormal, [0, NAN, 1, NAN])


@pytest.mark.parametrize("what", ["table", "films", "studies"])
def test_chexpert_with_half_of_its_test_set_says_so_and_goes_without(tmp_path: Path, what: str) -> None:
    name = "groundtruth.csv" if what == "studies" else "test_labels.csv"
    folder = chexpert_test(chexpert_layout(tmp_path), name)
    if what == "table":
        (folder / name).unlink()
    else:
        for place in (folder / "test").iterdir():
            shutil.rmtree(place)
    dataset = chexpert(folder)
    said = "test/ is left out, which lacks its table" if what == "table" else "is left out: none of its films is in"
    assert any(said in text for text in dataset.provenance["warnings"])
    assert {image.split("/")[0] for image in dataset.ids[dataset.splits == "test"].tolist()} == {"valid"}
    assert dataset.provenance["cut"] == ["val"]


def test_chexpert_in_the_words_of_vindr(tmp_path: Path) -> None:
    dataset = chexpert(chexpert_layout(tmp_path), labels="vindr14")
    image = "train/patient00002/study2/view1_frontal.jpg"
    assert np.isnan(named(dataset, image)["Pleural effusion"]) and named(dataset, image)["abnormal"] == 1


def test_what_chexpert_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = chexpert_layout(tmp_path / "set")
    with pytest.raises(UsageError, match="--uncertain twos: there are ignore, ones, zeros"):
        chexpert(folder, uncertain="twos")
    content = (folder / "train.csv").read_text()
    for old, new, said in (
        ("patient00003/study1/view1_frontal.jpg", "../../secret.jpg", r"line 6 of .*train\.csv: .* is no path"),
        ("patient00003/", "patient00002/", "an image is listed twice"),
        (",-1.0", ",-2.0", r"holds '-2\.0'"),
        ("Lung Lesion", "Lesion", r"has no column 'Lung Lesion'; did you mean 'Lesion'\?"),
    ):
        (folder / "train.csv").write_text(content.replace(old, new))
        with pytest.raises(InputError, match=said):
            chexpert(folder)
    (folder / "train.csv").unlink()
    with pytest.raises(InputError, match=r"is not CheXpert: train\.csv or .*csv should be there \(it holds: train"):
        chexpert(folder)
    assert set(chexpert_module.UNCERTAIN) == {"ignore", "ones", "zeros"}


# ---- MIMIC-CXR


@pytest.mark.parametrize(("ending", "packed"), [(".jpg", True), (".dcm", True), (".jpg", False)])
def test_mimic_joins_its_tables(tmp_path: Path, ending: str, packed: bool) -> None:
    dataset = mimic(mimic_layout(tmp_path, ending, packed))
    assert splits_of(dataset) == {
        "02aa804e-bde0afdd": "train",
        "2a2277a9-b0ded155": "train",
        "68b5c4b1-227d0485": "val",
        "096052b7-d256dc40": "test",
        "096052b7-d256dc41": "test",
    }
    assert named(dataset, "02aa804e-bde0afdd") == {"abnormal": 0}
    effusion = named(dataset, "2a2277a9-b0ded155")
    assert effusion.pop("Edema") == 1 and np.isnan(effusion["Pleural Effusion"]) and effusion["abnormal"] == 1
    doubtful = named(dataset, "096052b7-d256dc40")
    assert np.isnan(doubtful["Consolidation"]) and np.isnan(doubtful["abnormal"])
    assert dataset.patients.tolist() == ["10000032", "10000033", "10000034", "10000764", "10000765"]
    assert all(file.exists() and file.suffix == ending for file in dataset.files)
    said = dataset.provenance["warnings"]
    assert "images of studies without labels, left out: 1" in said
    assert "images that are neither PA nor AP, left out: 2" in said
    dataset.reader(0)()


def test_mimic_takes_the_other_labeler_and_other_views(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path)
    assert named(mimic(folder, labeler="negbio"), "2a2277a9-b0ded155") == {"Edema": 1, "abnormal": 1}
    assert len(mimic(folder, any_view=True)) == 7
    assert named(mimic(folder, uncertain="ones"), "096052b7-d256dc40") == {"Consolidation": 1, "abnormal": 1}
    with pytest.raises(UsageError, match="--labeler me: there are chexpert, negbio"):
        mimic(folder, labeler="me")


def test_mimic_is_tested_on_labels_by_hand_on_request(tmp_path: Path) -> None:
    folder = mimic_manual(mimic_layout(tmp_path))
    dataset, usual = mimic(folder, manual_test=True), mimic(folder)
    assert named(dataset, "096052b7-d256dc40")["Lung Opacity"] == 1
    assert (
        np.isnan(named(dataset, "096052b7-d256dc40")["Edema"]) and named(dataset, "096052b7-d256dc40")["abnormal"] == 1
    )
    assert named(dataset, "096052b7-d256dc41") == {"Support Devices": 1, "abnormal": 0}
    for image in ("02aa804e-bde0afdd", "68b5c4b1-227d0485"):  # of other splits
        assert named(dataset, image) == named(usual, image)
    content = (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").read_text()
    (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(content.replace("57375968", "57375999"))
    assert mimic(folder, manual_test=True).ids.tolist() == [
        image for image in usual.ids.tolist() if image != "096052b7-d256dc41"
    ]
    (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").unlink()
    with pytest.raises(InputError, match=r"mimic-cxr-2\.1\.0-test-set-labeled\.csv should be there"):
        mimic(folder, manual_test=True)


def test_what_is_no_mimic_is_refused(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path / "set")
    packed = folder / "mimic-cxr-2.0.0-split.csv.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"split\.csv\.gz is no whole gzip file: download it again"):
        mimic(folder)
    packed.write_bytes(b"dicom_id,split\n")
    with pytest.raises(InputError, match="is no whole gzip file"):
        mimic(folder)
    packed.unlink()
    with pytest.raises(
        InputError, match=r"is not MIMIC-CXR: mimic-cxr-2\.0\.0-split\.csv\.gz or mimic-.*\.csv should be"
    ):
        mimic(folder)
    packed.write_bytes(whole)
    shutil.rmtree(folder / "files" / "p10")
    with pytest.raises(InputError, match="none of the 5 listed images"):
        mimic(folder)


# ---- VinBigData


@pytest.mark.parametrize(
    ("merge", "cardiomegaly", "aorta", "nodule", "pneumothorax", "normal"),
    [("majority", 1, 0, 0, 1, 0), ("union", 1, 1, 1, 1, 0), ("mean", 2 / 3, 1 / 3, 1 / 3, 2 / 3, 1 / 3)],
)
def test_vinbigdata_merges_its_readers(
    tmp_path: Path, merge: str, cardiomegaly: float, aorta: float, nodule: float, pneumothorax: float, normal: float
) -> None:
    dataset = vinbigdata(vinbigdata_layout(tmp_path), merge=merge)
    assert dataset.ids.tolist() == sorted(VINBIGDATA_ROWS) and set(dataset.labels) == set(SETS["vindr14"])
    found = named(dataset, "0b")
    assert found.get("Cardiomegaly", 0) == pytest.approx(cardiomegaly)
    assert found.get("Aortic enlargement", 0) == pytest.approx(aorta)
    assert found["abnormal"] == pytest.approx(1 - normal)
    # Two of three readers saw nothing: a majority of them is for normal.
    assert named(dataset, "0c").get("Nodule/Mass", 0) == pytest.approx(nodule)
    assert named(dataset, "0d")["Pneumothorax"] == pytest.approx(pneumothorax)
    assert named(dataset, "0a") == {"abnormal": 0}
    assert set(dataset.splits) == {"train", "val", "test"}
    # All readers' boxes of what is positive after merging.
    boxes = [tuple(box[2:]) for box in dataset.boxes if box.label == "Cardiomegaly"]
    assert boxes == [(20, 40, 60, 80), (24, 44, 64, 84), (1, 2, 3, 4)]
    assert any(box.label == "Aortic enlargement" for box in dataset.boxes) is (aorta >= 0.5)


def test_vinbigdata_of_smaller_pictures_has_smaller_boxes(tmp_path: Path) -> None:
    dataset = vinbigdata(vinbigdata_layout(tmp_path, ".png"))
    boxes = [tuple(box[2:]) for box in dataset.boxes if box.label == "Cardiomegaly"]
    assert boxes[0] == (10, 20, 30, 40) and dataset.files[0].suffix == ".png"
    dataset.reader(0)()
    # Without the sizes of the films nobody knows where a box lies in a smaller picture.
    (tmp_path / "train_meta.csv").unlink()
    unknown = vinbigdata(tmp_path)
    assert unknown.boxes == () and any("boxes left out: " in text for text in unknown.provenance["warnings"])
    # Another edition has them in the table itself.
    with (tmp_path / "train.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    table(tmp_path / "train.csv", (*header, "width", "height"), [(*line, 192, 96) for line in lines])
    boxes = [tuple(box[2:]) for box in vinbigdata(tmp_path).boxes if box.label == "Cardiomegaly"]
    assert boxes[0] == (5, 20, 15, 40)


def test_what_is_no_vinbigdata_is_refused(tmp_path: Path) -> None:
    folder = vinbigdata_layout(tmp_path / "set")
    content = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(content.replace("Cardiomegaly,3", "Cardiomegaly,4"))
    with pytest.raises(InputError, match=r"line \d+ of .*class_id 4 is not 'Cardiomegaly' in VinBigData"):
        vinbigdata(folder)
    with pytest.raises(UsageError, match="unknown merge 'most'"):
        vinbigdata(folder, merge="most")
    (folder / "train.csv").unlink()
    with pytest.raises(InputError, match=r"is not VinBigData: train\.csv should be there"):
        vinbigdata(folder)


# ---- ChestMNIST


@pytest.mark.parametrize("side", [64, 224])
def test_chestmnist_is_read_from_its_one_file(tmp_path: Path, side: int) -> None:
    dataset = ChestMnist(chestmnist_layout(tmp_path / f"chestmnist_{side}.npz", side).parent)
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
    with pytest.raises(InputError, match=r"does not hold one chestmnist\*\.npz \(it holds none\)"):
        ChestMnist(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        ChestMnist(tmp_path / "chestmnist.npz")
    path = chestmnist_layout(tmp_path / "chestmnist.npz")
    whole = path.read_bytes()
    for content in (b"no zip", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is no ChestMNIST"):
            ChestMnist(path)
    np.savez(path, **{f"{split}_labels": np.full((3, 14), 2) for split in ("train", "val", "test")})
    with pytest.raises(InputError, match=r"train_labels is int64 \(3, 14\), not"):
        ChestMnist(path)
    chestmnist_layout(tmp_path / "chestmnist_64.npz")
    with pytest.raises(InputError, match=r"it holds chestmnist\.npz, chestmnist_64\.npz"):
        ChestMnist(tmp_path)


def test_films_of_vinbigdata_without_pixels_or_transfer_syntax(tmp_path: Path) -> None:
    folder = vinbigdata_layout(tmp_path / "set")
    without_transfer_syntax(folder / "train" / "0a.dicom")
    empty = dcmread(folder / "train" / "0b.dicom")
    del empty.PixelData
    empty.save_as(folder / "train" / "0b.dicom")
    (folder / "train" / "0c.dicom").unlink()
    prepared = prepare(vinbigdata(folder), tmp_path / "out", 1)
    assert prepared.info["rejected"] == {"no-pixels": 1, "not-found": 1}
    assert {"0a"} < set(prepared.ids.tolist()) and not {"0b", "0c"} & set(prepared.ids.tolist())


@pytest.mark.slow
def test_findings_that_a_data_set_does_not_know_are_neither_trained_on_nor_scored(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder, runs = nih_layout(tmp_path / "set"), tmp_path / "runs"
    short = ("--depth", "2", "--epochs", "1", "--batch", "4")
    for command in (
        ("prepare", "nih", folder, "--labels", "vindr14", "--workers", "1"),
        ("train", "--init", "random", "--patch", "56", *short),
        ("evaluate",),
    ):
        typed = edgecxr(*command, runs=runs)
        assert typed.code == 0, typed
    record = json.loads((runs / "teacher-tiny-224" / "card.json").read_text())["metrics"]["nih/test"]
    assert record["skipped"]["ILD"] == {"positives": 0, "negatives": 0}
    assert "Pleural effusion" in record["findings"]["labels"] and "ILD" not in record["findings"]["labels"]


# ---- images without a line, lines without an image


@pytest.mark.parametrize(
    ("open_", "layout", "place"),
    [
        (nih, nih_layout, "images_002/images/00099999_000.png"),
        (chexpert, chexpert_layout, "train/patient00009/study1/view1_frontal.jpg"),
        (mimic, mimic_layout, "files/p10/p10000032/s50414267/other.jpg"),
        (vinbigdata, vinbigdata_layout, "train/99.dicom"),
    ],
)
def test_images_that_no_line_names_are_listed(
    tmp_path: Path, open_: Callable[[Path], CxrDataset], layout: Callable[[Path], Path], place: str
) -> None:
    folder = layout(tmp_path / "set")
    whole = open_(folder)
    # Not even those that were left out: lateral films, films without labels.
    assert whole.unlisted == ()
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(whole.files[0].read_bytes())
    (folder / "notes.txt").write_text("mine")
    whole.files[1].unlink()
    dataset = open_(folder)
    assert dataset.unlisted == (folder / place,)
    prepared = prepare(dataset, tmp_path / "out", 1)
    assert (prepared.path / "unlisted.csv").read_text().splitlines() == ["file", str(folder / place)]
    assert "images that no line names: 1 (see" in prepared.describe()
    assert prepared.info["rejected"] == {"not-found": 1}
    # Films are not decoded anew because another file has come or gone.
    decoded = (prepared.path / "images.npy").stat()
    other = (folder / place).with_suffix(".2.png")
    (folder / place).rename(other)
    (folder / "notes.txt").unlink()
    again = prepare(open_(folder), tmp_path / "out", 1)
    assert (again.path / "unlisted.csv").read_text().splitlines() == ["file", str(other)]
    other.unlink()
    again = prepare(open_(folder), tmp_path / "out", 1)
    assert not (again.path / "unlisted.csv").exists() and "no line names" not in again.describe()
    assert (again.path / "images.npy").stat() == decoded and again.hash == prepared.hash


TOO_LONG = Path("/".join(["y"] * 2500))
"""A path that a file system refuses, other than one where there is nothing."""


@pytest.mark.parametrize("open_", [nih, chexpert, mimic, vinbigdata, ChestMnist, VinDr])
def test_a_path_that_is_too_long_is_refused_as_any_other(open_: Callable[[Path], CxrDataset]) -> None:
    with pytest.raises(InputError):
        open_(TOO_LONG)


# ---- as they are typed


@pytest.mark.parametrize(
    ("kind", "layout", "options", "images"),
    [
        ("nih", nih_layout, ("--labels", "vindr14"), 10),
        ("chexpert", chexpert_layout, ("--uncertain", "ones", "--any-view"), 8),
        ("mimic-cxr", mimic_layout, ("--labeler", "negbio", "--labels", "chexpert5"), 5),
        ("vinbigdata", vinbigdata_layout, ("--merge", "union"), 16),
        ("chestmnist", lambda folder: chestmnist_layout(folder / "chestmnist_64.npz"), (), 15),
    ],
)
def test_each_is_prepared_by_its_name(
    tmp_path: Path, kind: str, layout: Callable[[Path], object], options: tuple[str, ...], images: int
) -> None:
    layout(tmp_path / "set")
    typed = edgecxr("prepare", kind, tmp_path / "set", *options, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 0 and f"{kind}: {images} images in" in typed.out, typed


def test_a_set_with_other_findings_is_not_replaced_in_silence(tmp_path: Path) -> None:
    nih_layout(tmp_path / "set")
    typed = ("prepare", "nih", tmp_path / "set", "--workers", "1")
    assert "going to be replaced" not in edgecxr(*typed, runs=tmp_path / "runs").err
    assert "going to be replaced" not in edgecxr(*typed, runs=tmp_path / "runs").err
    again = edgecxr(*typed, "--labels", "vindr14", runs=tmp_path / "runs")
    assert again.code == 0 and "going to be replaced (findings: Atelectasis, Cardiomegaly, " in again.err
    assert ", now Aortic enlargement, " in again.err and "--name keeps both" in again.err
    films = sorted((tmp_path / "set").rglob("*.png"))
    content = films[0].read_bytes()
    films[0].write_bytes(b"no film")
    assert "rejected: not-an-image 1" in edgecxr(*typed, "--labels", "vindr14", runs=tmp_path / "runs").out
    once_more = edgecxr(*typed, "--labels", "vindr14", "--retry", runs=tmp_path / "runs")
    assert "read again: 1 films, of which 0 can be used now" in once_more.err, once_more
    films[0].write_bytes(content)
    other = edgecxr(*typed, "--labels", "vindr14", "--seed", "3", runs=tmp_path / "runs")
    assert "going to be replaced (seed: 0, now 3); --name keeps both" in other.err
    assert "ILD not known" in again.out


def test_workers_give_the_same_bytes_as_one_process(tmp_path: Path) -> None:
    source: Any = ChestMnist(chestmnist_layout(tmp_path / "chestmnist_64.npz"))
    hashes = {prepare(source, tmp_path / f"by-{workers}", workers).hash for workers in (1, 2)}
    assert len(hashes) == 1

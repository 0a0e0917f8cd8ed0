"""NIH ChestX-ray14: labels cell by cell, splits, boxes, and what is wrong with its files."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.adapters.nih import nih
from edgecxr.data.tables.labels import SETS
from edgecxr.errors import InputError
from tests.data.layouts import (
    NIH_ROWS,
    NIH_TEST,
    named,
    nih_layout,
    pixels,
    splits_of,
    table,
)


def test_nih_has_each_finding_of_each_line(tmp_path: Path) -> None:
    dataset = nih(nih_layout(tmp_path))
    assert dataset.labels == SETS["nih14"] and dataset.ids.tolist() == list(NIH_ROWS)
    for image, cell in NIH_ROWS.items():
        findings = set() if cell == "No Finding" else set(cell.split("|"))
        assert named(dataset, image) == dict.fromkeys(findings, 1.0) | {"abnormal": float(bool(findings))}
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


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    folder = nih_layout(tmp_path)
    chosen = tmp_path / "mine.toml"
    chosen.write_text('[labels]\n"Big heart" = ["Cardiomegaly"]\n', encoding="utf-8-sig")
    usual = nih(folder)
    for name in ("test_list.txt", "train_val_list.txt"):
        (folder / name).write_text((folder / name).read_text(), encoding="utf-8-sig")
    assert splits_of(nih(folder, labels=str(chosen))) == splits_of(usual)


@pytest.mark.parametrize(
    ("spoil", "message"),
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
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = nih_layout(tmp_path / "nih")
    spoil(folder)
    with pytest.raises(InputError, match=message) as caught:
        nih(folder)
    assert caught.value.reason == "dataset" and "\n" not in str(caught.value)


def test_a_finding_that_nih_does_not_have_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 3 of .*'Edema\|Edemma' holds .*no finding .*\(Edemma\)"):
        nih(
            nih_layout(
                tmp_path,
                rows={"00000001_000.png": "Edema", "00000002_000.png": "Edema|Edemma"},
                test=("00000002_000.png",),
            )
        )


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

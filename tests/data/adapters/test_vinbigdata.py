"""VinBigData: readers, boxes of smaller pictures, and what is wrong with its files."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from pydicom import dcmread

from edgecxr.data.adapters.vinbigdata import vinbigdata
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.tables.labels import SETS
from edgecxr.errors import InputError, UsageError
from tests.data.layouts import (
    VINBIGDATA_ROWS,
    named,
    table,
    vinbigdata_layout,
)
from tests.films.dicom_files import without_transfer_syntax


@pytest.mark.parametrize(
    ("merge", "cardiomegaly", "aorta", "nodule", "pneumothorax", "normal"),
    [("majority", 1, 0, 0, 1, 0), ("union", 1, 1, 1, 1, 0), ("mean", 2 / 3, 1 / 3, 1 / 3, 2 / 3, 1 / 3)],
)
def test_vinbigdata_merges_its_readers(
    tmp_path: Path, merge: str, cardiomegaly: float, aorta: float, nodule: float, pneumothorax: float, normal: float
) -> None:
    dataset = vinbigdata(vinbigdata_layout(tmp_path), merge=merge)
    assert dataset.ids.tolist() == sorted(VINBIGDATA_ROWS) and set(dataset.labels) == set(SETS["vindr14"])
    labels = named(dataset, "0b")
    assert labels.get("Cardiomegaly", 0) == pytest.approx(cardiomegaly)
    assert labels.get("Aortic enlargement", 0) == pytest.approx(aorta)
    assert labels["abnormal"] == pytest.approx(1 - normal)
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
    with pytest.raises(InputError, match=r"line \d+ of .*class_id 4 .*not 'Cardiomegaly'"):
        vinbigdata(folder)
    with pytest.raises(UsageError, match="unknown merge 'most'"):
        vinbigdata(folder, merge="most")
    (folder / "train.csv").unlink()
    with pytest.raises(InputError, match=r"is not VinBigData: train\.csv should be there"):
        vinbigdata(folder)


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


@pytest.mark.parametrize("sizes", [("0c", -96, 96), ("0c", 0, 96), ("0c", 96, "wide"), ("0b", 48, 96)])
def test_sizes_that_are_none_or_contradict_each_other_are_refused_with_their_line(
    tmp_path: Path, sizes: tuple[object, ...]
) -> None:
    header = ("image_id", "dim0", "dim1")
    table(vinbigdata_layout(tmp_path, ".png") / "train_meta.csv", header, [("0a", 96, 96), ("0b", 96, 96), sizes])
    with pytest.raises(InputError, match=r"line 4 of .*train_meta\.csv") as caught:
        vinbigdata(tmp_path)
    assert caught.value.reason == "dataset"


def test_boxes_of_films_without_a_size_are_counted_and_sizes_of_dicom_films_do_not_matter(tmp_path: Path) -> None:
    header = ("image_id", "dim0", "dim1")
    whole = len(vinbigdata(vinbigdata_layout(tmp_path / "png", ".png")).boxes)
    rows = [(image, 96, "" if image == "0b" else 96) for image in VINBIGDATA_ROWS]
    table(tmp_path / "png" / "train_meta.csv", header, [*rows, rows[0]])
    dataset = vinbigdata(tmp_path / "png")
    assert len(dataset.boxes) == whole - 3
    assert [text for text in dataset.provenance["warnings"] if text.startswith("boxes left out: 3;")]
    vinbigdata_layout(tmp_path / "dicom")
    table(tmp_path / "dicom" / "train_meta.csv", header, [("0a", 0, 0)])
    assert len(vinbigdata(tmp_path / "dicom").boxes) == whole

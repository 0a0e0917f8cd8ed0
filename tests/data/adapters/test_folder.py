import csv
import os
import pickle
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecxr.data.adapters.folder import folder
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.splits import class_warnings
from edgecxr.errors import InputError, UsageError
from tests.cli_workspace import edgecxr, image_folder

HEADER = ["image", "patient", "split", "age", "Edema", "Nodule"]


def make(folder: Path, header: list[str], rows: list[list[str]], name: str = "labels.csv") -> Path:
    """Write a table and an image for each cell of its first column."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    for row in rows:
        if row[0]:
            (folder / row[0]).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (4, 4)).save(folder / row[0])
    return folder / name


def rows_of(splits: list[str]) -> list[list[str]]:
    """One image per entry; findings alternate so that each split has both classes."""
    return [[f"{i}.png", f"p{i}", split, "50", str(i % 2), str((i + 1) % 2)] for i, split in enumerate(splits)]


def test_labels_are_the_columns_that_hold_only_label_values(tmp_path: Path) -> None:
    header = [*HEADER, "soft", "empty", "No Finding"]
    rows = [[*row, "0.5", "", "1" if i % 3 else "0"] for i, row in enumerate(rows_of(["train"] * 4 + ["test"]))]
    rows[1][4] = ""
    dataset = folder(make(tmp_path / "mine", header, rows))
    assert dataset.name == "mine"
    assert dataset.labels == ("Edema", "Nodule", "soft")
    np.testing.assert_array_equal(dataset.targets[:3], np.array([[0, 1, 0.5], [np.nan, 0, 0.5], [0, 1, 0.5]], "f4"))
    np.testing.assert_array_equal(dataset.abnormal, [1, 0, 0, 1, 0])
    assert folder(tmp_path / "mine", ignore=["soft"]).labels == ("Edema", "Nodule")
    assert folder(tmp_path / "mine", labels=["Nodule", "Edema"]).labels == ("Nodule", "Edema")


def test_without_a_column_for_it_abnormal_is_any_finding(tmp_path: Path) -> None:
    rows = rows_of(["train"] * 3 + ["val"])
    rows[0][4:] = ["", ""]
    rows[1][4:] = ["0", "0"]
    rows[3][4:] = ["", "1"]
    dataset = folder(make(tmp_path, HEADER, rows))
    np.testing.assert_array_equal(dataset.abnormal, [np.nan, 0, 1, 1])
    assert dataset.provenance["abnormal"] == "any finding"


def test_stated_abnormal_wins_and_normal_fills_its_gaps(tmp_path: Path) -> None:
    rows = [row + cells for row, cells in zip(rows_of(["train"] * 3), (["1", "0"], ["", "1"], ["", ""]), strict=True)]
    dataset = folder(make(tmp_path, [*HEADER, "Abnormal", "NORMAL"], rows))
    np.testing.assert_array_equal(dataset.abnormal, [1, 0, np.nan])
    rows[0][-1] = "1"
    make(tmp_path, [*HEADER, "Abnormal", "NORMAL"], rows)
    with pytest.raises(InputError, match=r"line 2 .*'NORMAL' and 'Abnormal' contradict"):
        folder(tmp_path)
    np.testing.assert_array_equal(folder(tmp_path, ignore=["NORMAL"]).abnormal, [1, np.nan, np.nan])


def test_other_column_names_and_another_folder_of_images(tmp_path: Path) -> None:
    make(tmp_path / "films", ["image"], [["a.png"], ["b.png"]])
    table = make(tmp_path / "tables", ["file", "who", "fold", "Edema", "fine"], [])
    table.write_text("file;who;fold;Edema;fine\na.png;x;Training;1;0\n\nb.png;y;training;0;1\n")
    dataset = folder(
        table, tmp_path / "films", None, "file", "who", "fold", normal_column="fine", name="mine", val_fraction=0
    )
    assert dataset.labels == ("Edema",)
    assert dataset.patients.tolist() == ["x", "y"]
    assert dataset.abnormal.tolist() == [1, 0]
    assert dataset.files[0] == tmp_path / "films" / "a.png"
    with pytest.raises(InputError, match="no column 'who2'; did you mean 'who'"):
        folder(table, tmp_path / "films", image_column="file", patient_column="who2")


def test_split_names_of_other_people_are_understood(tmp_path: Path) -> None:
    names = ["Training", "training", "valid", "dev", "validation", "Testing", "test"]
    dataset = folder(make(tmp_path, HEADER, rows_of(names)))
    assert dataset.splits.tolist() == ["train", "train", "val", "val", "val", "test", "test"]


def test_validation_is_cut_from_training_patients_only(tmp_path: Path) -> None:
    rows = rows_of(["train"] * 80 + ["test"] * 20)
    for i, row in enumerate(rows):
        row[1] = f"p{i // 2}"
    dataset = folder(make(tmp_path, HEADER, rows), val_fraction=0.25)
    assert (dataset.splits[80:] == "test").all()
    assert (dataset.splits == "val").sum() == 20
    assert (dataset.splits[::2] == dataset.splits[1::2]).all()
    assert not any("more than one split" in warning for warning in dataset.provenance["warnings"])


def test_without_a_split_column_patients_are_divided_in_a_stratified_and_reproducible_way(tmp_path: Path) -> None:
    header = ["image", "patient", "Edema"]
    rows = [[f"{i}.png", f"p{i // 2}", str(int(i < 40))] for i in range(400)]
    path = make(tmp_path, header, rows)
    dataset = folder(path)
    assert (dataset.splits[::2] == dataset.splits[1::2]).all()
    count = {
        (split, value): int(((dataset.splits == split) & (dataset.abnormal == value)).sum())
        for split in ("train", "val", "test")
        for value in (0, 1)
    }
    assert count == {
        ("train", 0): 252,
        ("train", 1): 28,
        ("val", 0): 36,
        ("val", 1): 4,
        ("test", 0): 72,
        ("test", 1): 8,
    }
    assert (dataset.splits != folder(path, seed=1).splits).any()
    # The division belongs to the patients, not to the order of the lines.
    shuffled = folder(make(tmp_path, header, rows[::-1]))
    assert dict(zip(dataset.ids, dataset.splits, strict=True)) == dict(zip(shuffled.ids, shuffled.splits, strict=True))


def test_warnings_for_leaks_single_classes_and_unknown_patients(tmp_path: Path) -> None:
    rows = rows_of(["train"] * 4 + ["val", "test"])
    rows[5][1] = rows[4][1] = rows[0][1]
    for row in rows[:4]:
        row[5] = "0"
    dataset = folder(make(tmp_path, HEADER, rows))
    (warning,) = dataset.provenance["warnings"]
    assert re.search(r"patients in more .*split: 1;", warning)
    (single,) = class_warnings(dataset.labels, dataset.targets, dataset.abnormal, dataset.splits)
    assert re.search(r"cannot be learnt .*one class: Nodule \(0 positive, 4 negative\)", single)
    header = [name for name in HEADER if name != "patient"]
    anonymous = folder(make(tmp_path, header, [row[:1] + row[2:] for row in rows_of(["train"] * 4)]))
    assert anonymous.patients.tolist() == anonymous.ids.tolist()
    assert "no column 'patient'" in anonymous.provenance["warnings"][0]


def test_films_of_unknown_patients_are_divided_one_by_one(tmp_path: Path) -> None:
    rows = [[f"{i}.png", "nan" if i % 2 else f"p{i}", str(i // 2 % 2)] for i in range(20)]
    dataset = folder(make(tmp_path, ["image", "patient", "Edema"], rows))
    assert len(set(dataset.patients)) == 20 and len(set(dataset.splits[1::2])) > 1
    assert any(": 10 of 20;" in text for text in dataset.provenance["warnings"])


def test_a_division_under_another_name_is_used(tmp_path: Path) -> None:
    rows = rows_of(["train"] * 4 + ["Testing"] * 2)
    path = make(tmp_path, ["image", "patient", "phase", *HEADER[3:]], rows)
    dataset = folder(path, val_fraction=0)
    assert dataset.splits.tolist() == ["train"] * 4 + ["test"] * 2 and dataset.provenance["split"] == "phase"
    assert folder(path, ignore=["phase"]).provenance["split"] != "phase"
    rows[3][2] = ""
    with pytest.raises(InputError, match=r"line 5 .*'phase' holds ''.*--ignore phase"):
        folder(make(tmp_path, ["image", "patient", "phase", *HEADER[3:]], rows))


def test_a_column_that_is_hardly_a_finding_is_taken_and_named(tmp_path: Path) -> None:
    rows = [["a.png", "p", "train", "1", "0"], ["b.png", "q", "train", "0", "0"], ["c.png", "r", "val", "0", "1"]]
    header = ["image", "patient", "split", "Edema", "Sex"]
    (warning,) = folder(make(tmp_path / "one", header, rows)).provenance["warnings"]
    assert re.fullmatch(r"taken as findings: Sex; .* --ignore Sex", warning)
    assert folder(make(tmp_path / "two", header, rows), labels=["Edema", "Sex"]).provenance["warnings"] == []


def test_a_set_for_testing_only_is_allowed(tmp_path: Path) -> None:
    dataset = folder(make(tmp_path, HEADER, rows_of(["test"] * 3)))
    assert set(dataset.splits) == {"test"}


def edited(column: int, cell: str) -> list[list[str]]:
    rows = rows_of(["train"] * 4)
    rows[2][column] = cell
    return rows


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (edited(4, "-1"), {"labels": ["Edema"]}, r"line 4 of .*labels\.csv: column 'Edema' holds '-1'"),
        (edited(4, "yes"), {"labels": ["Edema"]}, r"'Edema' holds 'yes', but a label is 1, 0"),
        (edited(0, "1.png"), {}, r"line 4 of .* lists 1\.png again, after line 3"),
        (edited(0, "./1.png"), {}, "again, after line 3"),
        (edited(0, ""), {}, "line 4 of .* names no image"),
        (edited(2, "fold3"), {}, "'split' holds 'fold3', but a split is train, val or test"),
        (edited(2, ""), {}, "'split' holds ''"),
        (
            rows_of(["train"] * 4),
            {"labels": ["Oedema"]},
            r"no column 'Oedema'; did you mean 'Edema'\? \(it has: image,",
        ),
        (rows_of(["train"] * 4), {"image_column": "file"}, "no column 'file'"),
        (rows_of(["train"] * 4), {"images": Path("/nowhere")}, r"none of the 4 images .* such as /nowhere/0\.png"),
        (rows_of(["train"]), {}, "no label has both positive and negative training images"),
        ([[*row[:4], "x", "y"] for row in rows_of(["train"] * 4)], {}, "holds 'x'"),
        ([], {}, "has no rows"),
    ],
)
def test_a_wrong_table_is_refused_with_its_place(
    tmp_path: Path, rows: list[list[str]], options: dict[str, Any], message: str
) -> None:
    path = make(tmp_path, HEADER, rows)
    with pytest.raises(InputError, match=message) as caught:
        folder(path, **options)
    assert caught.value.reason == "dataset"
    assert "\n" not in str(caught.value)


def test_text_that_is_no_table_is_malformed(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    for content, message in (
        (b"image,Edema\n0.png,1,1\n", "line 2 of .* has 3 cells where the header has 2"),
        (b"image,Edema,Edema\n0.png,1,1\n", "two columns called 'Edema'"),
        (b"image,Edema\n\xff\xfe,1\n", "not UTF-8"),
        (b'image,Edema\n"0.png,1\n', "line 2 of .* quotation"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message) as caught:
            folder(path)
        assert caught.value.reason == "malformed"


def test_a_missing_table_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("")
    with pytest.raises(InputError, match=r"labels\.csv does not exist \(.* holds: train\.csv\)"):
        folder(tmp_path)


def test_excel_writes_a_byte_order_mark(tmp_path: Path) -> None:
    path = make(tmp_path, HEADER, rows_of(["train"] * 2))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(folder(path, val_fraction=0)) == 2


@pytest.mark.parametrize("labels", [["Edema", "Edema"], ["abnormal"], ["split"], []])
def test_labels_that_are_no_findings_are_refused(tmp_path: Path, labels: list[str]) -> None:
    path = make(tmp_path, [*HEADER, "abnormal"], [[*row, "1"] for row in rows_of(["train"] * 2)])
    with pytest.raises(UsageError, match="labels must be different"):
        folder(path, labels=labels)


def test_fractions_that_leave_nothing_to_train_on_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path, ["image", "Edema"], [["0.png", "0"], ["1.png", "1"]])
    with pytest.raises(UsageError, match="leave something to train"):
        folder(path, val_fraction=0.5, test_fraction=0.5)


def test_it_travels_to_another_process_and_needs_no_dicom_library(tmp_path: Path) -> None:
    path = make(tmp_path, HEADER, rows_of(["train"] * 4))
    assert pickle.loads(pickle.dumps(folder(path))).ids.tolist() == ["0.png", "1.png", "2.png", "3.png"]
    code = (
        "import sys; from edgecxr.data.prepare import prepare; "
        "from edgecxr.data.adapters import folder, vindr; "
        f"films = folder.folder({str(path)!r}); print(len(films), 'pydicom' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout == "4 False\n", ran.stderr


@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "labels", "counts"), [("nih_dev", 14, [802, 165, 240]), ("kermany_pneumonia", 3, [4628, 562, 618])]
)
def test_real_tables_are_taken_as_they_are(name: str, labels: int, counts: list[int]) -> None:
    corpus = os.environ.get("EDGECXR_CORPUS")
    if not corpus:
        pytest.skip("EDGECXR_CORPUS is not set")
    dataset = folder(Path(corpus) / name)
    assert len(dataset.labels) == labels
    assert [int((dataset.splits == split).sum()) for split in ("train", "val", "test")] == counts
    assert dataset.provenance["warnings"] == []
    assert dataset.reader(0)().pixels.max() <= 1


def test_nothing_found_and_not_all_known_is_neither_normal_nor_abnormal(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("image,Mass,Edema,split\na.png,0,,train\nb.png,1,,train\nc.png,0,0,train\n")
    abnormal = folder(tmp_path).abnormal
    assert np.isnan(abnormal[0])
    assert abnormal[1:].tolist() == [1, 0]


def test_no_finding_is_not_a_finding(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,Mass,No Finding\na.png,0,1\n")
    with pytest.raises(UsageError, match="'No Finding' already has another meaning"):
        folder(tmp_path, labels=["Mass", "No Finding"])


def boxed(place: Path, text: str, **options: Any) -> Dataset:
    """Open four images, i/0.png to i/3.png, with a list of boxes."""
    rows = [[f"i/{row[0]}", *row[1:]] for row in rows_of(["train"] * 4)]
    path = make(place, [*HEADER[:-1], "Infiltration"], rows)
    (place / "boxes.csv").write_text(text)
    return folder(path, boxes=place / "boxes.csv", val_fraction=0, **options)


@pytest.mark.parametrize("label_column", ["label", "finding", "class_name", "Finding Label"])
@pytest.mark.parametrize(
    ("columns", "cells"),
    [("x_min,y_min,x_max,y_max", "1,2,4,6.5"), ("x,y,w,h", "1,2,3,4.5"), ("y_max,X_max,y_min,x_min", "6.5,4,2,1")],
)
def test_boxes_are_listed_by_corners_or_by_size(tmp_path: Path, label_column: str, columns: str, cells: str) -> None:
    dataset = boxed(tmp_path, f"image,age,{label_column},{columns}\ni/1.png,50,Edema,{cells}\ni/0.png,,Edema,,,,\n")
    assert dataset.boxes == ((1, "Edema", 1, 2, 4, 6.5),)
    assert not any("boxes" in warning for warning in dataset.provenance["warnings"])


def test_nih_calls_infiltration_infiltrate_in_its_list_of_boxes(tmp_path: Path) -> None:
    text = "image,finding,x,y,w,h\ni/1.png,Infiltrate,1,1,1,1\n"
    assert boxed(tmp_path, text).boxes == ((1, "Infiltration", 1, 1, 2, 2),)
    rows = [["0.png", "1", "0"], ["1.png", "0", "1"]]
    make(tmp_path / "own", ["image", "Infiltrate", "Infiltration"], rows)
    (tmp_path / "own" / "boxes.csv").write_text(text.replace("i/", ""))
    own = folder(tmp_path / "own", boxes=tmp_path / "own" / "boxes.csv", val_fraction=0, test_fraction=0)
    assert own.boxes == ((1, "Infiltrate", 1, 1, 2, 2),)


def test_images_of_boxes_are_named_as_in_the_table_or_from_its_folder(tmp_path: Path) -> None:
    make(tmp_path / "films", ["file"], [["a.png"], ["b.png"]])
    (tmp_path / "table.csv").write_text("file,Edema\na.png,1\nb.png,0\n")
    boxes = tmp_path / "elsewhere.csv"
    boxes.write_text(
        "file,label,x,y,w,h\na.png,Edema,1,1,1,1\nfilms/b.png,Edema,1,1,1,1\n./films/a.png,Edema,2,2,1,1\n"
        f"{tmp_path}/films/b.png,Edema,2,2,1,1\nB.png,Edema,1,1,1,1\n"
    )
    dataset = folder(
        tmp_path / "table.csv", tmp_path / "films", image_column="file", boxes=boxes, val_fraction=0, test_fraction=0
    )
    assert [box.index for box in dataset.boxes] == [0, 1, 0, 1]
    assert dataset.provenance["warnings"][-1] == "boxes left out: 1; table.csv has no such images (B.png)"


def test_boxes_of_unknown_images_and_findings_are_counted_and_left_out(tmp_path: Path) -> None:
    names = ["i/1.png,Edema", "x.png,Edema", "x.png,Edema", "y.png,Mass", "i/0.png,Mass", "i/2.png,Dark spot"]
    dataset = boxed(tmp_path, "image,label,x,y,w,h\n" + "".join(f"{name},1,1,1,1\n" for name in names))
    assert dataset.boxes == ((1, "Edema", 1, 1, 2, 2),)
    assert dataset.provenance["warnings"][-2:] == [
        "boxes left out: 3; labels.csv has no such images (x.png, y.png)",
        "boxes left out: 2; labels.csv has no such findings (Mass, Dark spot)",
    ]


@pytest.mark.parametrize(
    ("text", "kept", "unused"),
    [
        (
            'Lung = ["Edema", "Infiltration"]\nWet = ["Edema"]',
            ["Edema Lung", "Infiltration Lung", "Infiltrate Lung", "lung Lung"],
            0,
        ),
        ('Water = ["Edema"]', ["Edema Water", "water Water"], 1),
        ('A = ["Edema"]\nB = ["Infiltration", "Edema"]', ["Edema A", "Edema B", "Infiltration B", "b B"], 0),
        ('edema = ["Infiltration"]', ["Infiltration edema"], 1),
        ('Edema = ["Edema"]\nInfiltration = ["Infiltration"]', ["Edema Edema", "INFILTRATION Infiltration"], 0),
    ],
)
def test_boxes_follow_the_findings_of_a_file(tmp_path: Path, text: str, kept: list[str], unused: int) -> None:
    (tmp_path / "labels.toml").write_text(f"[labels]\n{text}\n")
    names = dict.fromkeys(["Edema", "Infiltration", *(pair.split()[0] for pair in kept)])
    lines = "".join(f"i/1.png,{name},1,1,{2 + place},5\n" for place, name in enumerate(names))
    read = boxed(tmp_path, f"image,label,x_min,y_min,x_max,y_max\n{lines}", labels=str(tmp_path / "labels.toml"))
    taken = {f"{list(names)[int(box.x_max) - 2]} {box.label}" for box in read.boxes}
    assert taken >= set(kept) and read.unused_boxes == unused
    assert not any(text.startswith("boxes left out") for text in read.provenance["warnings"])
    assert list(read.provenance["labels_from"]) == list(read.labels)


@pytest.mark.parametrize("name", ["abnormal", "Split", "patient", "ID", "", " "])
def test_a_file_names_no_finding_after_another_column(tmp_path: Path, name: str) -> None:
    (tmp_path / "labels.toml").write_text(f'[labels]\n"{name}" = ["Edema"]\n')
    path = make(tmp_path, HEADER, rows_of(["train"] * 4))
    with pytest.raises(UsageError, match=r"labels\.toml .*rename"):
        folder(path, labels=str(tmp_path / "labels.toml"))


@pytest.mark.parametrize("header", ["image,label,finding,x,y,w,h", "image,label,x,X,y,w,h"])
def test_a_list_of_boxes_with_two_columns_that_differ_is_refused(tmp_path: Path, header: str) -> None:
    cells = "i/1.png,Edema,Nodule,1,1,2,3" if "finding" in header else "i/1.png,Edema,1,2,1,2,3"
    with pytest.raises(InputError, match="differ"):
        boxed(tmp_path, f"{header}\n{cells}\n")


def test_a_set_without_a_normal_film_is_said(tmp_path: Path) -> None:
    path = make(tmp_path, HEADER, rows_of(["train"] * 4))
    assert any("no film counts" in text for text in folder(path).provenance["warnings"])
    stated = make(tmp_path, [*HEADER, "abnormal"], [[*row, "1"] for row in rows_of(["train"] * 4)])
    assert folder(stated).provenance["warnings"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label,x,y,w,h\na,b,1,1,1,1\n", r"boxes\.csv has no column 'image'"),
        (
            "image,what,x,y,w,h\na,b,1,1,1,1\n",
            r"boxes\.csv has no column of findings \(it has: image, what, .*: call it",
        ),
        ("image,label,x,y,w\na,b,1,1,1\n", r"no corners of boxes \(it has: .*: call them x_min, .* or x, y, w, h"),
        ("image,label,x_min,y_min,w,h\na,b,1,1,1,1\n", "no corners of boxes"),
        ("image,label,x,y,w,h\ni/0.png,Edema,1,1,1,one\n", r"line 2 of .*boxes\.csv: column 'h' holds 'one'"),
        ("image,label,x,y,w,h\ni/0.png,Edema,1,1,-1,1\n", r"line 2 of .*boxes\.csv is no box \(x 1, y 1, w -1, h 1\)"),
        ("image,label,x,y,w,h\n", r"boxes\.csv has no rows"),
    ],
)
def test_a_wrong_list_of_boxes_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        boxed(tmp_path, text)
    assert caught.value.reason == "dataset"
    assert str(tmp_path / "boxes.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_a_table_that_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    path = make(tmp_path, HEADER, rows_of(["train"] * 4))
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        (tmp_path / "pipe", "pipe .*give the path of"),
        (tmp_path, "not a file"),
        (Path("/dev/full"), "no regular file"),
        (tmp_path / "gone.csv", r"gone\.csv does not exist"),
        (Path("\ud800"), "does not exist"),
    ):
        with pytest.raises(InputError, match=message):
            folder(path, boxes=name, val_fraction=0)


def test_boxes_of_another_size_and_around_what_is_absent_are_said(tmp_path: Path) -> None:
    films, boxes = image_folder(tmp_path / "shades", 8), tmp_path / "boxes.csv"
    lines = ["0.png,dark,500,500,9,9", "1.png,DARK,2,2,9,9", "2.png,Dark,5,5,0,0", "3.png,Dark,-9,-9,5,5"]
    boxes.write_text("\n".join(["image,label,x,y,w,h", *lines, ""]))
    typed = edgecxr("prepare", "folder", films, "--boxes", boxes, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 0 and "  boxes: 1 around findings\n" in typed.out
    assert "left out: 2, outside" in typed.err and "left out: 1, without" in typed.err
    assert "absent: 2 (0.png Dark, 2.png Dark)" in typed.err


def test_boxes_are_typed_with_an_option_that_only_a_folder_takes(tmp_path: Path) -> None:
    films, boxes = image_folder(tmp_path / "shades", 8), tmp_path / "boxes.csv"
    boxes.write_text("image,label,x,y,w,h\n0.png,Dark,1,1,9,9\n9.png,Dark,1,1,9,9\n")
    typed = edgecxr("prepare", "folder", films, "--boxes", boxes, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 0 and "  boxes: 1 around findings\n" in typed.out
    assert "warning: boxes left out: 1; labels.csv has no such images (9.png)" in typed.err
    refused = edgecxr("prepare", "phantom", "--boxes", boxes, runs=tmp_path / "runs")
    assert refused.code == 2 and "phantom takes no --boxes" in refused.error


@pytest.mark.corpus
def test_real_boxes_are_taken_as_they_are() -> None:
    corpus = os.environ.get("EDGECXR_CORPUS")
    if not corpus:
        pytest.skip("EDGECXR_CORPUS is not set")
    films = Path(corpus) / "nih_dev"
    dataset = folder(films, boxes=films / "bbox_256.csv")
    assert len(dataset.boxes) == 43
    assert sum(box.label == "Infiltration" for box in dataset.boxes) == 2
    assert dataset.provenance["warnings"] == []
    assert all(dataset.targets[box.index, dataset.labels.index(box.label)] == 1 for box in dataset.boxes)


def outside_of(tmp_path: Path) -> tuple[Path, Path]:
    """Return a data set of four films, and a film beside it."""
    table = make(tmp_path / "set", HEADER, rows_of(["train"] * 2 + ["val", "test"]))
    secret = tmp_path / "elsewhere" / "secret.png"
    secret.parent.mkdir()
    Image.new("L", (4, 4)).save(secret)
    return table, secret


def listing(table: Path, cell: str) -> Path:
    rows = rows_of(["train"] * 2 + ["val", "test"])
    rows[0][0] = cell
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return table


@pytest.mark.parametrize(
    "cell",
    [
     "../elsewhere/secret.png", "{there}/secret.png", "/etc/passwd", "../../../../../../../../etc/passwd",
     "a/../../elsewhere/secret.png", "/dev/zero", "..", ".", "~/../../x.png",
     "./../elsewhere/secret.png", "../set2/0.png", "/"],
)  # fmt: skip
def test_a_table_names_no_film_outside_of_its_folder(
    tmp_path: Path, cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, secret = outside_of(tmp_path)
    listing(table, cell.format(there=secret.parent))
    monkeypatch.chdir(table.parent)
    for path in (table, table.parent, Path("labels.csv"), Path("../set/labels.csv"), Path()):
        with pytest.raises(InputError) as caught:
            folder(path)
        assert caught.value.reason == "dataset" and "line 2" in str(caught.value) and "--images" in str(caught.value)


def test_the_user_may_name_a_folder_that_holds_all_films(tmp_path: Path) -> None:
    table, secret = outside_of(tmp_path)
    for cell in ("../elsewhere/secret.png", str(secret), "elsewhere/secret.png"):
        films = folder(listing(table, cell), images=tmp_path).files
        assert films[0] == secret
    with pytest.raises(InputError):
        folder(listing(table, str(secret)), images=table.parent)


def test_links_of_folders_are_followed_and_of_films_only_within_the_folder(tmp_path: Path) -> None:
    table, secret = outside_of(tmp_path)
    (table.parent / "linked").symlink_to(secret.parent)
    assert folder(listing(table, "linked/secret.png")).files[0] == table.parent / "linked" / "secret.png"
    (table.parent / "inner.png").symlink_to("1.png")
    assert folder(listing(table, "inner.png")).files[0] == table.parent / "inner.png"
    (table.parent / "outer.png").symlink_to(secret)
    (table.parent / "twice.png").symlink_to("outer.png")
    for cell in ("outer.png", "twice.png"):
        with pytest.raises(InputError, match="line 2") as caught:
            folder(listing(table, cell))
        assert caught.value.reason == "dataset"
    (tmp_path / "beside").symlink_to(table.parent)  # the data set itself may lie behind a link
    assert len(folder(listing(tmp_path / "beside" / "labels.csv", "0.png")).files) == 4


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".png", "x/" * 3000 + "y.png", "a\nb.png", "\x1b[31m.png", "\u202e.png", "=1.png"]
)
def test_strange_names_of_films_are_missing_or_read(tmp_path: Path, name: str) -> None:
    table = make(tmp_path / "set", HEADER, rows_of(["train"] * 4 + ["val", "test"] * 4))
    rows = rows_of(["train"] * 4 + ["val", "test"] * 4)
    rows[0][0] = name
    if len(name) < 100:
        Image.fromarray(np.arange(128 * 128, dtype=np.uint8).reshape(128, 128)).save(table.parent / name)
    for row in rows[1:]:
        noise = np.random.default_rng(len(row[0]) + int(row[0][:-4])).integers(0, 255, (128, 128), np.uint8)
        Image.fromarray(noise).save(table.parent / row[0])
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    typed = edgecxr("prepare", "folder", table, "--name", "strange", runs=tmp_path / "runs")
    assert typed.code == 0, typed.err
    written = (tmp_path / "runs" / "data" / "strange" / "rejected.csv").read_text()
    assert ("not-found" in written) == (len(name) >= 100)
    shown = edgecxr("data", "show", "strange", runs=tmp_path / "runs")
    assert shown.code == 0
    for text in (typed.out, typed.err, shown.out, shown.err):
        assert text.replace("\n", "").isprintable()


def test_a_nul_in_a_table_is_refused(tmp_path: Path) -> None:
    table, _ = outside_of(tmp_path)
    table.write_bytes(table.read_bytes().replace(b"0.png", b"0\x00.png"))
    with pytest.raises(InputError) as caught:
        folder(table)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("columns", ["x_min,y_min,x_max,y_max", "x,y,w,h"])
@pytest.mark.parametrize(("cells", "refused"), [("0.1,0.25,0.5,1", True), ("0,0,1,1", False), ("0.1,0.5,1.5,2", False)])
def test_boxes_in_fractions_of_the_film_are_refused(tmp_path: Path, columns: str, cells: str, refused: bool) -> None:
    text = f"image,label,{columns}\ni/1.png,Edema,{cells}\ni/2.png,Edema,,,,\n"
    with pytest.raises(InputError, match="fractions") if refused else nullcontext():
        assert len(boxed(tmp_path, text).boxes) == 1

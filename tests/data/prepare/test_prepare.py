import csv
import dataclasses
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecxr.data.adapters.folder import folder
from edgecxr.data.dataset import Box, Dataset
from edgecxr.data.prepare.prepare import Prepared, fingerprint, prepare, replaces
from edgecxr.data.sheet import contact_sheet
from edgecxr.errors import InputError, UsageError
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import read_radiograph
from edgecxr.films.resize import to_base
from edgecxr.storage.folders import sole_writer
from tests.data.noise import BOXES, COUNT, contents, folder_of_noise, interrupt, marked


def test_what_is_prepared_is_what_the_reader_and_the_resize_give(source: Path, tmp_path: Path) -> None:
    dataset = folder(source)
    counts: list[tuple[int, int]] = []
    prepared = prepare(dataset, tmp_path / "out", 1, lambda done, total: counts.append((done, total)))
    kept = [i for i in range(COUNT) if i not in (3, 5)]
    assert counts == [(i, COUNT) for i in range(COUNT + 1)]
    assert prepared.images.shape == (28, 224, 224)
    for row in (0, 3, 5, 27):
        np.testing.assert_array_equal(prepared.images[row], to_base(dataset.reader(kept[row])().pixels))
    assert prepared.labels == ("Edema", "Nodule")
    for name in ("ids", "patients", "splits", "targets", "abnormal"):
        np.testing.assert_array_equal(getattr(prepared, name), getattr(dataset, name)[kept])
    assert prepared.targets.dtype == np.float32
    assert prepared.rows("val").tolist() == [i for i, k in enumerate(kept) if k % 3 == 1]
    assert prepared.name == "films"
    assert not prepared.phantom


def test_rejected_images_and_warnings_are_recorded(source: Path, tmp_path: Path) -> None:
    prepared = prepare(folder(source), tmp_path / "out", 1)
    with (prepared.path / "rejected.csv").open(newline="") as file:
        rejected = [(row["id"], row["reason"]) for row in csv.DictReader(file)]
    assert rejected == [("3.png", "not-an-image"), ("5.png", "not-found")]
    assert prepared.info["rejected"] == {"not-an-image": 1, "not-found": 1}
    assert list(prepared.info["warnings"].values()) == [1]
    assert "100 x 100" in next(iter(prepared.info["warnings"]))
    val = prepared.info["counts"]["val"]
    assert (val["images"], val["patients"]) == (10, 10)
    assert val["labels"]["Edema"] == {"positive": 5, "negative": 5, "unknown": 0}
    assert val["labels"]["Nodule"] == {"positive": 9, "negative": 0, "unknown": 1}
    assert "source" not in prepared.summary()["provenance"]


def test_a_finished_one_is_returned_at_once_until_its_inputs_change(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(folder(source), out, 1)
    calls: list[int] = []
    again = prepare(folder(source), out, 1, lambda done, total: calls.append(done))
    assert calls == []
    assert again.hash == first.hash
    Image.new("L", (240, 240)).save(source / "5.png")  # blank, but there
    (source / "3.png").write_bytes((source / "0.png").read_bytes())
    changed = prepare(folder(source), out, 1)
    assert changed.info["rejected"] == {"blank": 1}
    assert changed.hash != first.hash
    np.testing.assert_array_equal(first.images[0], changed.images[0])  # the old map outlives its file


def test_the_old_one_stays_until_the_new_one_is_complete(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = prepare(folder(source), out, 1)
    with (source / "labels.csv").open("a") as file:
        file.write("extra.png,p,train,1,1\n")
    for film in source.glob("*.png"):
        os.utime(film, (0, 0))  # else they would not be read again
    interrupt(source, out, monkeypatch)
    assert Prepared.open(out).hash == first.hash


def test_a_damaged_one_is_made_again(source: Path, tmp_path: Path) -> None:
    first = prepare(folder(source), tmp_path / "out", 1)
    (first.path / "table.csv").write_text("id\n")
    with pytest.raises(InputError):
        Prepared.open(first.path)
    assert prepare(folder(source), tmp_path / "out", 1).hash == first.hash


def test_strict_does_not_take_a_finished_set_with_rejected_images(source: Path, tmp_path: Path) -> None:
    prepare(folder(source), tmp_path / "out", 1)
    with pytest.raises(InputError, match=r"3\.png .*rejected\.csv; --strict takes .*such films") as caught:
        prepare(folder(source), tmp_path / "out", 1, strict=True)
    assert caught.value.reason == "not-an-image"


def test_films_whose_files_are_as_they_were_are_not_read_again(source: Path, tmp_path: Path) -> None:
    def read_of(again: Dataset, name: str) -> int:
        """Return how many images another data set reads; it has the bytes of one that reads all."""
        counts: list[int] = []
        prepared = prepare(again, tmp_path / "out", 1, lambda done, total: counts.append(done))
        assert contents(prepared.path) == contents(prepare(again, tmp_path / name, 1).path)
        return COUNT - counts[0]

    first = prepare(folder(source), tmp_path / "out", 1)
    assert len(first) == COUNT - 2
    assert read_of(folder(source, labels=["Edema"]), "other labels") == 2, "those that were rejected"
    (source / "3.png").write_bytes((source / "0.png").read_bytes())
    (source / "4.png").write_bytes((source / "1.png").read_bytes())
    assert read_of(folder(source, labels=["Edema"]), "other films") == 3, "one mended, one missing, one changed"
    images = tmp_path / "out" / "images.npy"
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    assert read_of(folder(source), "after damage") == COUNT
    lines = (tmp_path / "out" / "decoded.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "decoded.jsonl").write_text("".join(lines[1:]))
    assert read_of(folder(source, labels=["Edema"]), "after other damage") == COUNT


def test_what_no_line_names_may_have_any_name_and_wait_for_a_writer(source: Path, tmp_path: Path) -> None:
    def beside(*names: bytes) -> Dataset:
        return dataclasses.replace(folder(source), unlisted=tuple(source / os.fsdecode(name) for name in names))

    prepared = prepare(beside(b"caf\xe9.png"), tmp_path / "out", 1)
    assert "caf\\xe9.png" in (prepared.path / "unlisted.csv").read_text()
    with sole_writer(tmp_path / "out"):
        assert prepare(beside(b"caf\xe9.png", b"b.png"), tmp_path / "out", 1).info["unlisted"] == 1
    assert prepare(beside(b"caf\xe9.png", b"b.png"), tmp_path / "out", 1).info["unlisted"] == 2


def test_warnings_are_of_the_images_that_are_left(source: Path, tmp_path: Path) -> None:
    lines = (source / "labels.csv").read_text().splitlines()
    positive = [f"{line},{int(index == 3)}" for index, line in enumerate(lines[1:])]  # the only film is no film
    (source / "labels.csv").write_text("\n".join([f"{lines[0]},Hernia", *positive]))
    warnings = prepare(folder(source), tmp_path / "out", 1).info["left"]
    assert [text for text in warnings if "cannot be learnt" in text and "Hernia (0 positive, " in text]
    assert not [text for text in warnings if "are missing" in text or "none can be used" in text]
    for index in range(2, COUNT, 3):  # those of test
        (source / f"{index}.png").unlink(missing_ok=True)
    warnings = prepare(folder(source), tmp_path / "out", 1).info["left"]
    assert [text for text in warnings if text.startswith("10 of 30 images are missing: ")]
    assert "of the images of test none can be used" in warnings


def test_images_with_equal_pixels_are_listed(source: Path, tmp_path: Path) -> None:
    for name in ("10.png", "12.png"):  # of val and train, as image 9 is of train
        (source / name).write_bytes((source / "9.png").read_bytes())
    prepared = prepare(folder(source), tmp_path / "out", 1)
    assert (prepared.path / "duplicates.csv").read_text().splitlines() == [
        "id,same_as,split,split_of_same,contradicts",
        "10.png,9.png,val,train,Edema", "12.png,9.png,train,train,Edema",
    ]  # fmt: skip
    assert prepared.info["duplicates"] == {"images": 2, "across_splits": 3}
    assert re.search(r"repeat the pixels .*: 2 \(see", prepared.describe())
    assert "; 3 are in several splits: " in prepared.describe()
    without = prepare(folder(source, labels=["Edema"]), tmp_path / "other", 1)
    assert without.info["duplicates"]["images"] == 2


def test_nothing_usable_is_an_error(source: Path, tmp_path: Path) -> None:
    for path in source.glob("*.png"):
        path.write_text("not a film")
    with pytest.raises(InputError, match=r"no image of films can be used \(not-an-image: 29, not-found: 1\)") as caught:
        prepare(folder(source), tmp_path / "out", 1)
    assert caught.value.reason == "dataset"
    assert not (tmp_path / "out").exists()


def test_folders_of_other_people_are_not_replaced(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="edgecxr has not made"):
        prepare(folder(source), source, 1)


def test_boxes_that_the_next_preparation_lacks_are_announced(source: Path, tmp_path: Path) -> None:
    name = next(source.glob("*.png")).name
    label = folder(source).labels[0]
    (tmp_path / "boxes.csv").write_text(f"image,label,x_min,y_min,x_max,y_max\n{name},{label},1,2,4,6\n")
    with_boxes = folder(source, boxes=tmp_path / "boxes.csv")
    prepared = prepare(with_boxes, tmp_path / "out", 1)
    assert len(prepared.boxes) == 1 and replaces(prepared, with_boxes) == ""
    assert "--boxes" in replaces(prepared, folder(source))


@pytest.fixture(scope="module")
def with_more_columns(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    """A folder of films whose table has columns for each option, and what was prepared of it. Not to be changed."""
    place = tmp_path_factory.mktemp("columns")
    source = folder_of_noise(place / "source")
    header, *lines = (source / "labels.csv").read_text().splitlines()
    wider = [f"{line},{line.split(',')[0]},{line.split(',')[2]}" for line in lines]
    (source / "labels.csv").write_text("\n".join([f"{header},copy,fold", *wider]))
    (source / "elsewhere").mkdir()
    (source / "elsewhere" / "0.png").write_bytes((source / "0.png").read_bytes())
    return source, prepare(folder(source), place / "out", 1)


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"patient_column": "copy"}, "patient column: not given, now copy"),
        ({"ignore": ["Nodule"]}, "ignore: not given, now Nodule"),
        ({"labels": ["Edema"]}, "findings: Edema, Nodule, now Edema"),
        ({"uncertain": "ones"}, "uncertain: not given, now ones"),
        ({"image_column": "copy"}, "image column: not given, now copy"),
        ({"abnormal_column": "Edema"}, "abnormal: any finding, now Edema"),
        ({"split_column": "fold"}, "split: split, now fold"),
        ({"images": "elsewhere"}, "images: not given, now "),
        ({"seed": 3}, "seed: 0, now 3"),
    ],
)
def test_each_option_that_replaces_a_set_is_announced(
    with_more_columns: tuple[Path, Prepared], options: dict[str, Any], warning: str
) -> None:
    source, prepared = with_more_columns
    same = folder(source, images=source, patient_column="patient")
    assert replaces(prepared, same) == "" and fingerprint(same) == prepared.info["inputs"]
    changes = options | ({"images": source / "elsewhere"} if "images" in options else {})
    other = folder(source, **changes)
    assert warning in replaces(prepared, other) and fingerprint(other) != prepared.info["inputs"]


def test_findings_made_of_other_labels_are_announced(source: Path, tmp_path: Path) -> None:
    plain = folder(source)
    first, second = (
        dataclasses.replace(
            plain, provenance=plain.provenance | {"labels_from": {"Edema": parts, "Nodule": ["Nodule"]}}
        )
        for parts in (["Edema"], ["Edema", "Congestion"])
    )
    prepared = prepare(first, tmp_path / "out", 1)
    assert replaces(prepared, first) == "" and "made of: Edema)" in replaces(prepared, second)


def test_two_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    def second(done: int, total: int) -> None:
        if done == 1:
            prepare(folder(source), tmp_path / "out", 1)

    message = rf"process {os.getpid()} on .* is writing {tmp_path}/out: wait for it, or end it"
    with pytest.raises(UsageError, match=message):
        prepare(folder(source), tmp_path / "out", 1, second)


def test_open_says_what_is_wrong_and_what_to_do(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no prepared data .*edgecxr prepare"):
        Prepared.open(tmp_path)
    path = prepare(folder(source), tmp_path / "out", 1).path
    whole = contents(path)
    info = json.loads(whole["dataset.json"])
    lines = whole["table.csv"].splitlines(keepends=True)
    for name, damaged, message in (
        ("dataset.json", whole["dataset.json"][:100], "is damaged"),
        ("dataset.json", json.dumps(info | {"format": 99}).encode(), "by a newer edgecxr"),
        ("dataset.json", json.dumps(info | {"format": True}).encode(), "is damaged"),
        ("dataset.json", json.dumps(info | {"labels": ["Edema"]}).encode(), "other columns"),
        ("table.csv", b"".join(lines[:-1]), "for 27 lines"),
        ("images.npy", whole["images.npy"][:-1], "is damaged"),
        ("images.npy", b"", "is damaged"),
    ):
        (path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=message) as caught:
            Prepared.open(path)
        assert caught.value.reason == "dataset"
        assert "edgecxr prepare" in str(caught.value)
        (path / name).write_bytes(whole[name])
    Prepared.open(path).check()
    (path / "images.npy").write_bytes(whole["images.npy"][:-1] + bytes([whole["images.npy"][-1] ^ 1]))
    with pytest.raises(InputError, match="have changed since"):
        Prepared.open(path).check()


FACTS = ("dataset.json", "decoded.jsonl")
"""What says of films at 448 px that they were smaller."""


def test_films_at_448_px_lie_beside_what_is_prepared_without_them(source: Path, tmp_path: Path) -> None:
    Image.effect_noise((700, 500), 50).save(source / "0.png")
    plain = prepare(marked(source), tmp_path / "plain", 1)
    both = prepare(marked(source), tmp_path / "both", 1, size=448)
    assert both.large is not None and plain.large is None
    kept = [i for i in range(COUNT) if i not in (3, 5)]
    for row in (0, 6, 27):
        film = read_radiograph(source / f"{kept[row]}.png").pixels
        np.testing.assert_array_equal(both.large[row], to_base(film, 448))
    ours, theirs = contents(both.path), contents(plain.path)
    assert ours.keys() - theirs.keys() == {"images-448.npy"}
    assert [name for name in theirs if name not in FACTS and ours[name] != theirs[name]] == []
    differ = ("large_hash", "warnings", "warned", "decoded_hash")
    first, two = ({k: v for k, v in prepared.info.items() if k not in differ} for prepared in (both, plain))
    assert first == two and both.summary() == plain.summary()
    # Every film but the first is smaller, and each is counted once.
    assert list(both.info["warnings"].values()) == [27]
    assert re.search(r"240 x 240 pixels; .*enlarged to 448 x 448", next(iter(both.info["warnings"])))
    assert "also at 448 px" in both.describe() and "also" not in plain.describe()
    np.testing.assert_array_equal(both.inputs(np.array([2]), 448)[0, 0], both.large[2] / np.float32(255))
    np.testing.assert_array_equal(both.inputs(np.array([2]), 224), plain.inputs(np.array([2]), 224))


def test_what_has_448_px_serves_224_px_and_what_has_not_is_made_again(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    calls: list[int] = []

    def again(size: int) -> Prepared:
        return prepare(folder(source), out, 1, lambda done, total: calls.append(done), size)

    plain = again(224)
    with pytest.raises(
        InputError, match=rf"no 448 px images .*edgecxr prepare folder {source}\S* --name \S+ --size 448"
    ):
        plain.images_for(448)
    calls.clear()
    both = again(448)
    assert len(calls) == COUNT + 1 and both.large is not None and both.hash == plain.hash
    calls.clear()
    assert again(448).large is not None and again(224).large is not None and calls == []
    (out / "images-448.npy").unlink()
    assert again(224).large is None and calls == []
    assert again(448).large is not None and len(calls) == COUNT + 1
    with pytest.raises(UsageError, match="--size 300: there are 224, 448"):
        again(300)


def test_damaged_films_at_448_px_are_noticed(source: Path, tmp_path: Path) -> None:
    file = prepare(folder(source), tmp_path / "out", 1, size=448).path / "images-448.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(InputError, match="is damaged"):
        Prepared.open(file.parent)
    file.write_bytes(whole)
    Prepared.open(file.parent).check()
    for damage in (lambda: file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])), file.unlink):
        damage()
        with pytest.raises(InputError, match="have changed since"):
            Prepared.open(file.parent).check()


def test_changed_boxes_are_noticed(source: Path, tmp_path: Path) -> None:
    file = prepare(marked(source), tmp_path / "out", 1).path / "boxes.csv"
    Prepared.open(file.parent).check()
    file.write_text(file.read_text().replace("112.00", "113.00", 1))
    with pytest.raises(InputError, match=r"files of .*boxes\.csv\) have changed since"):
        Prepared.open(file.parent).check()


def test_boxes_are_those_of_the_images_that_were_kept_in_pixels_of_the_224_px_image(
    source: Path, tmp_path: Path
) -> None:
    prepared = prepare(marked(source), tmp_path / "out", 1)
    # 3.png and 5.png were rejected; one box of 9.png lies beside it, and one has no area.
    assert (prepared.path / "boxes.csv").read_text().splitlines() == [
        "id,label,x_min,y_min,x_max,y_max",
        "7.png,Nodule,112.00,0.00,224.00,56.00",
        "8.png,Nodule,11.20,22.40,45.03,56.00",
        "8.png,Nodule,22.40,22.40,45.03,56.00",
        "9.png,Edema,0.00,186.67,56.00,224.00",
        "9.png,Nodule,112.00,56.00,224.00,112.00",
    ]
    boxes = prepared.boxes
    assert len(boxes) == prepared.info["boxes"] == 5
    assert prepared.ids[boxes.image].tolist() == ["7.png", "8.png", "8.png", "9.png", "9.png"]
    assert boxes.label.tolist() == [1, 1, 1, 0, 1]
    assert (boxes.image.dtype, boxes.label.dtype, boxes.corners.dtype) == (np.intp, np.intp, np.float32)
    np.testing.assert_array_equal(boxes.corners[1], np.array([11.2, 22.4, 45.03, 56], np.float32))
    assert "  boxes: 5 around findings\n" in prepared.describe()


def test_a_box_lies_where_the_resize_puts_what_it_surrounds(source: Path, tmp_path: Path) -> None:
    film = np.full((300, 480), 40, np.uint8)
    film[60:150, 96:240] = 200
    Image.fromarray(film).save(source / "0.png")
    (source / "boxes.csv").write_text("image,label,x,y,w,h\n0.png,Nodule,96,60,144,90\n")
    prepared = prepare(marked(source), tmp_path / "out", 1)
    y, x = np.nonzero(prepared.images[0] > 120)
    corners = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    np.testing.assert_allclose(prepared.boxes.corners, [corners], atol=0.51)


def test_without_boxes_nothing_is_written_and_the_table_has_the_same_hash(source: Path, tmp_path: Path) -> None:
    plain = prepare(folder(source), tmp_path / "plain", 1)
    assert not (plain.path / "boxes.csv").exists()
    assert (len(plain.boxes), plain.boxes.corners.shape, plain.info["boxes"]) == (0, (0, 4), 0)
    assert "boxes: " not in plain.describe()
    assert prepare(marked(source), tmp_path / "marked", 1).hash == plain.hash
    (source / "boxes.csv").write_text("image,label,x,y,w,h\n9.png,Edema,300,0,9,9\n")
    assert not (prepare(marked(source), tmp_path / "beside", 1).path / "boxes.csv").exists()
    # So did data sets of before there were boxes.
    info = {key: value for key, value in plain.info.items() if key != "boxes"}
    (plain.path / "dataset.json").write_text(json.dumps(info))
    assert len(Prepared.open(plain.path).boxes) == 0


def test_the_fingerprint_tells_boxes_apart_and_does_not_change() -> None:
    dataset: Any = SimpleNamespace(
        name="pinned",
        labels=("Edema", "Nodule"),
        provenance={"kind": "folder", "warnings": []},
        ids=np.array(["a", "b"]),
        patients=np.array(["p", "q"]),
        splits=np.array(["train", "test"]),
        targets=np.array([[1, 0], [0.5, np.nan]], np.float32),
        abnormal=np.array([1, np.nan], np.float32),
        files=(Path("/gone/a"), Path("/gone/b")),
        boxes=(),
    )
    # As of format 4: what is prepared now need not be decoded again as long as films give the same pixels.
    assert fingerprint(dataset) == "53cdf3ef4144371e357a523f0e0247b4c32f87404f574faeca845fac5acd9414"
    fingerprints = {fingerprint(dataset)}
    for box in (Box(0, "Edema", 1, 2, 3, 4), Box(0, "Edema", 1, 2, 3, 4.5), Box(1, "Edema", 1, 2, 3, 4)):
        dataset.boxes = (box,)
        fingerprints.add(fingerprint(dataset))
    assert len(fingerprints) == 4


def test_other_boxes_are_prepared_anew(source: Path, tmp_path: Path) -> None:
    prepare(marked(source), tmp_path / "out", 1)
    (source / "boxes.csv").write_text(BOXES.replace("120,60,240,120", "120,60,180,120"))
    assert prepare(marked(source), tmp_path / "out", 1).boxes.corners[4].tolist() == [112, 56, 168, 112]
    assert len(prepare(folder(source), tmp_path / "out", 1).boxes) == 0


@pytest.fixture(scope="module")
def prepared_with_boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("with-boxes")
    return prepare(marked(folder_of_noise(place / "source")), place / "out", 1).path


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        ("id,label,x_min,y_min,x_max\n7.png,Nodule,1,1,2\n", "has other columns than id, label, x_min"),
        ("{head}99.png,Nodule,1,1,2,2\n", "names '99.png', which is no image or label"),
        ("{head}7.png,Mass,1,1,2,2\n", "names 'Mass', which is no image or label"),
        ("{head}7.png,Nodule,1,1,2,225\n", "holds a box that is not inside the image"),
        ("{head}7.png,Nodule,1,1,1,2\n", "holds a box that is not inside the image"),
        ("{head}7.png,Nodule,,,,\n", "holds a box that is not inside the image"),
        ("{head}7.png,Nodule,1,1,2,2\n", "holds 1 boxes, but dataset.json counts 5"),
        (None, "holds 0 boxes, but dataset.json counts 5"),
        ("{head}7.png,Nodule,1,one,2,2\n", r"line 2 of .*boxes\.csv: column 'y_min' holds 'one'"),
        ("{head}7.png,Nodule,1,1,", r"line 2 of .*boxes\.csv has 5 cells where the header has 6"),
        ("", r"boxes\.csv has no rows"),
    ],
)
def test_damaged_boxes_are_an_error(
    prepared_with_boxes: Path, tmp_path: Path, damaged: str | None, message: str
) -> None:
    path = tmp_path / "out"
    shutil.copytree(prepared_with_boxes, path)
    (path / "boxes.csv").unlink()
    if damaged is not None:
        (path / "boxes.csv").write_text(damaged.replace("{head}", "id,label,x_min,y_min,x_max,y_max\n"))
    with pytest.raises(InputError, match=message) as caught:
        Prepared.open(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_without_its_boxes_a_set_is_made_again(source: Path, tmp_path: Path) -> None:
    prepare(marked(source), tmp_path / "out", 1)
    (tmp_path / "out" / "boxes.csv").unlink()
    assert len(prepare(marked(source), tmp_path / "out", 1).boxes) == 5


def test_the_contact_sheet_shows_the_images(source: Path, tmp_path: Path) -> None:
    prepared = prepare(folder(source), tmp_path / "out", 1)
    assert (prepared.path / "contact_sheet.png").stat().st_size > 10_000
    contact_sheet(prepared, tmp_path / "sheet.png", n=7)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    first = prepared.images[np.argsort(prepared.abnormal, kind="stable")[0]]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (224, 224))
    assert (windows[:40, :20] == first).all(axis=(2, 3)).sum() == 1


def test_boxes_of_a_film_that_was_turned_are_left_out_and_counted(source: Path, tmp_path: Path) -> None:
    whole = prepare(folder(source, boxes=source / "boxes.csv"), tmp_path / "whole", 1)
    dataset = folder(source, boxes=source / "boxes.csv")
    index = dataset.boxes[0].index
    turned = dataclasses.replace(dataset.reader(index)(), warnings=("the film is mirrored; it was turned",))
    readers = {index: partial(_same, turned)}
    some = dataclasses.replace(dataset, readers=lambda at: readers.get(at) or dataset.reader(at))
    prepared = prepare(some, tmp_path / "turned", 1)
    lost = sum(box.index == index for box in dataset.boxes)
    row = prepared.ids.tolist().index(dataset.ids[index])
    assert set(prepared.boxes.image.tolist()) == set(whole.boxes.image.tolist()) - {row} != set()
    assert row in whole.boxes.image
    assert any(f"boxes left out: {lost};" in warning for warning in prepared.info["left"])


def _same(radiograph: Radiograph) -> Radiograph:
    return radiograph

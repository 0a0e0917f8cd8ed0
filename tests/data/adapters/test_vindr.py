import csv
import re
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from edgecxr.data.adapters.vindr import vindr
from edgecxr.data.tables.labels import SETS
from edgecxr.data.tables.splits import class_warnings
from edgecxr.errors import InputError, UsageError

LABELS = ["Edema", "Other diseases"]
Reads = dict[str, list[str]]


def make(folder: Path, train: Reads, test: Reads, files: bool = True) -> Path:
    """Write the layout; a read is "Edema Other No-finding", such as "101"; "-" is an empty cell."""
    annotations = folder / "annotations"
    annotations.mkdir(parents=True)
    for split, reads, other in (("train", train, "Other diseases"), ("test", test, "Other disease")):
        (folder / split).mkdir()
        head = ["image_id", *(["rad_id"] if split == "train" else []), "Edema", other, "No finding"]
        rows = []
        for image, of_image in reads.items():
            if files:
                (folder / split / f"{image}.dicom").touch()
            for reader, read in enumerate(of_image):
                rows.append([image, *([f"R{reader}"] if split == "train" else []), *read.replace("-", " ")])
        with (annotations / f"image_labels_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])
    return folder


TRAIN = {"a": ["110", "100", "001"], "b": ["100", "001", "001"], "c": ["001", "001", "001"], "d": ["-10", "-10", "--0"]}
TEST = {"t": ["010"], "u": ["001"]}


@pytest.mark.parametrize(
    ("merge", "targets", "abnormal"),
    [
        ("majority", [[1, 0], [0, 0], [0, 0], [np.nan, 1]], [1, 0, 0, 1]),
        ("union", [[1, 1], [1, 0], [0, 0], [np.nan, 1]], [1, 1, 0, 1]),
        ("mean", [[2 / 3, 1 / 3], [1 / 3, 0], [0, 0], [np.nan, 1]], [2 / 3, 1 / 3, 0, 1]),
    ],
)
def test_readers_are_merged(tmp_path: Path, merge: str, targets: list, abnormal: list) -> None:
    dataset = vindr(make(tmp_path, TRAIN, TEST), LABELS, merge, val_fraction=0)
    assert dataset.ids.tolist() == ["a", "b", "c", "d", "t", "u"]
    assert dataset.labels == ("Edema", "Other diseases")
    np.testing.assert_allclose(dataset.targets[:4], targets, rtol=1e-6)
    np.testing.assert_allclose(dataset.abnormal[:4], abnormal, rtol=1e-6)
    assert dataset.provenance["merge"] == merge


def test_the_consensus_of_the_test_set_is_taken_as_it_is_under_either_spelling(tmp_path: Path) -> None:
    dataset = vindr(make(tmp_path, TRAIN, TEST), ["Edema", "Other disease"])
    assert dataset.splits[4:].tolist() == ["test", "test"]
    assert dataset.targets[4:].tolist() == [[0, 1], [0, 0]]
    assert dataset.abnormal[4:].tolist() == [1, 0]


def test_half_of_the_readers_is_no_majority(tmp_path: Path) -> None:
    dataset = vindr(make(tmp_path, {**TRAIN, "e": ["100", "001"]}, TEST), LABELS, val_fraction=0)
    assert dataset.targets[4].tolist() == [0, 0]
    assert dataset.abnormal[4] == 1  # nor is it one for "No finding"


def reads(count: int) -> Reads:
    return {f"i{i:03}": ["100"] * 3 if i % 4 == 0 else ["001"] * 3 for i in range(count)}


def test_validation_is_stratified_seeded_and_cut_from_training_images(tmp_path: Path) -> None:
    folder = make(tmp_path, reads(200), TEST)
    dataset = vindr(folder, LABELS)
    val = dataset.splits == "val"
    assert (val.sum(), dataset.abnormal[val].sum()) == (20, 5)
    assert (dataset.splits == "test").sum() == 2
    assert (vindr(folder, LABELS).splits == dataset.splits).all()
    assert (vindr(folder, LABELS, seed=1).splits != dataset.splits).any()


def test_a_table_of_patients_keeps_them_together(tmp_path: Path) -> None:
    folder = make(tmp_path, reads(40), TEST)
    lines = [f"i{i:03},p{i // 4}\n" for i in range(39)]
    (folder / "annotations" / "patients.csv").write_text("image_id,patient\n" + "".join(lines) + "t,p0\n")
    dataset = vindr(folder, LABELS, val_fraction=0.3)
    of_patient = dataset.splits[:36].reshape(9, 4)
    assert (of_patient == of_patient[:, :1]).all()
    assert set(of_patient[:, 0]) == {"train", "val"}
    assert dataset.patients[39] == "i039"
    assert re.search(r"patients in more .*split: 1;", dataset.provenance["warnings"][-1])


def test_a_finding_that_is_never_positive_is_warned_of(tmp_path: Path) -> None:
    dataset = vindr(make(tmp_path, reads(20), TEST), LABELS)
    (warning,) = class_warnings(dataset.labels, dataset.targets, dataset.abnormal, dataset.splits)
    assert "Other diseases (0 positive, 17 negative)" in warning


def test_the_label_sets_are_those_of_the_data_set() -> None:
    assert [len(SETS[name]) for name in ("vindr14", "vindr22", "all")] == [14, 22, 27]
    assert set(SETS["vindr14"]) < set(SETS["vindr22"]) < set(SETS["all"])


def test_columns_that_are_not_there_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path, TRAIN, TEST)
    with pytest.raises(
        InputError, match=r"no column 'Aortic enlargement', .*it has: image_id, rad_id, Edema"
    ) as caught:
        vindr(folder)
    assert caught.value.reason == "dataset"
    with pytest.raises(UsageError, match="unknown label set 'vindr15'"):
        vindr(folder, "vindr15")
    with pytest.raises(UsageError, match="'No finding' is none"):
        vindr(folder, ["Edema", "No finding"])
    with pytest.raises(UsageError, match="unknown merge 'any'"):
        vindr(folder, LABELS, "any")


def test_a_folder_of_another_layout_is_told_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    with pytest.raises(InputError, match=r"image_labels_train\.csv does not exist") as caught:
        vindr(tmp_path)
    assert caught.value.reason == "dataset"
    folder = make(tmp_path / "x", TRAIN, TEST, files=False)
    with pytest.raises(InputError, match=r"none of .* 6 listed images .*train/a\.dicom"):
        vindr(folder, LABELS)
    (folder / "test").rmdir()
    with pytest.raises(InputError, match=r"test with its \.dicom .*not there"):
        vindr(folder, LABELS)


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    folder = make(tmp_path / "readers", TRAIN, TEST)
    with (folder / "annotations" / "image_labels_train.csv").open("a") as file:
        file.write("b,R1,0,0,1\n")
    with pytest.raises(InputError, match=r"line 14 .*'b', rad_id 'R1' again, after line 6"):
        vindr(folder, LABELS)
    with pytest.raises(InputError, match=r"in the train and .*test table \(a\)"):
        vindr(make(tmp_path / "both", TRAIN, {"a": ["100"]}), LABELS)


def test_films_are_read_and_a_missing_one_is_rejected_alone(tmp_path: Path) -> None:
    folder = make(tmp_path, TRAIN, TEST)
    (folder / "train" / "a.dicom").unlink()
    write_film(folder / "train" / "a.DCM")
    (folder / "train" / "b.dicom").unlink()
    dataset = vindr(folder, LABELS)
    film = dataset.reader(0)()
    assert film.pixels.shape == (16, 16)
    assert film.pixels.max() <= 1
    with pytest.raises(InputError) as caught:
        dataset.reader(1)()
    assert caught.value.reason == "not-found"


def write_film(path: Path) -> None:
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    film.SOPInstanceUID = generate_uid()
    film.Modality = "DX"
    film.PresentationIntentType = "FOR PRESENTATION"
    film.BodyPartExamined = "CHEST"
    film.Rows = film.Columns = 16
    film.SamplesPerPixel = 1
    film.PhotometricInterpretation = "MONOCHROME2"
    film.PixelRepresentation = 0
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelData = np.arange(256, dtype="<u2").tobytes()
    film.save_as(path, enforce_file_format=True)


def mark(folder: Path, split: str, *rows: str) -> None:
    head = "image_id,rad_id,class_name,x_min,y_min,x_max,y_max" if split == "train" else HEAD
    (folder / "annotations" / f"annotations_{split}.csv").write_text("\n".join([head, *rows]) + "\n")


HEAD = "image_id,class_name,x_min,y_min,x_max,y_max"
MARKS = (
    "b,R0,Edema,1,1,5,5",  # one reader of three
    "a,R0,Edema,1,2,3,4",
    "a,R0,Other disease,5,6,7,8",  # one reader of three
    "a,R1,Edema,1.5,2,3,4.25",
    "a,R2,No finding,,,,",
    "d,R0,Other diseases,0,0,9,9",
    "d,R0,Edema,0,0,9,9",  # nobody says whether there is any
    "a,R0,Aortic enlargement,1,1,2,2",  # not among the labels
    "z,R0,Edema,1,1,2,2",  # not among the images
)


@pytest.mark.parametrize(
    ("merge", "of_train"),
    [
        ("majority", ["a Edema 1 2 3 4", "a Edema 1.5 2 3 4.25", "d Other diseases 0 0 9 9"]),
        (
            "union",
            [
                *("b Edema 1 1 5 5", "a Edema 1 2 3 4", "a Other diseases 5 6 7 8", "a Edema 1.5 2 3 4.25"),
                "d Other diseases 0 0 9 9",
            ],
        ),
        ("mean", ["a Edema 1 2 3 4", "a Edema 1.5 2 3 4.25", "d Other diseases 0 0 9 9"]),
    ],
)
def test_boxes_are_kept_where_the_readers_together_say_that_the_finding_is_there(
    tmp_path: Path, merge: str, of_train: list[str]
) -> None:
    folder = make(tmp_path, TRAIN, TEST)
    mark(folder, "train", *MARKS)
    mark(folder, "test", "t,Other disease,1,1,8,8", "t,Edema,1,1,8,8", "u,No finding,,,,")
    dataset = vindr(folder, LABELS, merge)
    boxes = [f"{dataset.ids[box.index]} {box.label} " + " ".join(f"{x:g}" for x in box[2:]) for box in dataset.boxes]
    assert boxes == [*of_train, "t Other diseases 1 1 8 8"]


def test_tables_of_boxes_may_be_missing(tmp_path: Path) -> None:
    folder = make(tmp_path, TRAIN, TEST)
    assert vindr(folder, LABELS).boxes == ()
    mark(folder, "test", "t,Other disease,1,1,8,8")
    assert vindr(folder, LABELS).boxes == ((4, "Other diseases", 1, 1, 8, 8),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("t,Edema,1,1,8,", r"line 3 of .*annotations_test\.csv is no box \(.*y_max empty\): give four numbers"),
        ("t,Edema,1,1,8,x", r"line 3 of .*annotations_test\.csv: column 'y_max' holds 'x', which is no number"),
        ("t,Edema,1,9,8,8", r"line 3 of .* is no box \(x_min 1, y_min 9, x_max 8, y_max 8\)"),
    ],
)
def test_a_wrong_box_is_refused_with_its_place(tmp_path: Path, row: str, message: str) -> None:
    folder = make(tmp_path, TRAIN, TEST)
    mark(folder, "test", "u,No finding,,,,", row)
    with pytest.raises(InputError, match=message) as caught:
        vindr(folder, LABELS)
    assert caught.value.reason == "dataset"
    (folder / "annotations" / "annotations_test.csv").write_text("image_id,class,x_min,y_min,x_max,y_max\nt,,,,,\n")
    with pytest.raises(InputError, match="no column 'class_name'"):
        vindr(folder, LABELS)


def test_boxes_of_unknown_images_and_findings_are_counted_and_case_does_not_count(tmp_path: Path) -> None:
    folder = make(tmp_path, TRAIN, TEST)
    boxes = ("t,OTHER DISEASES", "T.dicom,Edema", "zz,Edema", "t,Rash", "t,edema")
    mark(folder, "test", *(f"{box},1,1,8,8" for box in boxes))
    dataset = vindr(folder, LABELS)
    assert [box.label for box in dataset.boxes] == ["Other diseases"]
    left_out = [text for text in dataset.provenance["warnings"] if text.startswith("boxes left out: 1; ")]
    assert ["(zz)" in left_out[0], "(Rash)" in left_out[1]] == [True, True] and dataset.unused_boxes == 2

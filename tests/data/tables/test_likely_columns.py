"""A table whose columns are called otherwise than by default says which option names them."""

from __future__ import annotations

import random
import shlex
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.data.tables.likely_columns import Division, division, patients_hint, require_images
from edgecxr.data.tables.splits import path_warnings
from edgecxr.data.tables.table import Table, read_table
from edgecxr.errors import InputError
from tests.data.tables.test_findings import opened


def table(**columns: list[str]) -> Table:
    named = {name.replace("_of_", " "): cells for name, cells in columns.items()}
    return Table(Path("labels.csv"), named, list(range(2, 2 + len(next(iter(columns.values()))))))


@pytest.mark.parametrize(
    "name", ["patient_id", "PatientID", "patient id", "Patient ID", "subject_id", "patientId", "MRN", "pid", "Subject"]
)
def test_a_column_that_looks_like_patients_is_suggested(name: str) -> None:
    quoted = f"'{name}'" if " " in name else name
    assert patients_hint(Table(Path("a.csv"), {"image": ["1.png"], name: ["7"]}, [2])).endswith(
        f"--patient-column {quoted}"
    )


@pytest.mark.parametrize("name", ["age", "patient age", "outpatient", "study_id", "Pneumonia"])
def test_other_columns_are_not(name: str) -> None:
    assert patients_hint(Table(Path("a.csv"), {"image": ["1.png"], name: ["7"]}, [2])).endswith("NAME")


@pytest.mark.parametrize(
    ("columns", "suggested"),
    [
        ({"age": ["60", "61"], "filename": ["a.png", "b.PNG"]}, "filename"),
        ({"age": ["60", "61"], "where": ["x/a.dcm", "x/b.dcm"]}, "where"),
        ({"age": ["60", "61"], "dicom": ["IM0001", "IM0002"]}, "dicom"),
        ({"age": ["60", "61"], "Image_of_Path": ["IM0001", "IM0002"]}, "'Image Path'"),
        ({"file": ["study", "study"], "age": ["60", "61"]}, "NAME"),
        ({"age": ["60.5", "61.5"], "Mass": ["1", "0"]}, "NAME"),
    ],
)
def test_a_column_that_looks_like_images_is_suggested(columns: dict[str, list[str]], suggested: str) -> None:
    with pytest.raises(InputError, match="has no column 'image'") as refusal:
        require_images(table(**columns), "image")
    assert f"--image-column {suggested} " in str(refusal.value) and "did you mean" not in str(refusal.value)
    assert refusal.value.reason == "dataset"


WORDS = {
    "train": ["train", "Training", "TRAIN"],
    "val": ["val", "VALID", "dev", "tune"],
    "test": ["test", "Testing", "holdout"],
}


@given(
    name=st.sampled_from(["partition", "subset", "Dataset", "fold", "phase", "set", "usage", "train_test", "group x"]),
    splits=st.lists(st.sampled_from(sorted(WORDS)), min_size=2, max_size=9).filter(lambda splits: len(set(splits)) > 1),
    draw=st.randoms(use_true_random=False),
)
def test_a_column_of_words_for_splits_is_taken_whatever_it_is_called(
    name: str, splits: list[str], draw: random.Random
) -> None:
    columns = {"image": [f"{row}.png" for row in range(len(splits))], name: [draw.choice(WORDS[s]) for s in splits]}
    mine = Table(Path("a.csv"), columns, list(range(2, 2 + len(splits))))
    divided = division(mine, "split", {"image"})
    assert divided.column == name and f"--ignore {shlex.quote(name)}" in divided.warnings[0]
    assert division(mine, "split", {"image", name}).column is None
    other = Table(mine.path, columns | {"split": ["train"] * len(splits)}, mine.lines)
    assert division(other, "split", {"image"}) == Division("split", (name,))
    with pytest.raises(InputError, match="--split-column"):
        division(Table(mine.path, columns | {"stage": ["test", *["train"] * 9][: len(splits)], "part": [
            "val", *["train"] * 9][: len(splits)]}, mine.lines), "split", {"image", name})  # fmt: skip


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(["partition", "Subset", "dataset", "cohort", "official_split", "fold", "set", "phase"]),
    odd=st.sampled_from(["eval", "external", "3", "", "unknown", "Test (held out)", "development"]),
    row=st.integers(0, 23),
)
def test_a_word_that_is_no_split_among_others_is_an_error_with_line(name: str, odd: str, row: int) -> None:
    cells = ["train", "TRAINING", "val ", "test"] * 6
    cells[row] = odd
    with pytest.raises(InputError, match=rf"line {row + 2} of .*{name!r} holds .*--ignore {name}"):
        opened({"Edema": ["0", "1"] * 12, name: cells})
    assert opened({"Edema": ["0", "1"] * 12, name: cells}, ignore=[name]).provenance["split"].startswith("random")


@pytest.mark.parametrize("stated", [False, True])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_folders_of_splits_that_a_table_does_not_follow_are_told(stated: bool, slash: str) -> None:
    paths = [slash.join(("films", word, f"{n}.png")) for n in range(8) for word in ("Train", "testing")]
    as_placed = np.array(["train", "test"] * 8)
    assert path_warnings(paths, as_placed, stated) == []
    assert path_warnings(paths, np.where(np.arange(16) == 0, "val", as_placed), stated) == []  # cut from train
    other = as_placed.copy()
    other[[2, 3]] = "val", "train"
    (said,) = path_warnings(paths, other, stated)
    assert ": 1 (" in said and paths[3] in said
    assert path_warnings([f"films{slash}{n}.png" for n in range(16)], other, stated) == []


@pytest.mark.parametrize(
    ("name", "cells"),
    [("Quality", ["valid", "valid"]), ("Edema", ["0", "1"]), ("view", ["PA", "AP"]), ("stress", ["test", "rest"]),
     ("skin fold", ["0", "1"]), ("batch", ["1", "2"])],
)  # fmt: skip
def test_other_columns_divide_nothing(name: str, cells: list[str]) -> None:
    assert division(Table(Path("a.csv"), {"image": ["a", "b"], name: cells}, [2, 3]), "split", ()) == Division(None, ())


@pytest.mark.parametrize("name", ["fold", "Fold_5", "kfold", "cv_fold", "split_no", "fold id"])
@pytest.mark.parametrize("cells", [["0", "1", "2"], ["fold1", "fold2", "fold3"], ["1.0", "", "0.0"]])
def test_numbered_folds_are_passed_over_with_a_word(name: str, cells: list[str]) -> None:
    mine = Table(Path("a.csv"), {"image": ["a", "b", "c"], name: cells}, [2, 3, 4])
    divided = division(mine, "split", ())
    assert divided.others == (name,) and divided.column is None and name in divided.warnings[0]


@pytest.mark.parametrize("name", ["is_test", "train", "Validation", "in_training", "test_set"])
def test_ones_and_zeros_for_a_split_are_refused(name: str) -> None:
    mine = Table(Path("a.csv"), {"image": ["a", "b"], name: ["0", "1"]}, [2, 3])
    with pytest.raises(InputError, match=f"--ignore {name}"):
        division(mine, "split", ())


TITLES = st.sampled_from(["Export from PACS", "Chest films 2024", "Tabelle 1"])


@given(title=TITLES, separator=st.sampled_from(",;\t"), padded=st.booleans(), blank=st.booleans())
def test_a_title_above_the_header_names_the_line_of_the_header(
    title: str, separator: str, padded: bool, blank: bool
) -> None:
    lines = [title + separator * 2 * padded, *[""] * blank, separator.join(("image", "patient", "Pneumonia"))]
    lines += [separator.join((f"{row}.png", str(row), str(row % 2))) for row in range(4)]
    with tempfile.TemporaryDirectory() as place:
        path = Path(place, "labels.csv")
        path.write_text("\n".join(lines))
        with pytest.raises(InputError, match=f"line {2 + blank} of ") as refusal:
            read_table(path)
    assert "--image-column" not in str(refusal.value)


@pytest.mark.parametrize("first", ["Export;2024;", "Export;;site"])
def test_a_title_of_several_cells_does_too(tmp_path: Path, first: str) -> None:
    (tmp_path / "labels.csv").write_text(f"{first}\nfilename;patient;Pneumonia\na.png;1;0\nb.png;2;1\n")
    with pytest.raises(InputError, match="line 2 of "):
        require_images(read_table(tmp_path / "labels.csv"), "image")

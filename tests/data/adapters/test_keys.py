"""Cells that name patients, films and studies, in all adapters."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.data.adapters.keys import film_id, known_patients, lookup, refuse_repeats, whole_number
from edgecxr.data.adapters.nih import nih
from edgecxr.data.adapters.vinbigdata import vinbigdata
from edgecxr.data.tables.splits import leak_warnings
from edgecxr.data.tables.table import Table
from edgecxr.errors import InputError
from tests.data.adapters.test_vindr import LABELS, TEST, make, mark, reads, vindr
from tests.data.layouts import VINBIGDATA_ROWS, nih_layout, table, vinbigdata_layout

UNKNOWN = ("", "nan", "NaN", "NA", "n/a", "#N/A", "<NA>", "NULL", "None", ".")
CELLS = st.lists(st.sampled_from([*UNKNOWN, "P1", "P2", "7", "8"]), min_size=1, max_size=12)


@given(CELLS)
def test_each_film_of_an_unknown_patient_is_a_patient_of_its_own(cells: list[str]) -> None:
    ids = [f"{row}.png" for row in range(len(cells))]
    patients, warnings = known_patients(cells, ids)
    unknown = [image for cell, image in zip(cells, ids, strict=True) if cell in UNKNOWN]
    assert patients.tolist() == [image if image in unknown else cell for cell, image in zip(cells, ids, strict=True)]
    assert [text for text in warnings if f": {len(unknown)} of {len(cells)};" in text] == warnings
    assert bool(warnings) == bool(unknown)


@given(st.integers(0, 10**9), st.lists(st.sampled_from(["{}", "0{}", "{}.0", "00{}.00"]), min_size=2, max_size=6))
def test_a_number_written_in_several_ways_is_one_patient(number: int, forms: list[str]) -> None:
    cells = [form.format(number) for form in forms]
    patients, warnings = known_patients(cells, [f"{row}.png" for row in range(len(cells))])
    assert len(set(patients.tolist())) == 1 and bool(warnings) == (len(set(cells)) > 1)
    assert {whole_number(cell) for cell in cells} == {str(number)}


@given(
    name=st.sampled_from(["P7", "Doe J 12", "\u00e9lan 3", "pat-0a-41", "7", "M\u00fcller"]),
    ways=st.lists(
        st.sampled_from(
            [
                str, str.upper, str.lower, lambda name: name.replace(" ", "  "),
                lambda name: name.replace(" ", "\u00a0"), lambda name: name.replace("-", "_"),
                lambda name: f"'{name}", lambda name: f'="{name}"',
                lambda name: unicodedata.normalize("NFD", name), lambda name: re.sub(r"(?<!\d)(?=\d)", "00", name),
                lambda name: name.translate({ord(digit): ord(digit) + 0xFEE0 for digit in "0123456789"}),
            ]
        ),
        min_size=1, max_size=5,
    ),
)  # fmt: skip
def test_a_patient_written_in_several_ways_is_one(name: str, ways: list[Callable[[str], str]]) -> None:
    cells = [*(way(name) for way in ways), "other", "Other 1", "Other 11", "Other 1 1"]
    patients, warnings = known_patients(cells, [f"{row}.png" for row in range(len(cells))])
    assert len(set(patients.tolist())) == 5 and len(set(patients[: len(ways)].tolist())) == 1
    assert len(warnings) == (len(set(cells)) > 5)
    (leak,) = leak_warnings(patients[[0, 0]], np.array(["train", "test"]))
    assert ": 1;" in leak


@given(st.lists(st.sampled_from(["Anonymous", "UNKNOWN", "?", "-", "xxx", "", "P1"]), min_size=1, max_size=12))
def test_words_for_nobody_are_no_patient(cells: list[str]) -> None:
    patients, warnings = known_patients(cells, [f"{row}.png" for row in range(len(cells))])
    unknown = sum(cell != "P1" for cell in cells)
    assert len(set(patients.tolist())) == unknown + ("P1" in cells)
    assert bool(warnings) == bool(unknown) and all(f": {unknown} of {len(cells)};" in text for text in warnings)
    assert all(repr(cell) in warnings[0] for cell in sorted(set(cells) - {"P1", ""})[:3])


@pytest.mark.parametrize(("cell", "said"), [("0", "0"), ("9.9E+07", "rounded"), ("-1", "-1"), ("TBD", "TBD")])
def test_a_patient_who_may_be_several_is_said(cell: str, said: str) -> None:
    cells = [cell] * 30 + [f"p{row}" for row in range(60)]
    warnings = known_patients(cells, [f"{row}.png" for row in range(90)])[1]
    assert said in warnings[0] and any("30 of 90" in text for text in warnings)
    assert known_patients(cells[:10] + cells[30:], [f"{row}.png" for row in range(70)])[1] == warnings[:-1]


@given(st.text("0123456789abcdef", min_size=1, max_size=32), st.sampled_from(["", ".dicom", ".DCM", ".png"]))
def test_an_id_matches_with_an_ending_and_in_any_case(name: str, ending: str) -> None:
    assert film_id(name + ending) == film_id(name.upper() + ending.upper()) == name


def test_lines_that_come_again_or_contradict_each_other_are_named() -> None:
    twice = Table(Path("a.csv"), {"id": ["x", "y", "x"], "view": ["PA", "AP", "PA"]}, [2, 3, 5])
    assert lookup(twice, "id", twice.columns["view"]) == {"x": "PA", "y": "AP"}
    for check in (
        lambda: refuse_repeats(twice, ("id",)),
        lambda: lookup(twice, "id", ["PA", "AP", "LATERAL"]),
    ):
        with pytest.raises(InputError, match=r"line 5 of a\.csv .*line 2\b") as caught:
            check()
        assert caught.value.reason == "dataset"


def rewritten(path: Path, column: str, cells: dict[int, str]) -> None:
    """Change cells of a column, by line of the file."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    for line, cell in cells.items():
        rows[line - 1][rows[0].index(column)] = cell
    table(path, rows[0], rows[1:])


def test_nih_without_some_patients_counts_them(tmp_path: Path) -> None:
    folder = nih_layout(tmp_path)
    rewritten(folder / "Data_Entry_2017.csv", "Patient ID", {4: "", 5: "NA", 6: "nan"})
    dataset = nih(folder)
    assert dataset.patients[2:5].tolist() == dataset.ids[2:5].tolist()
    assert any(": 3 of 10;" in text for text in dataset.provenance["warnings"])


@pytest.mark.parametrize("spell", [str.upper, "{}.dicom".format, "{}.dcm".format])
def test_keys_of_vindr_match_in_any_spelling_and_others_are_counted(tmp_path: Path, spell) -> None:  # type: ignore[no-untyped-def]
    folder = make(tmp_path, reads(40), TEST)
    lines = [f"{spell(f'i{i:03}')},p{i // 4}\n" for i in range(40)]
    path = folder / "annotations" / "patients.csv"
    path.write_text("image_id,patient\n" + "".join(lines) + "t,q\nu,r\ngone,p0\n")
    mark(folder, "train", f"{spell('i000')},R0,EDEMA,1,1,5,5", "gone,R0,Edema,1,1,5,5", "i000,R0,Cough,1,1,5,5")
    dataset = vindr(folder, LABELS)
    assert len(np.unique(dataset.patients)) == 12 and [box.index for box in dataset.boxes] == [0]
    notes = dataset.provenance["warnings"]
    assert sum("(gone)" in text and ": 1" in text for text in notes) == 2 and any("(Cough)" in text for text in notes)
    path.write_text(path.read_text() + "i000,other\n")
    with pytest.raises(InputError, match=r"line 45 of .*patients\.csv .*line 2\b"):
        vindr(folder, LABELS)


def test_vinbigdata_joins_spellings_and_leaves_out_boxes_of_unknown_scale(tmp_path: Path) -> None:
    folder = vinbigdata_layout(tmp_path, ".png")
    whole = vinbigdata(folder)
    text = (folder / "train.csv").read_text()
    (folder / "train.csv").write_text(text.replace("0b,Cardiomegaly,3,R8", "0B.png,Cardiomegaly,3,R8"))
    assert vinbigdata(folder).ids.tolist() == whole.ids.tolist() and len(vinbigdata(folder).boxes) == len(whole.boxes)
    rewritten(folder / "train_meta.csv", "dim0", {list(VINBIGDATA_ROWS).index("0b") + 2: ""})
    dataset = vinbigdata(folder)
    left = len(whole.boxes) - len(dataset.boxes)
    assert left and any(f"left out: {left};" in text for text in dataset.provenance["warnings"])

    with (folder / "train_meta.csv").open("a") as file:
        file.write("0d,95,96\r\n")
    with pytest.raises(InputError, match=r"train_meta\.csv.* 0d "):
        vinbigdata(folder)

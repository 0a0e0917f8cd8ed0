"""A column of labels is never dropped because of a few odd cells."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecxr.data.adapters.folder import folder
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.table import is_label_value
from edgecxr.errors import InputError, UsageError
from tests.data.tables.test_statements import NORMAL, SPELLINGS

ODD = ("-1", "-1.0", "?", "2", "0,5", "yes", "1?", "uncertain", "positive")
UNSURE = ("-1", "-1.0", "?", "uncertain", "U")


def table(place: Path, columns: dict[str, list[str]]) -> Path:
    """Write a table of as many films as the columns have cells."""
    rows = len(next(iter(columns.values())))
    Image.fromarray(np.eye(80, dtype=np.uint8) * 200).save(place / "0.png")
    with (place / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "patient", *columns])
        writer.writerows([f"{row}.png", f"p{row}", *(cells[row] for cells in columns.values())] for row in range(rows))
    return place / "labels.csv"


def opened(columns: dict[str, list[str]], **options: object) -> Dataset:
    with tempfile.TemporaryDirectory() as place:
        return folder(table(Path(place), columns), val_fraction=0, test_fraction=0, **options)  # type: ignore[arg-type]


LABELS = st.lists(st.sampled_from(["0", "1", "", "0.5"]), min_size=24, max_size=24)


@settings(deadline=None, max_examples=60)
@given(cells=LABELS, odd=st.sampled_from(ODD), row=st.integers(0, 23), named=st.booleans())
def test_an_odd_cell_in_a_column_of_labels_is_an_error_with_line_and_cell(
    cells: list[str], odd: str, row: int, named: bool
) -> None:
    cells = ["1", "0", *cells[2:]]
    cells[max(row, 2)] = odd
    columns = {"Edema": ["0", "1"] * 12, "Nodule": cells}
    with pytest.raises(InputError) as caught:
        opened(columns, labels=["Edema", "Nodule"] if named else None)
    assert caught.value.reason == "dataset"
    message = str(caught.value)
    assert f"line {max(row, 2) + 2} of " in message and "'Nodule'" in message and repr(odd) in message
    assert ("--uncertain" in message) == (odd in UNSURE) and "--ignore Nodule" in message


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", np.nan), ("ones", 1), ("zeros", 0)])
@pytest.mark.parametrize("cell", UNSURE)
def test_an_uncertain_cell_counts_as_the_user_says(cell: str, uncertain: str, value: float) -> None:
    dataset = opened({"Edema": ["0", "1"] * 12, "Nodule": ["1", "0", cell, *["0"] * 21]}, uncertain=uncertain)
    np.testing.assert_array_equal(dataset.targets[:4, 1], np.float32([1, 0, value, 0]))
    assert np.isnan(dataset.abnormal[2]) == (uncertain == "ignore")


@settings(deadline=None, max_examples=40)
@given(
    edema=st.lists(st.sampled_from(["0", "1"]), min_size=22, max_size=22),
    doubted=st.sets(st.integers(2, 23), min_size=1),
    cell=st.sampled_from(UNSURE),
    uncertain=st.sampled_from(["ignore", "ones", "zeros"]),
    column=st.sampled_from(["No Finding", "abnormal"]),
)
def test_a_doubt_about_normal_never_makes_a_film_with_a_finding_normal(
    edema: list[str], doubted: set[int], cell: str, uncertain: str, column: str
) -> None:
    edema = ["0", "1", *edema]
    says = [("1" if (value == "1") == (column == "abnormal") else "0") for value in edema]
    cells = [cell if row in doubted else word for row, word in enumerate(says)]
    abnormal = opened({column: cells, "Edema": edema}, uncertain=uncertain).abnormal
    for row, value in enumerate(edema):
        counts = {"ignore": np.nan, "ones": 1, "zeros": int(value)}[uncertain] if row in doubted else int(value)
        np.testing.assert_equal(float(abnormal[row]), float(counts))


def test_another_odd_cell_stays_an_error_and_another_handling_is_refused() -> None:
    columns = {"Edema": ["0", "1"] * 12, "Nodule": ["1", "0", "2", *["0"] * 21]}
    with pytest.raises(InputError, match="'2'"):
        opened(columns, uncertain="ones")
    with pytest.raises(UsageError, match="--uncertain perhaps: there are ignore, ones, zeros"):
        opened(columns, uncertain="perhaps")


def test_columns_of_answers_are_findings_in_other_words_and_others_are_none() -> None:
    columns = {"Edema": ["0", "1"] * 12, "Age": [str(40 + row) for row in range(24)], "View": ["PA"] * 24}
    assert opened(columns).labels == ("Edema",)
    for words in (["yes", "no"], ["Positive", "negative"], ["TRUE", ""]):
        with pytest.raises(InputError, match=f"'Mass' holds '{words[0]}'"):
            opened({**columns, "Mass": words * 12})


@settings(deadline=None, max_examples=40)
@given(edema=LABELS, nodule=LABELS)
def test_no_film_counts_as_normal_in_silence(edema: list[str], nodule: list[str]) -> None:
    columns = {"Edema": ["1", "0", *edema[2:]], "Nodule": nodule}
    for options in ({"labels": ["Edema"]}, {"ignore": ["Nodule"]}):
        dataset = opened(columns, **options)
        positive = np.array([cell in ("1", "0.5") for cell in nodule])
        films = int((positive & (dataset.abnormal < 0.5)).sum())
        warnings = [warning for warning in dataset.provenance["warnings"] if "count as normal" in warning]
        assert warnings == [] if not films else warnings[0].startswith(f"{films} films") and "Nodule" in warnings[0]
    assert all(map(is_label_value, nodule))


def test_a_column_with_more_doubts_than_labels_is_not_dropped() -> None:
    columns = {"Edema": ["0", "1"] * 12, "Nodule": ["1", "0", *["-1"] * 22]}
    with pytest.raises(InputError, match="--uncertain"):
        opened(columns)
    assert opened(columns, uncertain="ignore").labels == ("Edema", "Nodule")


def test_a_column_to_leave_out_that_there_is_not_is_named_and_sex_is_no_finding() -> None:
    columns = {"Edema": ["0", "1"] * 12, "Male": ["1", "0"] * 12}
    with pytest.raises(InputError, match="'nope'"):
        opened(columns, ignore=["nope"])
    assert not any("count as normal" in warning for warning in opened(columns, ignore=["Male"]).provenance["warnings"])


def test_the_usual_columns_may_be_written_otherwise() -> None:
    dataset = opened({"Split": ["train", "test"] * 12, "Edema": ["0", "0", "1", "1"] * 6})
    assert dataset.splits.tolist() == ["train", "test"] * 12


@pytest.mark.corpus
def test_one_minus_one_among_the_labels_of_phantoms_is_named(tmp_path: Path) -> None:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    cases = Path(root).parent / "cases" / "tables"
    (tmp_path / "test").mkdir()
    Image.fromarray(np.eye(80, dtype=np.uint8) * 200).save(
        tmp_path / "test" / "016f5713cdaba5a3304ec52d6e90511a.dicom", "PNG"
    )
    assert folder(cases / "labels_plain.csv", tmp_path, val_fraction=0).labels == ("Cardiomegaly", "Effusion")
    with pytest.raises(InputError, match="holds '-1'"):
        folder(cases / "labels_minus1.csv", tmp_path, val_fraction=0)


@settings(deadline=None, max_examples=40)
@given(
    names=st.lists(st.sampled_from(NORMAL), min_size=1, max_size=3, unique=True),
    spelling=st.sampled_from(SPELLINGS[:6]),
    cells=st.lists(st.sampled_from(["0", "1", ""]), min_size=24, max_size=24),
)
def test_columns_that_mean_normal_are_no_findings(
    names: list[str], spelling: Callable[[str], str], cells: list[str]
) -> None:
    cells = ["1", "0", *cells[2:]]
    inverse = {"0": "1", "1": "0", "": ""}
    first, *others = [spelling(name).strip() for name in names]
    columns = {"Edema": ["0", "1"] * 12, first: cells, **{name: [inverse[cell] for cell in cells] for name in others}}
    dataset = opened(columns)
    normal = [any(columns[name][row] == "1" for name in (first, *others)) for row in range(24)]
    has_label = np.array([cell != "" for cell in cells])
    assert dataset.labels == ("Edema",)
    np.testing.assert_array_equal(dataset.abnormal[has_label], 1 - np.array(normal)[has_label])
    assert np.isnan(dataset.abnormal[~has_label]).all()
    films = f"{int(has_label.sum())};"
    assert any(films in warning and first in warning for warning in dataset.provenance["warnings"]) == bool(others)


@pytest.mark.parametrize("name", ["Healthy lungs", "negative", "no_pneumonia", "Edema: no", "None", "normal_0", "nan"])
def test_a_column_that_may_mean_normal_needs_an_option(name: str) -> None:
    columns = {"Edema": ["0", "1"] * 12, name: ["1", "0"] * 12}
    with pytest.raises(InputError, match=r"--normal-column.*--ignore.*--labels") as caught:
        opened(columns)
    assert caught.value.reason == "dataset" and repr(name) in str(caught.value)
    assert opened(columns, labels=["Edema", name]).labels == ("Edema", name)
    for options in ({"ignore": [name]}, {"normal_column": name}, {"normal_names": [name]}):
        dataset = opened(columns, **options)
        assert dataset.labels == ("Edema",) and dataset.abnormal.tolist() == [0, 1] * 12


@settings(deadline=None, max_examples=30)
@given(
    words=st.lists(st.sampled_from(["None", "none", "N/A", "NaN", "null", "."]), min_size=1, max_size=9),
    zero=st.booleans(),
)
def test_words_for_not_known_are_counted(words: list[str], zero: bool) -> None:
    columns = {"Edema": ["0", "1"] * 12, "Mass": [*words, *["1", "0" if zero else ""] * 12][:24]}
    if not zero and {"None", "none"} & set(words):
        with pytest.raises(InputError, match=r"--unknown-names"):
            opened(columns)
    else:
        (warning,) = opened(columns).provenance["warnings"]
        assert all(f"{word!r} {words.count(word)}" in warning for word in words) and "Mass" in warning
    assert opened(columns, unknown_names=list(words)).provenance["warnings"] == []

from __future__ import annotations

import csv
import io
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgecxr.data.tables.table import read_table
from edgecxr.storage.spreadsheet import csv_text, original

FORMULAS = [
    "=1+1", "=cmd|' /C calc'!A0", "+1+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", "\n=1", "\tx", "\rx",
    " =1", "\u200b=1", "\ufeff=1", "\xa0-x", "\x00=1", "\uff1d1+1", "\uff0b1", "\uff0dx", "\uff20x", "-", "+", "=", "@",
    "--1", "-1e", "a;=1+1", ";=1", "x; -cmd", '"=1', "-1,5", "- 1", "-inf",
]  # fmt: skip
PLAIN = [
    "",
    "a",
    "-1",
    "+1",
    "-1.5",
    "-.5",
    "+1e-3",
    "-1E5",
    "0.25",
    "p-1",
    "a=b",
    "x@y",
    "'",
    "''a",
    "it's",
    "a;b",
    "a'=1",
    "-7.",
    "1-2",
]
cells = st.one_of(st.text(max_size=8), st.text(st.sampled_from("'=+-@\t\r\n ;,\"1.ea|\ufeff\uff1d"), max_size=8))


def parsed(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def opened(text: str) -> list[str]:
    """Return the cells of a CSV file as a spreadsheet divides it, at commas and at semicolons."""
    return [cell for row in parsed(text) for cell in row] + [
        part for row in parsed(text) for cell in row for part in cell.split(";")
    ]


@pytest.mark.parametrize("cell", FORMULAS)
def test_a_formula_becomes_text_and_is_read_back(cell: str) -> None:
    ((shown,),) = parsed(csv_text([cell], []))
    assert shown != cell and original(shown) == cell
    assert not any(
        part.lstrip('\t\r\n \xa0\ufeff\u200b\x00"').startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))
        for part in shown.split(";")
    )


@pytest.mark.parametrize("cell", PLAIN)
def test_numbers_and_plain_text_stay_as_they_are(cell: str) -> None:
    assert parsed(csv_text(["head"], [[cell, cell]]))[1] == [cell, cell] and original(cell) == cell


def test_numbers_are_written_as_numbers() -> None:
    assert csv_text(["a", "b", "c"], [[-1.5, -3, float("-inf")]]) == "a,b,c\n-1.5,-3,-inf\n"


@example(row=["'=1", "''=1", "'", "a;'=1"])
@given(row=st.lists(cells, min_size=2, max_size=4))
def test_whatever_stands_in_a_cell_it_is_no_formula_and_is_read_back(row: list[str]) -> None:
    text = csv_text(row, [row])
    assert [list(map(original, line)) for line in parsed(text)] == [
        [cell.encode("utf-8", "backslashreplace").decode() for cell in row]
    ] * 2
    for cell in opened(text):
        start = cell.lstrip("".join(c for c in cell if c.isspace() or unicodedata.category(c) in ("Cc", "Cf")))
        assert not start.startswith(("=", "@")) and cell[:1] not in ("\t", "\r")
        if start[:1] in ("+", "-"):
            float(cell)


def test_a_table_of_ours_is_read_as_it_was_written_and_a_user_s_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(csv_text(["id", "=label", "a;b"], [["=x", "-1", " y\r"], ["'=x", "z", "\t=1"]]), newline="")
    ours = read_table(path, written=True)
    assert ours.columns == {"id": ["=x", "'=x"], "=label": ["-1", "z"], "a;b": [" y\r", "\t=1"]}
    assert read_table(path).columns["id"] == ["'=x", "''=x"]

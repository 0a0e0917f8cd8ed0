"""What separates cells, which cells are numbers, and what contradicts itself is told by all of a table."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.data.adapters.chexpert import chexpert
from edgecxr.data.adapters.folder import folder
from edgecxr.data.tables.findings import contradictions
from edgecxr.data.tables.table import is_label_value, read_table
from edgecxr.errors import InputError
from tests.data.layouts import chexpert_layout
from tests.data.tables.test_findings import opened


def written(text: str) -> Path:
    with tempfile.NamedTemporaryFile("w", suffix=".csv", delete=False, encoding="utf-8", newline="") as file:
        file.write(text)
    return Path(file.name)


@settings(deadline=None)
@given(
    separator=st.sampled_from(",;\t"),
    words=st.lists(st.sampled_from([", ", "; ", " "]), min_size=2, max_size=2),
    cells=st.lists(st.sampled_from(["0", "1", "0,5", "", "a;b", 'say "x"', "two\nlines"]), min_size=3, max_size=3),
    quoted=st.booleans(),
    end=st.sampled_from(["\n", "\r\n"]),
    before=st.sampled_from(["", "\ufeff", "\n\n", "sep="]),
)
def test_a_table_is_read_whatever_separates_it_and_stands_in_its_names(
    separator: str, words: list[str], cells: list[str], quoted: bool, end: str, before: str
) -> None:
    header = ["image", "Edema" + words[0] + "left", "Mass" + words[1] + "right", "Nodule"]
    rows = [[f"{row}.png", *(cells[(row + column) % 3] for column in range(3))] for row in range(5)]
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    writer.writerows([header, *rows])
    path = written((f"sep={separator}{end}" if before == "sep=" else before) + text.getvalue())
    try:
        table = read_table(path)
    finally:
        path.unlink()
    assert list(table.columns) == header
    assert [list(row) for row in zip(*table.columns.values(), strict=True)] == rows


@pytest.mark.parametrize("cell", ["0_1", "1_0", "0x1", "1e999", "inf", "0,5", "1 0", "--1"])
def test_what_only_looks_like_a_label_is_none(cell: str) -> None:
    assert not is_label_value(cell)
    with pytest.raises(InputError):
        opened({"Edema": ["0", "1"] * 12, "Mass": ["1", "0", cell, *["0"] * 21]})


@pytest.mark.parametrize("cells", [["0,0", "1,0"], ["0,25", "0,5"], ["0,0", "1"]])
def test_a_column_of_decimal_commas_is_not_dropped(cells: list[str]) -> None:
    with pytest.raises(InputError, match="'Mass' holds '0,"):
        opened({"Edema": ["0", "1"] * 12, "Mass": cells * 12})


@pytest.mark.parametrize("cell", ["", "NaN", "-nan", "NA", "n/a", "#N/A", "<NA>", "NULL", "None", "n.a.", "."])
def test_all_ways_to_say_that_nothing_is_known(cell: str) -> None:
    assert np.isnan(opened({"Edema": ["0", "1"] * 12, "Mass": ["1", "0", cell] * 8}).targets[2, 1])


@settings(deadline=None, max_examples=40)
@given(labels=st.integers(1, 11), empty=st.booleans())
def test_a_column_that_holds_some_labels_is_left_out_with_a_warning(labels: int, empty: bool) -> None:
    others = [str(20 + row) for row in range(24 - labels)]
    columns = {"Edema": ["0", "1"] * 12, "Score": [*["1"] * labels, *others], "Age": [str(30 + n) for n in range(24)]}
    if empty:
        columns["Mass"] = [""] * 24
    dataset = opened(columns)
    warnings = " ".join(dataset.provenance["warnings"])
    assert (
        dataset.labels == ("Edema",) and "Score" in warnings and "Age" not in warnings and ("Mass" in warnings) == empty
    )
    chosen = " ".join(opened(columns, labels=["Edema"]).provenance["warnings"])
    assert "Score" in chosen


def test_columns_that_may_be_no_findings_or_twice_the_same_are_named() -> None:
    columns = {"Edema": ["0", "1"] * 12, "edema_": ["0", "1"] * 12, "Exposure": ["0.3", "0.7"] * 12}
    warnings = opened(columns).provenance["warnings"]
    assert any("--ignore Exposure" in warning for warning in warnings)
    assert any("Edema" in warning and "edema_" in warning for warning in warnings)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["0", "1", "", "0.4"]), st.sampled_from(["0", "1", ""])), min_size=22))
def test_films_that_are_called_normal_and_have_a_finding_are_counted(rows: list[tuple[str, str]]) -> None:
    rows = [("0", "0"), ("1", "1"), *rows[:22]]
    columns = {"Edema": [edema for edema, _ in rows], "abnormal": [abnormal for _, abnormal in rows]}
    films = rows.count(("1", "0"))
    for opposite in (False, True):
        if opposite:
            other = {"0": "1", "1": "0", "": ""}
            columns = {"Edema": columns["Edema"], "No Finding": [other[cell] for cell in columns["abnormal"]]}
        warnings = [text for text in opened(columns).provenance["warnings"] if "called normal" in text]
        assert len(warnings) == bool(films) and all(f": {films} " in text and "Edema" in text for text in warnings)


def test_support_devices_are_no_contradiction_and_adapters_say_the_others(tmp_path: Path) -> None:
    values = np.array([[1, 0], [0, 1]], np.float32)
    normal = np.zeros(2, np.float32)
    assert contradictions(("Support Devices", "Edema"), values[:1], normal[:1]) == []
    assert len(contradictions(("Support Devices", "Edema"), values, normal)) == 1
    plain = chexpert(chexpert_layout(tmp_path)).provenance["warnings"]
    assert not any("called normal" in text for text in plain)
    path = tmp_path / "train.csv"
    lines = path.read_text().splitlines(keepends=True)
    row = next(n for n, line in enumerate(lines) if "patient00004/study1" in line)
    cells = lines[row].split(",")
    cells[lines[0].split(",").index("Edema")] = "1.0"
    path.write_text("".join([*lines[:row], ",".join(cells), *lines[row + 1 :]]))
    assert any("called normal" in text for text in chexpert(tmp_path).provenance["warnings"])


HOSTILE: dict[str, Callable[[], bytes]] = {
    "columns": lambda: b"a" + b",b" * 10_000 + b"\n",
    "cells": lambda: b"a,b\n" + b"," * 10_000_000,
    "cells of the other separator": lambda: b"a;b\n1;" + b",;" * 10_000_000,
    "empty lines": lambda: b"\n" * 2_000_001 + b"a,b\n1,2\n",
    "empty lines of old Macs": lambda: b"\r" * 50_000_000,
    "lines": lambda: b"a\n" + b"1\n" * 2_000_001,
    "a long cell": lambda: b"a,b\n" + b"x" * 50_000_000 + b",1\n",
    "a long quoted cell": lambda: b'a,b\n"' + b'""' * 25_000_000 + b'",1\n',
    "an open quote": lambda: b'a,b\n"' + b"x" * 50_000_000,
    "NUL": lambda: b"a,b\nx\0,1\n",
    "NUL in a name": lambda: b"a\0,b\nx,1\n",
}


@pytest.mark.parametrize("as_written", [False, True])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_table_that_is_none_ends_soon_with_a_reason(tmp_path: Path, kind: str, as_written: bool) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(HOSTILE[kind]())
    start = time.process_time()
    with pytest.raises(InputError) as caught:
        read_table(path, as_written)
    assert time.process_time() - start < 5
    assert caught.value.reason == "malformed" and str(caught.value).isprintable() and len(str(caught.value)) < 500


TOKENS = st.sampled_from([
    b",", b";", b"\t", b"\n", b"\r", b"\r\n", b'"', b"'", b"\0", b"\xff", b"\xef\xbb\xbf", b"sep=,\n", b"image", b"1",
    b"0.5", b"-1e999", b"nan", b"=1", b"\x1b[2J", b"\xe2\x80\xae", b" ", b"_",
])  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(tokens=st.lists(TOKENS, max_size=30), as_written=st.booleans())
def test_any_bytes_are_a_table_or_refused_in_a_line(tokens: list[bytes], as_written: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        path.write_bytes(b"".join(tokens))
        try:
            table = read_table(path, as_written)
            assert all(len(cells) == len(table) > 0 for cells in table.columns.values())
            for name in table.columns:
                table.values(name)
        except InputError as error:
            assert str(error).isprintable() and len(str(error)) < 1000


@given(st.integers(1, 12), st.sets(st.integers(1, 12)), st.sampled_from(",;\t"), st.integers(0, 2))
def test_a_quote_that_is_never_closed_is_named_with_its_line(
    row: int, blank: set[int], separator: str, column: int
) -> None:
    lines = ["image,split,note", *(f"{number}.png,train,x" for number in range(1, 13))]
    cells = lines[row].split(",")
    cells[column] = f'"{cells[column]}'
    lines[row] = ",".join(cells)
    text = "".join(("\n" if number in blank else "") + f"{line}\n" for number, line in enumerate(lines))
    path = written(text.replace(",", separator))
    before = row + 1 + sum(number <= row for number in blank)
    with pytest.raises(InputError, match=rf"line {before} .*quotation") as caught:
        read_table(path)
    assert caught.value.reason == "malformed"
    path.unlink()


INVISIBLE = st.sampled_from(["\u200b", "\u200d", "\u200e", "\u2060", "\ufeff", "\u00ad", "\u202e"])


@settings(deadline=None, max_examples=40)
@given(mark=INVISIBLE, at=st.integers(0, 9), column=st.sampled_from(["image", "patient", "split", "Edema", "normal"]))
def test_what_nobody_sees_changes_no_name_and_no_cell(mark: str, at: int, column: str) -> None:
    def marked(text: str) -> str:
        return f"{text[:at]}{mark}{text[at:]}"

    header = ["image", "patient", "split", "Edema", "normal"]
    rows = [[f"{n}.png", f"p{n // 2}", ["train", "test"][n // 4 % 2], str(n % 2), str((n + 1) % 2)] for n in range(12)]
    place = header.index(column)
    other = [[marked(cell) if name == column and n % 2 else cell for name, cell in zip(header, row, strict=True)]
             for n, row in enumerate(rows)]  # fmt: skip
    with tempfile.TemporaryDirectory() as root:
        read = []
        (Path(root) / "0.png").touch()
        for head, body in ((header, rows), ([*header[:place], marked(column), *header[place + 1 :]], other)):
            path = Path(root, "labels.csv")
            path.write_text("".join(",".join(row) + "\n" for row in (head, *body)), encoding="utf-8")
            read.append(folder(path, val_fraction=0))
        np.testing.assert_array_equal(read[0].targets, read[1].targets)
        for name in ("ids", "patients", "splits", "abnormal"):
            np.testing.assert_array_equal(getattr(read[0], name), getattr(read[1], name))


@settings(deadline=None, max_examples=60)
@given(
    column=st.integers(0, 3),
    first=st.integers(0, 8),
    more=st.integers(1, 3),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_a_quotation_mark_too_many_swallows_no_films(
    column: int, first: int, more: int, separator: str, end: str
) -> None:
    rows = [[f"a/{row}.png", f"p{row}", str(row % 2), f"seen on day {row}"] for row in range(12)]
    rows[first][column] = '"' + rows[first][column]
    rows[first + more][column] += '"'
    path = written(end.join(separator.join(row) for row in (["image", "patient", "Edema", "note"], *rows)) + end)
    with pytest.raises(InputError, match=rf"line {first + more + 2} of .*quotation") as caught:
        read_table(path)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize(
    "text", ["Heart normal.\nNo effusion, no mass.", "Clear,\nno change", "1, 2\n3", "a\n\nb, c", "x, y\nz, w, v"]
)
def test_a_report_of_several_lines_is_a_cell(text: str) -> None:
    rows = "".join(f'{row}.png,"{text}"\n' for row in range(5))
    assert read_table(written(f"image,report\n{rows}")).columns["report"] == [text] * 5


CONTENT = b"image,Edema\n0.png,1\n1.png,0\n"


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"PK\x03\x04\x14\0" + CONTENT, "Excel"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 99, "Excel"),
        (CONTENT.decode().encode("utf-16"), "UTF-16"),
        (CONTENT.decode().encode("utf-16-le"), "UTF-16"),
        (CONTENT.decode().encode("utf-16-be"), "UTF-16"),
        (b"PAR1\x15\0" + CONTENT, "Parquet"),
        (b"%PDF-1.7\n%\xe2\xe3\n", "PDF"),
        (b"<!DOCTYPE html>\n<p>a, b</p>\n", "web"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "Git LFS"),
        (CONTENT.replace(b"Edema", b"\xd6dem"), "UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["labels.csv", "labels.xlsx", "labels.csv.gz"])
def test_a_file_that_is_no_csv_is_called_what_it_is(tmp_path: Path, content: bytes, word: str, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} .*{word}.* CSV in UTF-8") as caught:
        read_table(tmp_path / name)
    assert caught.value.reason == "malformed"


@pytest.mark.parametrize("name", ["labels.csv", "labels.csv.gz", "labels.CSV.GZ", "labels.txt"])
def test_a_table_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    for content in (CONTENT, gzip.compress(CONTENT)):
        (tmp_path / name).write_bytes(content)
        assert read_table(tmp_path / name).columns["Edema"] == ["1", "0"]


def test_a_blank_before_a_quotation_mark_is_none_of_the_cell() -> None:
    table = read_table(written('image, patient, Edema\n0.png, "Doe, J", "1"\n1.png,Roe, 0\n'))
    assert table.columns == {"image": ["0.png", "1.png"], "patient": ["Doe, J", "Roe"], "Edema": ["1", "0"]}


@pytest.mark.parametrize("name", ["patient", "split", "abnormal"])
def test_two_columns_for_the_same_thing_are_refused_if_they_differ(name: str) -> None:
    cells = {"patient": [f"p{n}" for n in range(24)], "split": ["train"] * 24, "abnormal": ["0", "1"] * 12}[name]
    alike = {"Edema": ["0", "1"] * 12, name.title(): cells}
    if name != "patient":  # `opened` writes one
        alike[name] = cells
    assert opened(alike).labels == ("Edema",)
    alike[name.title()] = [{"patient": "q", "split": "test", "abnormal": ""}[name], *cells[1:]]
    with pytest.raises(InputError, match=f"{name}.* and .*{name.title()}|{name.title()}.* and .*{name}"):
        opened(alike)
    assert opened(alike, ignore=[name.title()]).labels == ("Edema",)

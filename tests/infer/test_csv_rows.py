from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.errors import UsageError
from edgecxr.infer.predictor import Predictor
from edgecxr.storage.appended import LineFile
from edgecxr.storage.spreadsheet import original
from tests.films.dicom_files import film, write
from tests.infer.test_run import infer, png
from tests.tiny_bundle import LABELS, tiny_bundle

UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": "1.2.5"}


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model"))


def rows(table: Path) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")), strict=True)
    return [{key: original(value) for key, value in row.items()} for row in reader]


def test_a_row_says_what_the_json_line_says(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(film(np.tile(np.linspace(0, 200, 80), (70, 1)).astype(np.uint8), **UIDS), tmp_path, "=good.dcm")
    (tmp_path / "bad.png").write_text("no film")
    assert infer(predictor, [good, tmp_path / "bad.png"], csv=tmp_path / "out" / "table.csv") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    table = rows(tmp_path / "out" / "table.csv")
    assert len(table) == 2
    for row, line in zip(table, lines, strict=True):
        same = ("source", "status", "model", "model_sha256", "precision", "time", "edgecxr", "notice")
        assert all(row[key] == line[key] for key in same)
        assert row["reason"] == line.get("reason", "") and row["SOPInstanceUID"] == (line["film"] or {}).get(
            "SOPInstanceUID", ""
        )
        for name in ("abnormal", *LABELS):
            if line["status"] == "rejected":
                break
            output: dict[str, Any] = line["abnormal"] if name == "abnormal" else line["findings"][name]
            assert float(row[name]) == output["probability"]
            assert float(row[f"{name} threshold"]) == output["threshold"]
            assert row[f"{name} decision"] == str(int(output["decision"]))
    assert table[1]["abnormal"] == table[1]["Cardiomegaly decision"] == "" and "bad.png" in table[1]["message"]


def test_a_table_that_is_there_is_not_replaced(tmp_path: Path, predictor: Predictor) -> None:
    film, table = png(tmp_path / "a.png"), tmp_path / "table.csv"
    infer(predictor, [film], csv=table)
    before = table.read_bytes()
    with pytest.raises(UsageError, match=r"table\.csv is there already"):
        infer(predictor, [film], csv=table)
    assert table.read_bytes() == before
    notes = tmp_path / "notes.csv"
    notes.write_text("patient,note\n1,good\n")
    with pytest.raises(UsageError, match="holds something else"):
        infer(predictor, [film], csv=notes, resume=tmp_path / "results.jsonl")
    assert notes.read_text() == "patient,note\n1,good\n"
    with pytest.raises(UsageError, match="give two files"):
        infer(predictor, [film], csv=table, resume=table)


def test_what_a_killed_run_did_not_write_is_in_the_table_of_the_next(tmp_path: Path, predictor: Predictor) -> None:
    films = [png(tmp_path / f"{n}.png") for n in range(4)]
    table, results = tmp_path / "table.csv", tmp_path / "results.jsonl"
    infer(predictor, films[:3], csv=table, resume=results)
    whole = table.read_text()
    for cut in (len(whole) - 5, whole.index("\n") - 3, 0):  # in a row, in the header, before it
        table.write_text(whole[:cut])
        infer(predictor, films[:3], csv=table, resume=results)
        assert table.read_text() == whole
    table.unlink()
    (tmp_path / "0.png").write_text("now something else")
    infer(predictor, films, csv=table, resume=results)
    infer(predictor, films, csv=table, resume=results)
    # One row for each film, of its last result.
    assert [(Path(row["source"]).name, row["status"]) for row in rows(table)] == [
        ("1.png", "ok"), ("2.png", "ok"), ("0.png", "rejected"), ("3.png", "ok")]  # fmt: skip


def test_a_full_disk_leaves_whole_rows(tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    added = LineFile.add

    def full(file: LineFile, text: str) -> None:
        if "2.png" in text:
            raise UsageError("table.csv cannot be written (No space left on device)")
        added(file, text)

    monkeypatch.setattr(LineFile, "add", full)
    with pytest.raises(UsageError):
        infer(predictor, [png(tmp_path / f"{n}.png") for n in range(4)], csv=tmp_path / "table.csv")
    assert [Path(row["source"]).name for row in rows(tmp_path / "table.csv")] == ["0.png", "1.png"]

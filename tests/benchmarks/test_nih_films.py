"""Two folders of films become one table in which nobody both trains and is tested."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "nih_films.py"
COLUMNS = "image,split,patient,Mass"


def folder(path: Path, columns: str, *rows: str) -> Path:
    path.mkdir()
    (path / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")
    (path / "img").mkdir()
    return path


def test_films_of_patients_that_the_first_holds_out_do_not_train(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", COLUMNS, "img/1.png,train,1,0", "img/2.png,val,2,1", "img/3.png,test,3,0")
    second = folder(
        tmp_path / "b", COLUMNS + ",more",
        "img/4.png,test,4,1,x", "img/5.png,train,0003,0,x", "img/6.png,val,2,0,x", "img/7.png,val,1,1,x",
    )  # fmt: skip
    (second / "img/4.png").write_text("a film")
    out = tmp_path / "out"
    for _ in range(2):  # again is the same
        subprocess.run([sys.executable, SCRIPT, first, second, "--out", out], check=True)
    with (out / "labels.csv").open() as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ("a/img/1.png", "train", "1", "0"), ("a/img/2.png", "val", "2", "1"), ("a/img/3.png", "test", "3", "0"),
        ("b/img/4.png", "train", "4", "1"), ("b/img/7.png", "train", "1", "1"),
    ]  # fmt: skip
    assert (out / "b/img/4.png").read_text() == "a film"


def test_a_second_table_without_a_finding_of_the_first_is_refused(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", COLUMNS, "img/1.png,train,1,0")
    second = folder(tmp_path / "b", "image,split,patient,mass", "img/4.png,test,4,1")
    ended = subprocess.run(
        [sys.executable, SCRIPT, first, second, "--out", tmp_path / "out"], capture_output=True, text=True
    )
    assert ended.returncode == 1 and "no column Mass" in ended.stderr and not (tmp_path / "out").exists()

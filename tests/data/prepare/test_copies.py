"""Copies of films whose labels contradict each other."""

from __future__ import annotations

import csv
import math
from itertools import combinations
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare.copies import contradicted_labels, contradiction_warnings
from tests.cli_workspace import edgecxr, image_folder

CELLS = st.sampled_from([0.0, 0.3, 0.7, 1.0, math.nan])


@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=6))
def test_copies_contradict_each_other_where_one_is_positive_and_an_earlier_one_negative(
    rows: list[tuple[float, float, float]],
) -> None:
    values, names = np.array(rows, np.float32), np.arange(len(rows)).astype(str)
    splits = np.full(len(rows), "train")
    dataset = Dataset("any", ("A", "B"), names, values[:, :2], values[:, 2], names, splits, (), {})
    contradicted = contradicted_labels(dataset, [(copy, 0) for copy in range(1, len(rows))])
    expected: dict[int, set[str]] = {}
    for early, late in combinations(range(len(rows)), 2):
        for label, *pair in zip(("A", "B", "abnormal"), rows[early], rows[late], strict=True):
            if min(pair) < 0.5 <= max(pair) and not any(map(math.isnan, pair)):
                expected.setdefault(late, set()).add(label)
    assert {copy: set(labels) for copy, labels in contradicted.items()} == expected
    warnings = contradiction_warnings(contradicted, dict.fromkeys(range(len(rows)), 0), names.tolist())
    assert len(warnings) == bool(expected) and all(f": {len(expected)} (" in text for text in warnings)


def test_a_copy_with_another_label_is_named_and_stays(tmp_path: Path) -> None:
    films = image_folder(tmp_path / "shades", 8)
    for name, of in (("wrong", 0), ("same", 1)):
        (films / f"{name}.png").write_bytes((films / f"{of}.png").read_bytes())
    with (films / "labels.csv").open("a") as file:
        file.write("wrong.png,1\nsame.png,1\n")
    typed = edgecxr("prepare", "folder", films, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 0 and "labels: 1 (wrong.png as 0.png: Dark, abnormal)" in typed.err
    with (tmp_path / "runs" / "data" / "shades" / "duplicates.csv").open(newline="") as file:
        rows = {row["id"]: row["contradicts"] for row in csv.DictReader(file)}
    assert rows == {"wrong.png": "Dark|abnormal", "same.png": ""} and "shades: 10 images" in typed.out

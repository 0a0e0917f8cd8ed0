"""Films that a model may have learnt from are warned of, whatever the data set is called."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from edgecxr.data.overlap import seen_films
from edgecxr.data.pack import pack
from edgecxr.data.prepared import Prepared
from tests.cli_workspace import edgecxr
from tests.data.layouts import chestmnist_layout, nih_layout


def named(prepared: Prepared, kind: str, **division: Any) -> Prepared:
    """Return a data set as if it came from an adapter."""
    return dataclasses.replace(prepared, info=prepared.info | {"provenance": {"kind": kind, **division}})


@pytest.mark.parametrize(
    ("learnt", "tried", "split", "seen"),
    [
        ({"kind": "nih"}, {"kind": "chestmnist"}, "test", True),
        ({"kind": "chestmnist"}, {"kind": "nih"}, "test", True),
        ({"kind": "vindr"}, {"kind": "vinbigdata"}, "test", True),
        ({"kind": "vinbigdata"}, {"kind": "vindr"}, "test", False),
        ({"kind": "vinbigdata"}, {"kind": "vindr"}, "val", True),
        ({"kind": "nih"}, {"kind": "vindr"}, "test", False),
        ({"kind": "nih", "seed": 0}, {"kind": "nih", "seed": 0}, "test", False),
        ({"kind": "nih", "seed": 0}, {"kind": "nih", "seed": 1}, "test", False),
        ({"kind": "nih", "seed": 0}, {"kind": "nih", "seed": 1}, "val", True),
        ({"kind": "vinbigdata", "seed": 0}, {"kind": "vinbigdata", "seed": 1}, "test", True),
        ({"kind": "chexpert", "tables": ["a", "b", "c"]}, {"kind": "chexpert", "tables": ["a", "b"]}, "test", True),
        ({"kind": "folder", "seed": 0}, {"kind": "folder", "seed": 1}, "test", False),
        ({}, {"kind": "nih"}, "test", False),
    ],
)
def test_the_same_films_under_another_division_are_told(
    clinic: Prepared, tmp_path: Path, learnt: dict[str, Any], tried: dict[str, Any], split: str, seen: bool
) -> None:
    data = {"name": "learnt", "hash": "other", "provenance": learnt}
    prepared = named(clinic, **tried)
    assert bool(seen_films("model", data, prepared, split)) == seen
    packed = pack(prepared, split, None, tmp_path / "films.npz")
    assert bool(seen_films("model", data, packed, split)) == seen
    assert not seen_films("model", data | {"hash": clinic.hash}, prepared, split)
    assert not seen_films("model", data | {"hash": clinic.hash}, packed, split)


@pytest.mark.slow
def test_evaluate_says_it_on_the_terminal_and_in_the_record(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    runs = tmp_path / "runs"
    nih_layout(tmp_path / "nih")
    chestmnist_layout(tmp_path / "chestmnist_64.npz")
    short = ("--depth", "2", "--epochs", "1", "--batch", "4")
    for command in (
        ("prepare", "nih", tmp_path / "nih"),
        ("prepare", "chestmnist", tmp_path / "chestmnist_64.npz"),
        ("train", "--data", "nih", "--init", "random", "--patch", "56", *short),
    ):
        assert (done := edgecxr(*command, runs=runs)).code == 0, done
    typed = edgecxr("evaluate", "--data", "chestmnist", "--json", runs=runs)
    said = "has learnt from nih, which has films of chestmnist in other splits: the test films may be among them"
    assert typed.code == 0 and f"warning: teacher-tiny-224 {said}" in typed.err
    assert said in json.loads(typed.out)["warning"]
    own = edgecxr("evaluate", "--json", runs=runs)
    assert own.code == 0 and "warning" not in own.err and json.loads(own.out)["warning"] == ""

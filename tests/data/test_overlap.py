"""Films that a model may have learnt from are warned of, whatever the data set is called."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.overlap import seen_films
from edgecxr.data.pack import open_pack, pack
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError
from tests.cli_workspace import edgecxr
from tests.data.layouts import chestmnist_layout, nih_layout

CUT = {"nih": ["val"], "phantom": ["val"], "vindr": ["val"], "vinbigdata": ["val", "test"]}
"""What adapters say of the splits that they cut by chance."""


def named(prepared: Prepared, kind: str) -> Prepared:
    """Return a data set as if it came from an adapter."""
    provenance = {"kind": kind, "cut": CUT.get(kind, [])}
    return dataclasses.replace(prepared, info=prepared.info | {"provenance": provenance, "train_hash": "its own"})


@pytest.mark.parametrize(
    ("learnt", "tried", "split", "has_seen"),
    [
        ("nih", "chestmnist", "test", True),
        ("chestmnist", "nih", "test", True),
        ("vindr", "vinbigdata", "test", True),
        ("vinbigdata", "vindr", "test", False),
        ("vinbigdata", "vindr", "val", True),
        ("nih", "vindr", "test", False),
        ("nih", "nih", "test", False),
        ("nih", "nih", "val", True),
        ("nih", "nih", "train", False),
        ("vinbigdata", "vinbigdata", "test", True),
        ("mimic-cxr", "mimic-cxr", "val", False),
        ("folder", "folder", "test", False),
        ("phantom", "phantom", "val", False),
        ("", "nih", "test", False),
    ],
)
def test_the_same_films_under_another_division_are_told(
    clinic: Prepared, tmp_path: Path, learnt: str, tried: str, split: str, has_seen: bool
) -> None:
    data = {"name": "learnt", "hash": "other", "train_hash": "other", "provenance": {"kind": learnt}}
    prepared = named(clinic, tried)
    packed = pack(prepared, split, None, tmp_path / "films.npz")
    for films in (prepared, packed):
        assert bool(seen_films("model", data, films, split)) == has_seen
        assert not seen_films("model", data | {"hash": clinic.hash}, films, split)
        if learnt == tried:
            # Of other labels, say, but the same films to learn from; or of before that was written down.
            assert not seen_films("model", data | {"train_hash": "its own"}, films, split)
            assert not seen_films("model", {**data, "train_hash": None}, films, split)


def test_films_in_several_splits_are_told_of_a_pack_too(clinic: Prepared, tmp_path: Path) -> None:
    data = {"name": "clinic", "hash": clinic.hash}
    leaky = dataclasses.replace(clinic, info=clinic.info | {"duplicates": {"images": 1, "across_splits": 2}})
    for films in (leaky, pack(leaky, "test", None, tmp_path / "films.npz")):
        assert "2 images of " in seen_films("model", data, films, "test")
    assert not seen_films("model", data, clinic, "test")


def test_a_pack_whose_origin_is_none_is_refused(clinic: Prepared, tmp_path: Path) -> None:
    path = pack(clinic, "test", None, tmp_path / "films.npz").path
    with np.load(path) as arrays:
        content = dict(arrays)
    content["info"] = np.array(json.dumps(json.loads(str(content["info"])) | {"origin": ["nih"]}))
    np.savez(path, **content)
    with pytest.raises(InputError, match=r"films\.npz"):
        open_pack(path)


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
    warning = "has learnt from 'nih', which divides the same films otherwise than 'chestmnist': its training films may"
    assert typed.code == 0 and f"warning: teacher-tiny-224-nih {warning}" in typed.err
    assert warning in json.loads(typed.out)["warning"]
    own = edgecxr("evaluate", "--json", runs=runs)
    assert own.code == 0 and "learnt from" not in own.err + own.out
    # These made-up films repeat each other, in a data set's own splits, too.
    assert re.search(r"images of nih .*in several splits: ", json.loads(own.out)["warning"])

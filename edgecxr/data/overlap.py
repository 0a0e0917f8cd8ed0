"""Whether films that a model is tried on may be among those that it learnt from, under another data set's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecxr.data.prepared import Prepared

_SAME_FILMS = {"nih": "ChestX-ray14", "chestmnist": "ChestX-ray14", "vindr": "VinDr-CXR", "vinbigdata": "VinDr-CXR"}
"""Adapter -> whose films it has: ChestMNIST are NIH's with other splits, VinBigData's VinDr-CXR's training films."""

_OWN_TEST_SPLIT = ("nih", "mimic-cxr", "chestmnist", "vindr")
"""Whose test films are the same however the others are divided."""

_DIVISION = ("seed", "val_fraction", "test_fraction", "tables")


def seen_films(model: str, data: Mapping[str, Any], prepared: Prepared, split: str) -> str:
    """Return a warning where a model may have learnt from the films of a split; "" where nothing says so.

    It goes by where both data sets came from: films of a folder that was prepared twice are not recognized.

    Args:
        model: its name.
        data: what its card says of the data that it has learnt from (`ModelCard.data`).
        prepared: what it is tried on.
        split: "train", "val" or "test".
    """
    if data.get("hash") in prepared.hashes:
        return ""
    learnt = data.get("provenance") or {}
    tried = prepared.info.get("origin") or prepared.info["provenance"]
    ours, theirs = str(learnt.get("kind")), str(tried.get("kind"))
    if ours == theirs:
        same = ours in _SAME_FILMS or ours in ("chexpert", "mimic-cxr")
        otherwise = any(learnt.get(key) != tried.get(key) for key in _DIVISION)
        shared = same and otherwise and not (split == "test" and ours in _OWN_TEST_SPLIT)
    else:
        shared = ours in _SAME_FILMS and _SAME_FILMS[ours] == _SAME_FILMS.get(theirs)
        # VinBigData has none of VinDr-CXR's test films.
        shared = shared and not (theirs == "vindr" and split == "test")
    if not shared:
        return ""
    return (
        f"{model} has learnt from {data.get('name')}, which has films of {prepared.name} in other splits: the "
        f"{split} films may be among them, and results look too good"
    )

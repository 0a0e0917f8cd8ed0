"""Whether films that a model is tried on may be among those that it learnt from, under another data set's name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecxr.data.prepared import Prepared

_SAME_FILMS = ({"nih", "chestmnist"}, {"vindr", "vinbigdata"})
"""Adapters with the same films: ChestMNIST has NIH's with other splits, VinBigData VinDr-CXR's training films."""


def seen_films(model: str, data: Mapping[str, Any], prepared: Prepared, split: str) -> str:
    """Return a warning where a model has, or may have, learnt from films of a split; "" where nothing says so.

    It goes by where both data sets came from: films of a folder that was prepared twice are not recognized.

    Args:
        model: its name.
        data: what its card says of the data that it has learnt from (`ModelCard.data`).
        prepared: what it is tried on.
        split: "train", "val" or "test".
    """
    if split == "train":
        return ""
    if data.get("hash") in prepared.hashes:
        twins = prepared.info.get("duplicates", {}).get("across_splits", 0)
        return f"{twins} images of {prepared.name} are in several splits: results look too good" if twins else ""
    origin = prepared.info.get("origin") or prepared.summary()
    learnt, tried = (facts.get("provenance") or {} for facts in (data, origin))
    kind, other = learnt.get("kind"), tried.get("kind")
    if kind == other:
        ours, theirs = data.get("train_hash"), origin.get("train_hash")
        cut = split in tried.get("cut", []) and kind not in ("folder", "phantom")
        shared = cut and None not in (ours, theirs) and ours != theirs
    else:
        # VinBigData has none of VinDr-CXR's test films.
        shared = {kind, other} in _SAME_FILMS and not (other == "vindr" and split == "test")
    if not shared:
        return ""
    return (
        f"{model} has learnt from {data.get('name')!r}, which divides the same films otherwise than {prepared.name!r}: "
        f"its training films may be among these of {split}, and results look too good"
    )

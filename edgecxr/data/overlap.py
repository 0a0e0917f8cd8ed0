"""Detection of test films that a model was trained on.

The films may have been prepared under another data set's name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgecxr.data.prepared import Prepared

_SAME_FILMS = ({"nih", "chestmnist"}, {"vindr", "vinbigdata"})
"""Adapters that share films: ChestMNIST has NIH's with other splits, VinBigData VinDr-CXR's training films."""


def seen_films(model: str, data: Mapping[str, Any], prepared: Prepared, split: str) -> str:
    """Return a warning if a model may have seen a split's films.

    Only the origins of both data sets are compared: films of a folder that was prepared twice are not recognized.

    Args:
        model: name of the model.
        data: facts about its training data (`ModelCard.data`).
        prepared: the data set to test on.
        split: "train", "val" or "test".

    Returns:
        The warning, or "" if nothing indicates an overlap.
    """
    if split == "train":
        return ""
    if data.get("hash") in prepared.hashes:
        twins = prepared.info.get("duplicates", {}).get("across_splits", 0)
        return f"{twins} images of {prepared.name} are in several splits: results look too good" if twins else ""
    origin = prepared.info.get("origin") or prepared.summary()
    trained_on, tested_on = (facts.get("provenance") or {} for facts in (data, origin))
    trained_kind, tested_kind = trained_on.get("kind"), tested_on.get("kind")
    if trained_kind == tested_kind:
        trained_hash, tested_hash = data.get("train_hash"), origin.get("train_hash")
        cut = split in tested_on.get("cut", []) and trained_kind not in ("folder", "phantom")
        shared = cut and None not in (trained_hash, tested_hash) and trained_hash != tested_hash
    else:
        # VinBigData has none of VinDr-CXR's test films.
        shared = {trained_kind, tested_kind} in _SAME_FILMS and not (tested_kind == "vindr" and split == "test")
    if not shared:
        return ""
    return (
        f"{model} has learnt from {data.get('name')!r}, which divides the same films otherwise than {prepared.name!r}: "
        f"its training films may be among these of {split}, and results look too good"
    )

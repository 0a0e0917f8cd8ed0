"""Copies among the films of a data set: images with equal pixels."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare.journal import Journal
from edgecxr.data.tables.table import listing

DUPLICATES = "duplicates.csv"
BLOCK = 256
"""Images in memory at a time."""


def copies_of(journal: Journal, kept: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Return pairs (duplicate, first image with equal pixels).

    Pixels are those of the 224 px images.
    """
    first: dict[bytes, int] = {}
    twins = []
    for start in range(0, len(kept), BLOCK):
        part = kept[start : start + BLOCK]
        for index, image in zip(part.tolist(), journal.images(part), strict=True):
            original = first.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
            if original != index:
                twins.append((index, original))
    return twins


def across_splits(twins: list[tuple[int, int]], splits: NDArray[np.str_]) -> int:
    """Return how many images have equal pixels in another split."""
    groups: dict[int, list[int]] = {}
    for twin, first in twins:
        groups.setdefault(first, [first]).append(twin)
    return sum(len(group) for group in groups.values() if len(set(splits[group].tolist())) > 1)


def contradicted_labels(dataset: Dataset, twins: list[tuple[int, int]]) -> dict[int, list[str]]:
    """Return copies with the labels that an earlier copy contradicts.

    An unknown label contradicts nothing.
    """
    names = (*dataset.labels, "abnormal")
    values = np.column_stack([dataset.targets, dataset.abnormal])
    label_signs: dict[int, NDArray[np.bool_]] = {}  # of a film: labels that are (negative, positive) in a copy
    contradicted = {}
    for twin, first in twins:
        of_first, of_twin = (np.stack([values[index] < 0.5, values[index] >= 0.5]) for index in (first, twin))
        before = label_signs.setdefault(first, of_first)
        against = (before & of_twin[::-1]).any(axis=0)
        if against.any():
            contradicted[twin] = [names[column] for column in np.flatnonzero(against).tolist()]
        label_signs[first] = before | of_twin
    return contradicted


def contradiction_warnings(contradicted: dict[int, list[str]], first: dict[int, int], ids: list[str]) -> list[str]:
    """Return a warning about copies whose labels contradict each other."""
    if not contradicted:
        return []
    pairs = [f"{ids[copy]} as {ids[first[copy]]}: {listing(labels, 3)}" for copy, labels in contradicted.items()]
    return [
        f"copies of a film with contradicting labels: {len(pairs)} ({'; '.join(pairs[:3])}); all stay, listed in "
        f"{DUPLICATES}: correct the labels"
    ]

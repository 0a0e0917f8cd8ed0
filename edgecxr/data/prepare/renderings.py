"""Renderings of a data set's films, and warnings about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare.journal import Outcome
from edgecxr.vocabulary import RENDERINGS, in_words

_STRAY = 0.1
"""Largest share of films that is no rendering of its own, since some equalised pictures do not look so."""


def rendering_of(dataset: Dataset, outcome: Outcome) -> str:
    """Return how a film was rendered, one of `RENDERINGS`.

    The file counts first, then the pixels, then whoever published the film.
    """
    if outcome.rendering in ("dicom", "equalised"):
        return outcome.rendering
    return dataset.pictures or outcome.rendering or "picture"


def count_renderings(dataset: Dataset, outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the numbers of films of each of `RENDERINGS`."""
    counts = Counter(rendering_of(dataset, outcome) for outcome in outcomes)
    return {rendering: counts[rendering] for rendering in RENDERINGS if counts[rendering]}


def rendering_warnings(dataset: Dataset, outcomes: Sequence[Outcome]) -> list[str]:
    """Return warnings about renderings that models should not learn from.

    Args:
        dataset: the data set.
        outcomes: of the films that were read.
    """
    counts, warnings = count_renderings(dataset, outcomes), []
    if mixed(counts):
        warnings.append(
            f"films that were rendered in several ways ({in_words(counts)}): models learn to tell these apart"
        )
    equalised = counts.get("equalised", 0)
    if equalised > _STRAY * len(outcomes):
        warnings.append(
            f"pictures whose histogram was equalised: {equalised}; a model of them decides otherwise on DICOM films, "
            "which are rendered by their window: prepare the DICOM edition where there is one"
        )
    pictures = [outcome for outcome in outcomes if outcome.rendering != "dicom"]
    even = sum(outcome.rendering == "equalised" for outcome in pictures)
    if dataset.pictures == "equalised" and even < len(pictures) / 2:
        warnings.append(
            f"pictures of {dataset.name} are published with an equalised histogram, and {len(pictures) - even} of "
            f"{len(pictures)} do not look so: are they of another edition?"
        )
    return warnings


def mixed(counts: Mapping[str, int]) -> bool:
    """Return whether films were rendered in several ways.

    DICOM and pictures by its window are one way.
    """
    ways: Counter[str] = Counter()
    for rendering, count in counts.items():
        ways["dicom" if rendering == "windowed" else rendering] += count
    many = [way for way, count in ways.items() if count > _STRAY * sum(ways.values())]
    return len(many) > 1 or ("dicom" in counts and len(ways) > 1)

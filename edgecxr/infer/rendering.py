"""Whether a film was rendered as those that a model learnt from.

Its pixels look different otherwise, and so may its decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from edgecxr.vocabulary import RENDERINGS

CODES = {
    "rendering": "the model learnt from films that were rendered otherwise than this one",
    "rendering-unknown": "how the film or those that the model learnt from were rendered is not known",
}
"""Codes of warnings, meant for programs: they stay the same across versions."""

_SEEN = 0.1
"""Share of the training films from which on a model knows a rendering."""


def rendering_doubts(learnt_from: Mapping[str, int]) -> dict[str, tuple[str, str]]:
    """Return doubts about renderings that a model does not know.

    A picture of unknown rendering is in doubt only: most were rendered by DICOM's window. An equalised one is told by
    its pixels, so that it certainly differs from those that are not.

    Args:
        learnt_from: numbers of training films of each of `RENDERINGS`; empty if the card does not say.

    Returns:
        Rendering of a film -> one of `CODES`, and the message.
    """
    ways: Counter[str] = Counter()
    for rendering, count in learnt_from.items():
        ways[_way(rendering)] += count
    total = sum(ways.values())
    if not total:
        return {}
    main = max(learnt_from, key=lambda rendering: learnt_from[rendering])
    doubts = {}
    for rendering in RENDERINGS:
        if ways[_way(rendering)] >= _SEEN * total:
            continue
        if rendering != "picture" and (rendering == "equalised" or _way(main) == "equalised"):
            doubts[rendering] = (
                "rendering",
                f"the model was trained on {RENDERINGS[main]} and decides differently on {RENDERINGS[rendering]}: give "
                "films that were rendered in the same way, or another model",
            )
        else:
            doubts[rendering] = (
                "rendering-unknown",
                f"the model was trained on {RENDERINGS[main]} and may decide differently on {RENDERINGS[rendering]}",
            )
    return doubts


def _way(rendering: str) -> str:
    return "dicom" if rendering == "windowed" else rendering

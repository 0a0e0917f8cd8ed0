"""Thresholds and temperatures that a model's card states."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgecxr.bundle.card import ModelCard
from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.vocabulary import ABNORMAL, FEW_CASES, FloatArray


def thresholds_of(card: ModelCard, rule: str, source: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return name -> threshold, and warnings.

    The warnings are about names without a threshold on the card, and about thresholds that rest on few films.
    """
    names = (*card.labels, ABNORMAL)
    if card.operating_points and rule not in card.operating_points:
        rules = brief(", ".join(card.operating_points))
        raise UsageError(f"{source} has no operating point {rule!r} (there are: {rules})")
    points = card.operating_points.get(rule, {})
    absent = [name for name in names if name not in points]
    thresholds = {name: float(points.get(name, 0.5)) for name in names}
    notes = []
    if absent:
        missing = "any label" if len(absent) == len(names) else ", ".join(absent)
        notes.append(f"the model's card has no operating point for {missing}: decided at 0.5")
    few = [f"{name} ({kinds})" for name, kinds in card.few_cases.items() if name in points]
    if few:
        notes.append(f"thresholds chosen on fewer than {FEW_CASES} films with or without the finding: {', '.join(few)}")
    return thresholds, tuple(notes)


def temperatures_of(card: ModelCard, source: Path) -> FloatArray:
    """Return (L + 1,) divisors of the logits, "abnormal" last."""
    values = np.array([card.temperature.get(name, 1.0) for name in (*card.labels, ABNORMAL)])
    if not (values > 0).all():
        raise ModelError(f"the card in {source} has a temperature that is not above 0: export the model again")
    return values

"""Results of each finding on test films, as a card states them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgecxr.bundle.card import ModelCard
from edgecxr.metrics import Interval
from edgecxr.vocabulary import ABNORMAL, DOUBT

CHANCE = 0.5
"""AUROC of a model that knows nothing."""

WHY_UNRELIABLE = "unreliable: its interval reaches 0.5, or no test films can tell"
"""What the mark means where results stand beside it."""


def is_reliable(low: float) -> bool:
    """Return whether the whole interval of an AUROC is above chance."""
    return low > CHANCE


def marked(name: str, unreliable: object) -> str:
    """Return an output's name, with a question mark if unreliable."""
    return f"{name}{DOUBT}" if unreliable else name


@dataclass(frozen=True)
class CardResult:
    """Result of one output on test films.

    Attributes:
        auroc: with its 95 % interval.
        positives: number of films with the finding.
        negatives: number of films without it.
        rates: rule of the operating point -> (sensitivity, specificity).
    """

    auroc: Interval
    positives: int
    negatives: int
    rates: dict[str, tuple[float, float]]

    @property
    def reliable(self) -> bool:
        """Whether the whole interval is above chance."""
        return is_reliable(self.auroc.low)


def record_of_test(card: ModelCard) -> dict[str, Any] | None:
    """Return the card's record of an evaluation on test films.

    Of several, that on the data that the model learnt from, else the last one. A card may hold anything there.
    """
    records = [record for record in card.metrics.values() if isinstance(record, dict) and record.get("split") == "test"]
    own = [record for record in records if record.get("data") == card.data.get("name")]
    records = own or records
    return records[-1] if records else None


def of_test_films(card: ModelCard) -> dict[str, CardResult]:
    """Return the results of each label and "abnormal" on test films.

    What was not tested, for want of films or because the card does not say so, is absent.
    """
    record = record_of_test(card) or {}
    findings = record.get("findings")
    labels = findings.get("labels") if isinstance(findings, dict) else None
    stated = {**(labels if isinstance(labels, dict) else {}), ABNORMAL: record.get("abnormal")}
    results = {name: _result(stated[name]) for name in (*card.labels, ABNORMAL) if name in stated}
    return {name: result for name, result in results.items() if result is not None}


def _result(stated: Any) -> CardResult | None:
    if not isinstance(stated, dict):
        return None
    if not all(_is_share(stated.get(key)) for key in ("auroc", "low", "high")):
        return None
    if not all(_is_count(stated.get(key)) for key in ("positives", "negatives")):
        return None
    area = Interval(stated["auroc"], stated["low"], stated["high"])
    operating = stated.get("operating")
    rates = {
        str(rule): (point["sensitivity"], point["specificity"])
        for rule, point in (operating.items() if isinstance(operating, dict) else ())
        if isinstance(point, Mapping) and all(_is_share(point.get(key)) for key in ("sensitivity", "specificity"))
    }
    return CardResult(area, stated["positives"], stated["negatives"], rates)


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0

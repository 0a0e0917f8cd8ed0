"""A bundle in a few lines for people: what it is, what it learnt from, how good it is, where it decides."""

from __future__ import annotations

from typing import Any

from edgecxr.runtime.bundle import Bundle
from edgecxr.runtime.types import ABNORMAL, FEW_CASES, ModelCard


def describe(bundle: Bundle) -> str:
    """Return a summary of a bundle; its card (`bundle show --json`) has the rest.

    Args:
        bundle: an open bundle.
    """
    card = bundle.card
    rows = [
        ("model", _model(card)),
        ("lies in", f"{bundle.path}, from edgecxr {card.version or 'of unknown version'}"),
        ("data", _data(card)),
        *[("result", line) for line in _results(card)],
        *[("file", line) for line in _files(bundle)],
    ]
    lines = [f"{name:8} {text}" for name, text in rows]
    return "\n".join([card.name, *lines, *_thresholds(card), card.notice])


def _model(card: ModelCard) -> str:
    entry = ", enlarged to 224 px" if card.input == "upsample" else ""
    taught = "teacher" if card.method == "teacher" else f"student, method {card.method}"
    if card.teacher:
        taught += f", teacher {card.teacher}"
    return f"{card.arch} ViT, {card.size} px{entry}, {card.tokens} tokens, {card.depth} blocks; {taught}"


def _data(card: ModelCard) -> str:
    if not card.data.get("name"):
        return "the card does not say"
    made_up = " (synthetic phantom films)" if card.phantom else ""
    counts = card.data.get("counts") or {}
    splits = ", ".join(f"{split} {count.get('images', '?')}" for split, count in counts.items())
    return f"{card.data['name']}{made_up}" + (f": images {splits}" if splits else "")


def _results(card: ModelCard) -> list[str]:
    """Return a line for each evaluation on test films."""
    lines = []
    for record in card.metrics.values():
        if not isinstance(record, dict) or record.get("split") != "test":
            continue
        tasks = {"findings (macro)": record["findings"]["macro"], "normal/abnormal": record["abnormal"]}
        scores = ", ".join(f"{task} {_score(score)}" for task, score in tasks.items() if score)
        lines.append(f"{record['data']} test, {record['images']} images: AUROC {scores or 'of no task'}")
    return lines or ["not evaluated: `edgecxr evaluate` on the run, then `edgecxr export`"]


def _files(bundle: Bundle) -> list[str]:
    return [
        f"{name}, {facts.get('precision')}, {(bundle.path / name).stat().st_size / 1e6:.1f} MB"
        for name, facts in bundle.card.artefacts.items()
    ]


def _thresholds(card: ModelCard) -> list[str]:
    """Return the table of thresholds, and the films on each side that they were chosen on."""
    rules = list(card.operating_points)
    if not rules:
        return ["no operating points: decisions are made at 0.5"]
    names = (*card.labels, ABNORMAL)
    width = max(map(len, ("threshold", *names)))
    lines = [f"{'threshold':{width}} {''.join(f'{rule:>15}' for rule in rules)}   val. pos  neg"]
    for name in names:
        values = [card.operating_points[rule].get(name) for rule in rules]
        row = "".join(f"{'-' if value is None else format(value, '.4g'):>15}" for value in values)
        counts = card.operating_counts.get(name)
        films = f"   {counts['positives']:8} {counts['negatives']:4}" if counts else ""
        lines.append(f"{name:{width}} {row}{films}{' !' if name in card.few_cases else ''}")
    if card.few_cases:
        lines.append(f"! fewer than {FEW_CASES} validation films of a kind: the threshold is little worth")
    return lines


def _score(score: dict[str, Any]) -> str:
    return f"{score['auroc']:.3f} ({score['low']:.3f} - {score['high']:.3f})"

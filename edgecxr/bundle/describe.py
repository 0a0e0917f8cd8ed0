"""A bundle in a few lines for people: what it is, what it learnt from, how good it is, where it decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from edgecxr.bundle.bundle import Bundle, unlisted, verify
from edgecxr.bundle.card import ModelCard
from edgecxr.bundle.engine_record import FOLDER, EngineRecord
from edgecxr.errors import ModelError
from edgecxr.vocabulary import ABNORMAL, FEW_CASES


def describe(bundle: Bundle) -> str:
    """Return a summary of a bundle; its card (`bundle show --json`) has the rest.

    Args:
        bundle: an open bundle.
    """
    card = bundle.card
    rows = [
        ("model", _model(card)),
        ("lies in", f"{bundle.path}, from edgecxr {card.version or 'of unknown version'}"),
        *_readable("data", lambda: [_data(card)]),
        *_readable("target", lambda: _target(card)),
        *_readable("result", lambda: _results(card)),
        *_readable("gate", lambda: _gate(card)),
        *[row for name in card.artefacts for row in _readable("file", partial(_file, bundle, name))],
    ]
    lines = [f"{name:8} {text}" for name, text in rows]
    return "\n".join([card.name, *lines, *_thresholds(card), card.notice])


def checked_files(folder: Path) -> tuple[list[str], bool]:
    """Return a line for each file of a bundle, listed in SHA256SUMS or not, and whether all listed ones are whole.

    Args:
        folder: of the bundle.

    Raises:
        ModelError: the list is missing or damaged, or a file is too large or lies outside the bundle.
    """
    listed = verify(folder)
    lines = [f"{name}: {'OK' if whole else 'FAILED'}" for name, whole in listed]
    lines += [f"{name}: not listed{_origin(folder, name)}" for name in unlisted(folder)]
    return lines, all(whole for _, whole in listed)


def _origin(folder: Path, name: str) -> str:
    """Return where an unlisted file may come from; an engine is code, so one of elsewhere is never loaded."""
    path = folder / name
    if Path(name).parent != Path(FOLDER):
        return ""
    if path.suffix not in (".engine", ".json"):
        return " (of a build)"
    try:
        _, own = EngineRecord.read(path.with_suffix(".json"))
    except ModelError:
        own = False
    return " (built on this device)" if own else " (not built by this user on this device: never loaded)"


def _readable(title: str, rows: Callable[[], Iterable[str]]) -> list[tuple[str, str]]:
    """Return titled rows; of tables that edgecxr only passes on, a card may say anything."""
    try:
        return [(title, row) for row in rows()]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return [(title, "what the card says cannot be read")]


def _model(card: ModelCard) -> str:
    entry = ", enlarged to 224 px" if card.input == "upsample" else ""
    stem = ", convolutional stem" if card.stem == "conv" else ""
    taught = "teacher" if card.method == "teacher" else f"student, method {card.method}"
    if card.teacher:
        taught += f", teacher {card.teacher}"
    return f"{card.arch} ViT, {card.size} px{entry}{stem}, {card.tokens} tokens, {card.depth} blocks; {taught}"


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


def _target(card: ModelCard) -> list[str]:
    return [f"{card.target['name']}: {card.target['description']}"] if card.target else []


def _gate(card: ModelCard) -> list[str]:
    """Return what is known of the quality gate: a line for its films, and one for what is no chest film."""
    if not card.gate:
        return ["none: the bundle cannot tell whether a film is a chest film"]
    lines = []
    for precision, rates in card.gate["rates"].items():
        refused = f"refuses {_share(rates['films'])} test films" if "films" in rates else "no test films to tell"
        lines.append(f"{precision}, from a distance of {card.gate['thresholds'][precision]:.3g}: {refused}")
        others = [f"{kind} {_share(rate)}" for kind, rate in rates.items() if kind != "films"]
        lines.append(f"  of what is no chest film: {', '.join(others)}")
    return lines


def _share(rate: dict[str, Any]) -> str:
    return f"{rate['refused']}/{rate['images']} ({rate['low']:.1%} - {rate['high']:.1%})"


def _file(bundle: Bundle, name: str) -> list[str]:
    """Return what the card says of one model file."""
    facts = bundle.card.artefacts[name]
    kind = [facts["precision"]] + ([f"{facts['float_part']} elsewhere"] if facts.get("float_part") else [])
    if facts.get("opset"):
        kind.append(f"opset {facts['opset']}" + (f" ({facts['profile']})" if facts.get("profile") else ""))
    lines = [f"{name}, {', '.join(kind)}, {(bundle.path / name).stat().st_size / 1e6:.1f} MB"]
    parity, verdict, calibration = (facts.get(key) or {} for key in ("parity", "verdict", "calibration"))
    if verdict:
        drops = [
            f"{task} {drop['auroc']:+.4f} ({drop['low']:+.4f} to {drop['high']:+.4f})"
            for task, drop in verdict["auroc_drop"].items()
            if drop
        ]
        lines.append(
            f"  {verdict['status']}: AUROC drop {', '.join(drops) or 'not known'}; at most {verdict['tolerance']:g} "
            f"allowed, {verdict['images']} images of {verdict['data']} {verdict['split']}"
        )
    if parity:
        difference = f"{parity['max_logit_difference']:.1e} on {parity['images']} images"
        lines.append(f"  logits within {difference} of the checkpoint's")
    if calibration:
        kept = facts.get("layers", {}).get("float") or []
        lines.append(
            f"  calibrated by {calibration['method']} on {calibration['images']} images of {calibration['data']} "
            f"{calibration['split']}" + (f"; floating point: {', '.join(kept)}" if kept else "")
        )
    return lines


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

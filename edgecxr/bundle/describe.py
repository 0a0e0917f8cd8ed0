"""Short summary of a bundle: model, data, results and thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from edgecxr.bundle.bundle import Bundle, checked_sums, unlisted, verify
from edgecxr.bundle.card import ModelCard
from edgecxr.bundle.engine_record import FOLDER, EngineRecord
from edgecxr.bundle.signature import (
    SIGNATURE,
    check_signature,
    keys_folder,
    name_of_key,
    public_key,
    signers,
    trusted_keys,
)
from edgecxr.bundle.tested import WHY_UNRELIABLE, marked, of_test_films, record_of_test
from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.metrics import with_interval
from edgecxr.terminal import aligned, joined
from edgecxr.vocabulary import ABNORMAL, DEFAULT_RULE, DOUBT, FEW_CASES, in_words

KINDS = {
    "films": "test films (wrongly)",
    "exchanged": "negatives of them",
    "upside-down": "upside down",
    "on-its-side": "on their side",
    "in-pieces": "cut into pieces",
    "noise": "noise",
    "gradient": "gradients",
    "given": "files of --not-chest",
    "given-all-checks": "these, by all checks",
}
"""What the quality gate was tried on, in words."""


def describe(bundle: Bundle, rule: str | None = None) -> str:
    """Return a short summary of a bundle.

    The card (`bundle show --json`) has the rest.

    Args:
        bundle: an open bundle.
        rule: the operating point of the table; by default that of `edgecxr infer`, if the card has it.

    Raises:
        UsageError: the card has no such operating point.
    """
    card = bundle.card
    if rule is not None and rule not in card.operating_points:
        there = brief(", ".join(card.operating_points)) or "none"
        raise UsageError(f"{bundle.path} has no operating point {brief(rule)} (there are: {there})")
    rows = [
        ("model", _model(card)),
        ("folder", f"{bundle.path}, made by edgecxr {card.version or 'of unknown version'}"),
        *_readable("data", lambda: _data(card)),
        *_readable("training", lambda: _training(card)),
        *_readable("target", lambda: _target(card)),
        *_readable("result", lambda: _results(card)),
        *[("limit", brief(limit, 300)) for limit in card.limits],
        *[row for name in card.artefacts for row in _readable("file", partial(_file, bundle, name))],
    ]
    lines = [f"{name:8} {text}" for name, text in rows]
    gate = [row for _, row in _readable("", lambda: _gate(card))]
    return joined([card.name, *lines, *_table(card, rule), *gate, card.notice])


def checked_files(folder: Path) -> tuple[list[str], bool]:
    """Return a line for each file, and whether all checksums hold.

    Files that SHA256SUMS does not list get a line too.

    Args:
        folder: the folder of the bundle.

    Raises:
        ModelError: the list is missing or damaged, or a file is too large or outside the bundle.
    """
    listed = verify(folder)
    lines = [f"{name}: {'OK' if whole else 'FAILED'}" for name, whole in listed]
    lines += [f"{name}: not listed{_origin(folder, name)}" for name in unlisted(folder)]
    return lines, all(whole for _, whole in listed)


def checked_signature(folder: Path, key: Path | None = None, keys: Path | None = None) -> list[str]:
    """Return lines about the signature of a bundle whose checksums hold.

    Args:
        folder: the folder of the bundle.
        key: file of the public key that must have signed it.
        keys: folder of public keys, one of which must have signed it; by default that of EDGECXR_TRUSTED_KEYS, and
            without that a signature is named but not checked.

    Raises:
        ModelError: no such key has signed the bundle.
        UsageError: a key cannot be used.
        MissingPackage: cryptography is not installed.
    """
    keys = keys or (None if key else keys_folder())
    if key is None and keys is None:
        return [f"{SIGNATURE}: names key {name}, not checked (--key, --keys)" for name in signers(folder)]
    trusted = trusted_keys(keys) if keys else {name_of_key(path): public_key(path) for path in (key,) if path}
    return [f"{SIGNATURE}: OK, signed with key {check_signature(folder, checked_sums(folder), trusted)}"]


def _origin(folder: Path, name: str) -> str:
    """Return a note on the origin of an unlisted file.

    An engine is code, so one from elsewhere is never loaded.
    """
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
    """Return titled rows, or a note if the card's values are unreadable.

    Tables that edgecxr only passes on are not validated.
    """
    try:
        return [(title, row) for row in rows()]
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return [(title, "what the card says cannot be read")]


def _model(card: ModelCard) -> str:
    upsampling = ", enlarged to 224 px" if card.input == "upsample" else ""
    stem = ", convolutional stem" if card.stem == "conv" else ""
    role = "teacher" if card.method == "teacher" else f"student, method {card.method}"
    if card.teacher:
        role += f", teacher {card.teacher}"
    return f"{card.arch} ViT, {card.size} px{upsampling}{stem}, {card.tokens} tokens, {card.depth} blocks; {role}"


def _data(card: ModelCard) -> list[str]:
    if not card.data.get("name"):
        return ["the card does not say"]
    phantom_note = " (synthetic phantom films)" if card.phantom else ""
    counts = card.data.get("counts") or {}
    splits = ", ".join(f"{split} {count.get('images', '?')}" for split, count in counts.items())
    rendered = [f"  training films: {in_words(card.renderings)}"] if card.renderings else []
    return [f"{card.data['name']}{phantom_note}" + (f": images {splits}" if splits else ""), *rendered]


def _training(card: ModelCard) -> list[str]:
    """Return how long the training was, and why it ended."""
    if not card.ended:  # an older card
        return []
    epochs, planned = card.ended["epochs"], card.training["epochs"]
    if card.ended["reason"] == "epochs":
        return [f"all {planned} epochs; the weights are those after epoch {card.ended['kept']}"]
    early = f"none of the last {card.training['patience']} was better on validation films (--patience)"
    return [f"{epochs} of {planned} epochs, since {early}; the weights are those after epoch {card.ended['kept']}"]


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
    """Return the table of what the quality gate refuses."""
    if not card.gate:
        return ["quality gate: none, the bundle cannot tell whether a film is a chest film"]
    every: dict[str, dict[str, Any]] = card.gate["rates"]
    thresholds = [format(card.gate["thresholds"][precision], ".3g") for precision in every]
    kinds = dict.fromkeys(["films", *(kind for rates in every.values() for kind in rates)])
    rows = [["quality gate refuses", *every], ["  what is farther than", *thresholds]]
    rows += [[f"  {KINDS.get(kind, kind)}", *(_share(rates.get(kind)) for rates in every.values())] for kind in kinds]
    return aligned(rows, right=True)


def _share(rate: dict[str, Any] | None) -> str:
    return f"{rate['refused']}/{rate['images']} ({rate['low']:.0%}-{rate['high']:.0%})" if rate else "-"


def _file(bundle: Bundle, name: str) -> list[str]:
    """Return the card's facts about one model file."""
    facts = bundle.card.artefacts[name]
    kind = [facts["precision"]] + ([f"{facts['float_part']} elsewhere"] if facts.get("float_part") else [])
    if facts.get("opset"):
        kind.append(f"opset {facts['opset']}" + (f" ({facts['profile']})" if facts.get("profile") else ""))
    lines = [f"{name}, {', '.join(kind)}, {(bundle.path / name).stat().st_size / 1e6:.1f} MB"]
    parity, verdict, calibration = (facts.get(key) or {} for key in ("parity", "verdict", "calibration"))
    if verdict:
        drops = [
            f"{task} {with_interval(drop['auroc'], drop['low'], drop['high'], '+.4f')}"
            for task, drop in verdict["auroc_drop"].items()
            if drop
        ]
        few = f"; too few films of {', '.join(verdict['undecided'])}" if verdict.get("undecided") else ""
        lines.append(
            f"  {verdict['status']}: AUROC drop {', '.join(drops) or 'not known'}; at most {verdict['tolerance']:g} "
            f"allowed, {verdict['images']} images of {verdict['data']} {verdict['split']}{few}"
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


def _table(card: ModelCard, rule: str | None) -> list[str]:
    """Return the table of outputs: test results and thresholds."""
    rules = list(card.operating_points)
    rule = rule or (DEFAULT_RULE if DEFAULT_RULE in rules else next(iter(rules), None))
    results, record = of_test_films(card), record_of_test(card)
    if rule is None and not results:
        return ["no operating points: decisions are made at 0.5"]
    rows = [["", "AUROC (95 %)", "threshold", "sens.", "spec.", "test +/-", "val +/-"]]
    for name in (*card.labels, ABNORMAL):
        result, counts = results.get(name), card.operating_counts.get(name)
        threshold = card.operating_points.get(rule or "", {}).get(name)
        rates = result.rates.get(rule or "") if result else None
        unreliable = record and not (result and result.reliable)
        few = "!" if name in card.few_cases else ""
        rows.append([
            marked(name, unreliable),
            str(result.auroc) if result else "-",
            "0.5" if threshold is None else format(threshold, ".3g"),
            *([f"{rate:.2f}" for rate in rates] if rates else ["-", "-"]),
            f"{result.positives}/{result.negatives}" if result else "-",
            f"{counts['positives']}/{counts['negatives']}{few}" if counts else "-",
        ])  # fmt: skip
    chosen = f"thresholds by the rule {rule}, chosen on the validation films" if rule else "no operating points"
    others = f"; also there: {', '.join(name for name in rules if name != rule)}" if len(rules) > 1 else ""
    lines = [f"{chosen}{others}", *aligned(rows, right=True)]
    lines.append("test +/-, val +/-: films with and without the finding; sens., spec.: on the test films")
    if any(row[0].endswith(DOUBT) for row in rows):
        lines.append(f"{DOUBT} {WHY_UNRELIABLE}")
    if card.few_cases:
        lines.append(f"! fewer than {FEW_CASES} of them: do not rely on this threshold")
    return lines


def _score(score: dict[str, Any]) -> str:
    return with_interval(score["auroc"], score["low"], score["high"])

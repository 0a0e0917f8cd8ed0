"""Films and results as templates show them: words, symbols, times."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from edgecxr.metrics import with_interval
from edgecxr.node.tls.certificates import WARN_DAYS, days_left
from edgecxr.node.web.queries import FilmRow, ResultDelivery
from edgecxr.node.web.strings import DELIVERIES, EVENTS, FLAGS, GATE, KINDS, NONE, REASONS, STATES, TEXT, VERDICTS
from edgecxr.terminal import beside, printable
from edgecxr.vocabulary import ABNORMAL, WITHOUT_RESULT

SYMBOLS = {"waiting": "…", "moving": "→", "flagged": "▲", "clear": "✓", "refused": "✕", "trouble": "✕"}
"""Kind of a state -> symbol, so that none is told by its colour alone."""

OF_DELIVERIES = {
    "waiting": "waiting",
    "sent": "clear",
    "committed": "clear",
    "dead": "trouble",
    "dropped": "trouble",
}

_LISTED = 3  # findings in the list of films


@dataclass(frozen=True)
class Moment:
    """A time.

    Attributes:
        iso: for programs.
        text: for people, in the time zone of this machine.
    """

    iso: str
    text: str


@dataclass(frozen=True)
class FilmView:
    """A film for the templates, in which strangers' texts are printable."""

    number: int
    state: str
    kind: str
    symbol: str
    words: str
    why: str
    flag: str
    flag_kind: str
    flag_symbol: str
    verdict: str
    findings: str
    patient: str
    patient_id: str
    received: Moment
    source: str
    twin: int | None
    pictures: int


def moment(seconds: float) -> Moment:
    """Return a time; one today has no date for people."""
    try:
        at = datetime.fromtimestamp(seconds, timezone.utc)
        local = at.astimezone()
    except (OverflowError, OSError, ValueError):
        return Moment("", str(seconds))
    today = local.date() == datetime.fromtimestamp(time.time(), timezone.utc).astimezone().date()
    return Moment(at.isoformat(timespec="seconds"), f"{local:%H:%M:%S}" if today else f"{local:%Y-%m-%d %H:%M:%S}")


def film_view(film: FilmRow, every: bool = False) -> FilmView:
    """Return a film for the templates.

    Args:
        film: the film.
        every: list all findings, not the first ones alone.
    """
    kind, state = _kind(film)
    reason = REASONS.get(film.reason or "", film.reason or "")
    # Of a film that got its results the reason says what is lacking, and belongs to its own page.
    why = reason if kind in ("refused", "trouble") or every else ""
    analysed = film.abnormal is not None
    flagged = bool(film.abnormal)
    if state == "forgotten":
        verdict = VERDICTS["forgotten"]
    elif kind == "waiting" and not analysed:
        verdict = VERDICTS["waiting"]
    else:
        verdict = VERDICTS[film.abnormal]
    unknown = TEXT["not_read_yet"] if kind == "waiting" else TEXT["unknown_patient"]
    return FilmView(
        number=film.number,
        state=state,
        kind="flagged" if flagged and kind in ("clear", "moving") else kind,
        symbol=SYMBOLS[kind],
        words=STATES[state],
        why=why,
        flag=FLAGS[film.abnormal],
        flag_kind="none" if not analysed else "on" if flagged else "off",
        flag_symbol="▲" if flagged else "",
        verdict=verdict,
        findings=_findings(film.findings, analysed, len(film.findings) if every else _LISTED),
        patient=printable(film.patient or unknown),
        patient_id=printable(film.patient_id or ""),
        received=moment(film.received),
        source=printable(film.source),
        twin=film.twin,
        pictures=film.pictures,
    )


def _kind(film: FilmRow) -> tuple[str, str]:
    """Return the kind of a film's state and its key in `STATES`."""
    if film.state in ("refused", "rejected"):
        lacking = film.state == "rejected" and film.reason in WITHOUT_RESULT and film.abnormal is not None
        return ("trouble", "not-made") if lacking else ("refused", film.state)
    if film.dead:
        return "trouble", "not-filed"
    if film.state in ("filed", "forgotten"):
        return "clear", film.state
    return ("moving" if film.state == "made" else "waiting"), film.state


def _findings(findings: Sequence[tuple[str, bool | None]], analysed: bool, most: int) -> str:
    if not findings:
        return TEXT["no_findings"] if analysed else ""
    named = [f"{printable(name)} {TEXT['unreliable_mark']}" if doubt else printable(name) for name, doubt in findings]
    left = len(named) - most
    return ", ".join(named[:most]) + (f" {TEXT['more'].format(left)}" if left > 0 else "")


def output_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the table of probabilities.

    Abnormal comes first, then flagged findings, then the others.
    """
    outputs = {ABNORMAL: record["abnormal"], **record["findings"]}
    rows = []
    for name, output in outputs.items():
        value, limit = output["probability"], output["threshold"]
        rows.append(
            {
                "name": printable(name),
                "decision": output["decision"],
                "unreliable": output.get("unreliable"),
                "text": beside(value, limit, output["decision"]).replace(">=", "≥"),
                "value": f"{value:.2f}",
                "limit": f"{limit:.2f}",
                "width": round(100 * value, 1),
                "tick": round(100 * limit, 1),
            }
        )
    return rows[:1] + sorted(rows[1:], key=lambda row: not row["decision"])


def figures(record: Mapping[str, Any], film: FilmRow) -> list[tuple[str, str]]:
    """Return what an engineer asks of a film: name and value."""
    gate = record.get("gate") or {}
    distance, limit = gate.get("distance"), gate.get("threshold")
    objections = [printable(f"{each['reason']}: {each['message']}".rstrip(": ")) for each in gate.get("objections", [])]
    shown = [
        (TEXT["distance"], TEXT["not_measured"] if distance is None else f"{distance:.3f}"),
        (TEXT["limit"], NONE if limit is None else f"{limit:.3f}"),
        (TEXT["objections"], "; ".join(objections) or TEXT["no_objections"]),
        (TEXT["reason"], film.reason or NONE),
        (TEXT["model"], printable(f"{record.get('model')} ({record.get('precision')})")),
        (TEXT["file_sum"], printable(str(record.get("model_sha256")))),
        (TEXT["schema"], printable(str(record.get("edgecxr")))),
        (TEXT["study"], printable(film.study)),
    ]
    timings = record.get("timings_ms")
    if timings:
        shown.append((TEXT["timings"], ", ".join(f"{name} {value:.1f}" for name, value in timings.items())))
    return shown


def gate_sentence(record: Mapping[str, Any] | None) -> str:
    """Return the quality gate's verdict for whoever stands beside the machine."""
    gate = (record or {}).get("gate")
    return GATE[gate["verdict"] if gate else None]


def objections(record: Mapping[str, Any] | None) -> list[str]:
    """Return the gate's objections as sentences."""
    gate = (record or {}).get("gate") or {}
    return [REASONS.get(each["reason"], each["reason"]) for each in gate.get("objections", [])]


def timeline(film: FilmRow, events: Sequence[tuple[float, str, str | None]]) -> list[tuple[Moment, str]]:
    """Return what became of a film and when."""
    shown = [(moment(film.received), EVENTS["received"])]
    for at, kind, whither in events:
        words = EVENTS.get(kind, kind)
        shown.append((moment(at), words.format(printable(whither)) if whither else words))
    return shown


def sent_row(sent: ResultDelivery) -> dict[str, Any]:
    """Return a result at a destination for the templates."""
    kind = OF_DELIVERIES[sent.state]
    return {
        "film": sent.film,
        "object": KINDS.get(sent.kind, sent.kind),
        "destination": printable(sent.destination),
        "kind": kind,
        "symbol": SYMBOLS[kind],
        "words": DELIVERIES[sent.state],
        "tries": sent.tries,
        "due": moment(sent.due) if sent.state == "waiting" else None,
        "remark": printable(sent.error or ""),
    }


def size(count: float) -> str:
    """Return a number of bytes in words."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def now() -> str:
    """Return the date, the time and the zone of this machine."""
    return f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}"


def certificates(paths: Sequence[str]) -> list[tuple[str, str, bool]]:
    """Return each certificate: file, end, whether it needs care."""
    rows = []
    for path in paths:
        days = days_left(path)
        if days is None:
            words = TEXT["certificate_unread"]
        else:
            date = f"{datetime.now(timezone.utc) + timedelta(days=days):%Y-%m-%d}"
            words = TEXT["certificate_ended" if days < 0 else "certificate_ends"].format(date, int(days))
        rows.append((printable(path), words, days is None or days <= WARN_DAYS))
    return rows


def model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a model is: name and value."""
    if not model:
        return []
    facts = [
        (TEXT["model"], f"{model['name']} ({model['precision']})"),
        (TEXT["backend"], model["backend"]),
        (TEXT["operating_point"], model["operating_point"] or NONE),
        (TEXT["trained_on"], model["data"] or NONE),
        (TEXT["size"], f"{model['size']} x {model['size']}"),
        (TEXT["file_sum"], model["sha256"]),
        (TEXT["schema"], model["edgecxr"] or NONE),
    ]
    return [(name, printable(str(value))) for name, value in facts]


def tested(model: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return results on test films: output, AUROC, numbers of films."""
    rows = []
    for name in (ABNORMAL, *model.get("labels", ())) if model else ():
        area = model["tested"].get(name)
        if area is None:
            rows.append((printable(name), TEXT["not_tested"], NONE))
        else:
            value, low, high, positives, negatives = area
            rows.append((printable(name), with_interval(value, low, high), f"{positives} / {negatives}"))
    return rows

"""`edgecxr report`: records as markdown, between markers of a file too, and as one self-contained HTML page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edgecxr import NOTICE
from edgecxr.benchmark import tables
from edgecxr.benchmark.recommend import recommend
from edgecxr.benchmark.record import Record
from edgecxr.errors import UsageError
from edgecxr.storage.atomic import atomic_write

BEGIN, END = "<!-- edgecxr report: {} -->", "<!-- end of edgecxr report -->"
Pictures = Callable[[Record, "dict[str, Any] | None"], dict[str, bytes]]

KINDS = ("best", "all")
"""What the marker of a file may ask for: the table of fastest engines, or everything."""


def markdown(records: Sequence[Record], tolerance: float, against: str | None = None, kind: str = "all") -> str:
    """Return records as markdown tables.

    Args:
        records: of one or several devices.
        tolerance: of the recommendation.
        against: model that the times are held against; None takes each model's teacher.
        kind: one of `KINDS`.
    """
    parts = []
    for record in records:
        first, *others = tables.head(record)
        lines = [f"**{first}** {'. '.join(others)}.", ""]
        shown = [(tables.BEST_TITLE, tables.best_cells(record, against))]
        if kind == "all":
            shown.insert(0, (tables.main_title(against), tables.main_cells(record, against)))
        for title, cells in shown:
            if len(cells) > 1:
                lines += [f"{title}:", "", *_table(cells), ""]
        lines += [f"Recommended within {tolerance:g} of AUROC: {recommend(record, tolerance).why}", ""]
        lines += [f"- {note}" for note in tables.notes(record)]
        parts.append("\n".join(lines).rstrip())
    return "\n\n".join([*parts, NOTICE])


def insert(path: Path, records: Sequence[Record], tolerance: float, against: str | None = None) -> int:
    """Replace what stands between the markers of a markdown file.

    Args:
        path: the file, with `<!-- edgecxr report: best -->` or `all`, and `<!-- end of edgecxr report -->` below.
        records: see `markdown`, like `tolerance` and `against`.
        tolerance: see there.
        against: see there.

    Returns:
        The number of places that were filled.

    Raises:
        UsageError: the file cannot be read or written, has no marker, or one without an end.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}): give a markdown file") from error
    count = 0
    for kind in KINDS:
        begin, start = BEGIN.format(kind), 0
        while (found := text.find(begin, start)) >= 0:
            stop = text.find(END, found)
            others = [text.find(BEGIN.format(other), found + 1, max(stop, 0)) for other in KINDS]
            if stop < 0 or max(others) >= 0:
                raise UsageError(f"{path} has the marker {begin} without {END}: add that below it")
            filled = f"{text[:found]}{begin}\n\n{markdown(records, tolerance, against, kind)}\n\n"
            text, start = filled + text[stop:], len(filled)
            count += 1
    if not count:
        raise UsageError(f"{path} has no marker {BEGIN.format('best')} ... {END}: add them where the tables shall be")
    atomic_write(path, text, "check its permissions")
    return count


def page(records: Sequence[Record], tolerance: float, pictures: Pictures, against: str | None = None) -> str:
    """Return records as one HTML page that needs no other file.

    Args:
        records: of one or several devices.
        tolerance: of the recommendation.
        pictures: `edgecxr.plots.records.pictures`.
        against: see `markdown`.
    """
    body = [
        "<h1>Chest X-ray models on devices</h1>",
        f"<p class=notice>{escape(NOTICE)}</p>",
        *_element_table(
            [["device", "data", f"recommended within {tolerance:g} of AUROC"], *_choices(records, tolerance)]
        ),
    ]
    for number, record in enumerate(records):
        body += _section(number, record, tolerance, pictures, against)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>edgecxr report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


def _choices(records: Sequence[Record], tolerance: float) -> list[list[str]]:
    return [[r["device"]["name"], (r["data"] or {}).get("name", "none"), recommend(r, tolerance).why] for r in records]


def _section(number: int, record: Record, tolerance: float, pictures: Pictures, against: str | None) -> list[str]:
    first, *others = tables.head(record)
    choice = recommend(record, tolerance)
    body = [f"<h2 id=record{number}>{escape(first)}</h2>", f"<p>{escape('. '.join(others))}.</p>"]
    body.append(f"<p class={'choice' if choice.row else 'nochoice'}>Recommended: {escape(choice.why)}</p>")
    for title, drawn in pictures(record, choice.row).items():
        source = base64.b64encode(drawn).decode()
        body.append(f'<h3>{title}</h3><img alt="{title}" src="data:image/svg+xml;base64,{source}">')
    for title, cells in (
        (tables.main_title(against), tables.main_cells(record, against)),
        (tables.BEST_TITLE, tables.best_cells(record, against)),
    ):
        if len(cells) > 1:
            body += [f"<h3>{escape(title)}</h3>", *_element_table(cells)]
    notes = "".join(f"<li>{escape(note)}</li>" for note in tables.notes(record))
    body.append(f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    body.append(f"<p class=small>{escape(record['command'])}<br>{escape(versions)}</p>")
    return body


def _element_table(cells: list[list[str]]) -> list[str]:
    head, *rows = cells
    lines = [
        "<div class=scroll><table><thead><tr>",
        *(f"<th>{escape(cell)}</th>" for cell in head),
        "</tr></thead><tbody>",
    ]
    for row in rows:
        kinds = ["class=number" if cell[:1] in "+-0123456789" and cell else "" for cell in row]
        lines.append("<tr>" + "".join(f"<td {k}>{escape(c)}</td>" for k, c in zip(kinds, row, strict=True)) + "</tr>")
    return [*lines, "</tbody></table></div>"]


def _table(cells: list[list[str]]) -> list[str]:
    head, *rows = cells
    rule = "|" + "---|" * len(head)
    return ["| " + " | ".join(head) + " |", rule, *("| " + " | ".join(row) + " |" for row in rows)]


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 72rem; margin: auto; padding: 1rem; }
h2 { margin-top: 3rem; border-top: 1px solid #8888; padding-top: 1rem; }
img { max-width: 100%; background: white; border-radius: 6px; }
table { border-collapse: collapse; font-size: .85rem; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #8884; text-align: left; vertical-align: top; }
td.number { font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; }
.notice { font-weight: 600; }
.choice, .nochoice { border-left: 4px solid #2a7; padding: .5rem .8rem; background: #2a72; }
.nochoice { border-color: #c80; background: #c802; }
.small { font-size: .75rem; overflow-wrap: anywhere; }
"""

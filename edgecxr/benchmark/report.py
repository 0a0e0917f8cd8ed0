"""Reports of benchmark records as markdown and as a self-contained HTML page.

The markdown can be inserted between markers of a file. See `edgecxr report`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from html import escape as escape_html
from pathlib import Path
from typing import Any

from edgecxr import NOTICE
from edgecxr.benchmark import tables
from edgecxr.benchmark.recommend import recommend
from edgecxr.benchmark.record import Record
from edgecxr.errors import UsageError, brief
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.reading import BadFile, read_bytes
from edgecxr.terminal import printable

BEGIN, END = "<!-- edgecxr report: {} -->", "<!-- end of edgecxr report -->"
_ANY_BEGIN = BEGIN.partition("{")[0]
Pictures = Callable[[Record, "dict[str, Any] | None"], dict[str, bytes]]

_LARGEST = 32 << 20

KINDS = ("best", "all")
"""Kinds of markers in a file: the table of fastest engines, or everything."""


def markdown(records: Sequence[Record], tolerance: float, against: str | None = None, kind: str = "all") -> str:
    """Return records as markdown tables.

    Args:
        records: of one or several devices.
        tolerance: of the recommendation.
        against: model to compare the times with; None means each model's teacher.
        kind: one of `KINDS`.
    """
    sections = []
    for record in records:
        first, *others = tables.head(record)
        lines = [f"**{_escaped(first)}** {_escaped('. '.join(others))}.", ""]
        shown = [(tables.BEST_TITLE, tables.best_cells(record, against))]
        if kind == "all":
            shown.insert(0, (tables.main_title(against), tables.main_cells(record, against)))
        for title, cells in shown:
            if len(cells) > 1:
                lines += [f"{_escaped(title)}:", "", *_table(cells), ""]
        lines += [f"Recommended within {tolerance:g} of AUROC: {_escaped(recommend(record, tolerance).why)}", ""]
        lines += [f"- {_escaped(note)}" for note in tables.notes(record)]
        sections.append("\n".join(lines).rstrip())
    return "\n\n".join([*sections, NOTICE])


def insert(path: Path, records: Sequence[Record], tolerance: float, against: str | None = None) -> int:
    """Replace the text between the markers of a markdown file.

    Args:
        path: the file, with `<!-- edgecxr report: best -->` or `all`, and below it `<!-- end of edgecxr report -->`.
        records: see `markdown`.
        tolerance: see `markdown`.
        against: see `markdown`.

    Returns:
        The number of markers whose text was replaced.

    Raises:
        UsageError: the file cannot be read or written, has no marker, or has a marker without an end.
    """
    try:
        # This keeps every other character, such as those of CR LF and a byte order mark.
        lines = read_bytes(path, _LARGEST).decode().split("\n")
    except (OSError, BadFile, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({brief(error)}): give a markdown file") from error
    filled: list[str] = []
    opened, count = "", 0
    for number, line in enumerate(lines, start=1):
        text = line.lstrip("\ufeff").strip()
        kind = next((kind for kind in KINDS if text == BEGIN.format(kind)), None)
        inside = text != END and (END in text or _ANY_BEGIN in text)
        if (opened and inside) or (not opened and kind is None and (text == END or text.startswith(_ANY_BEGIN))):
            raise UsageError(
                f"line {number} of {path} is {brief(text, 80)}{f', below {opened}' if opened else ''}: each marker "
                f"({', '.join(map(BEGIN.format, KINDS))}) needs a line of its own, and {END} below it"
            )
        if not opened or text == END:
            filled.append(line)
            opened = ""
        if kind:
            opened, count = text, count + 1
            end = "\r" if line.endswith("\r") else ""
            filled += [f"{line}{end}" for line in ["", *markdown(records, tolerance, against, kind).split("\n"), ""]]
    if opened:
        raise UsageError(f"{path} has the marker {opened} without {END}: add that below it")
    if not count:
        raise UsageError(
            f"{path} has no marker {BEGIN.format(KINDS[0])} ... {END}, each on a line of its own: add them where the "
            "tables shall be"
        )
    atomic_write(path, "\n".join(filled), "check its permissions")
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
        f"<p class=notice>{_html(NOTICE)}</p>",
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
    body = [f"<h2 id=record{number}>{_html(first)}</h2>", f"<p>{_html('. '.join(others))}.</p>"]
    body.append(f"<p class={'choice' if choice.row else 'nochoice'}>Recommended: {_html(choice.why)}</p>")
    for title, drawn in pictures(record, choice.row).items():
        source = base64.b64encode(drawn).decode()
        body.append(f'<h3>{title}</h3><img alt="{title}" src="data:image/svg+xml;base64,{source}">')
    for title, cells in (
        (tables.main_title(against), tables.main_cells(record, against)),
        (tables.BEST_TITLE, tables.best_cells(record, against)),
    ):
        if len(cells) > 1:
            body += [f"<h3>{_html(title)}</h3>", *_element_table(cells)]
    notes = "".join(f"<li>{_html(note)}</li>" for note in tables.notes(record))
    body.append(f"<h3>Notes</h3><ul>{notes}</ul>" if notes else "")
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    body.append(f"<p class=small>{_html(record['command'])}<br>{_html(versions)}</p>")
    return body


def _html(text: str) -> str:
    return escape_html(printable(text))


def _element_table(cells: list[list[str]]) -> list[str]:
    head, *rows = cells
    lines = [
        "<div class=scroll><table><thead><tr>",
        *(f"<th>{_html(cell)}</th>" for cell in head),
        "</tr></thead><tbody>",
    ]
    for row in rows:
        attributes = ["class=number" if cell[:1] in "+-0123456789" and cell else "" for cell in row]
        lines.append(
            "<tr>" + "".join(f"<td {k}>{_html(c)}</td>" for k, c in zip(attributes, row, strict=True)) + "</tr>"
        )
    return [*lines, "</tbody></table></div>"]


def _table(cells: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(map(_escaped, row)) + " |" for row in cells]
    return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]


# A command of ours in backticks, which stays code.
_COMMAND = re.compile(r"(`edgecxr [\w ./:=,@%+-]*`)")

_MARKUP = re.compile(
    r"[&<>~$@{}\\`*\[\]|!#]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # within a word it is none
    r"|(?<=\])\(|:(?=//)|(?<=www)\."  # links
    r"|^ |^-(?!\d)|^\+(?= |$)|(?<=^\d)[.)](?= |$)|(?<=^\d\d)[.)](?= |$)",  # lists and code
    re.IGNORECASE,
)
_AS_ENTITIES = " &<>~$@{}:"
"""Markup that some dialects of markdown do not let escape by a backslash."""


def _escaped(text: str) -> str:
    """Return a line as markdown that shows its very text.

    The names in a record are of whoever made it. They add no markup, no link and no marker to a page.
    """
    parts = _COMMAND.split(printable(text))
    return "".join(part if place % 2 else _MARKUP.sub(_as_text, part) for place, part in enumerate(parts))


def _as_text(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};" if match[0] in _AS_ENTITIES else f"\\{match[0]}"


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

"""`edgecxr data show`: a prepared data set for people: its findings and how common they are, where it came from."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgecxr.data.dataset import SPLITS
from edgecxr.data.prepared import Prepared
from edgecxr.vocabulary import ABNORMAL

_QUIET = ("kind", "source", "phantom", "warnings", "labels_from")


def show(prepared: Prepared) -> str:
    """Return a few lines, and a table of prevalences: positive films, and their share of those that are known."""
    lines = [prepared.describe(), "", *_table(prepared), ""]
    origin = prepared.info["provenance"]
    films = prepared.info.get("films")
    if films:
        ends = [f"{films['rows'][i]} x {films['columns'][i]}" for i in (0, 1, 2)]
        lines.append(f"films    rows and columns from {ends[0]} to {ends[2]}, median {ends[1]}, each by itself")
    stored = sum(path.stat().st_size for path in prepared.path.iterdir())
    lines.append(f"takes    {stored / 1e6:.1f} MB")
    facts = {key: value for key, value in origin.items() if key not in _QUIET}
    lines.append(f"from     {origin.get('kind', '?')}, {origin.get('source', 'of unknown place')}")
    if facts:
        lines.append(f"made by  {', '.join(f'{key} {value}' for key, value in facts.items())}")
    renamed = {label: parts for label, parts in origin.get("labels_from", {}).items() if parts != [label]}
    for label, parts in renamed.items():
        lines.append(f"label    {label}: {', '.join(parts) if parts else 'not known there'}")
    lines += [f"warning  {text}" for text in (*origin.get("warnings", []), *prepared.info.get("left", []))]
    lines += [f"film     {text}: {count}" for text, count in prepared.info.get("warnings", {}).items()]
    lines.append(f"hash     {prepared.hash}, prepared by edgecxr {prepared.info['version']}")
    return "\n".join(lines)


def _table(prepared: Prepared) -> list[str]:
    width = max(map(len, (*prepared.labels, ABNORMAL)))
    columns = dict(zip(prepared.labels, prepared.targets.T, strict=True)) | {ABNORMAL: prepared.abnormal}
    there = [split for split in SPLITS if len(prepared.rows(split))]
    lines = [f"{'':{width}}" + "".join(f"{split:>20}" for split in there)]
    for name, values in columns.items():
        cells = [_prevalence(values[prepared.rows(split)]) for split in there]
        lines.append(f"{name:{width}}" + "".join(f"{cell:>20}" for cell in cells))
    return lines


def _prevalence(values: np.ndarray[Any, Any]) -> str:
    known = int((~np.isnan(values)).sum())
    if not known:
        return "not known"
    positive = int((values >= 0.5).sum())
    unknown = f" of {known}" if known < len(values) else ""
    return f"{positive}{unknown} ({positive / known:.1%})"

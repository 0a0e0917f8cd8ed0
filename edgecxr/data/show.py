"""Text of `edgecxr data show`: findings, prevalences and origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.dataset import SPLITS
from edgecxr.data.prepared import Prepared
from edgecxr.terminal import aligned, joined
from edgecxr.vocabulary import ABNORMAL

_QUIET = ("kind", "source", "phantom", "warnings", "labels_from")


def show(prepared: Prepared) -> str:
    """Return a summary and a table of prevalences.

    A prevalence is the number of positive films and their share of the films with a known label.
    """
    lines = [*prepared.describe().split("\n"), "", *_table(prepared), ""]
    origin = prepared.info["provenance"]
    films = prepared.info.get("films")
    if films:
        ends = [f"{films['rows'][i]} x {films['columns'][i]}" for i in (0, 1, 2)]
        lines.append(f"films    rows and columns from {ends[0]} to {ends[2]}, median {ends[1]}, each by itself")
    stored = sum(path.lstat().st_size for path in _files(prepared.path))
    lines.append(f"takes    {stored / 1e6:.1f} MB")
    facts = {key: value for key, value in origin.items() if key not in _QUIET}
    lines.append(f"from     {origin.get('kind', '?')}, {origin.get('source', 'of unknown place')}")
    if facts:
        settings = [f"{key.replace('_', ' ')}: {value}" for key, value in facts.items()]
        lines.append(f"with     {'; '.join(settings)}")
    renamed = {label: parts for label, parts in origin.get("labels_from", {}).items() if parts != [label]}
    for label, parts in renamed.items():
        lines.append(f"label    {label}: {', '.join(parts) if parts else 'not known there'}")
    lines += [f"warning  {text}" for text in (*origin.get("warnings", []), *prepared.info.get("left", []))]
    lines += [f"film     {text}: {count}" for text, count in prepared.info.get("warnings", {}).items()]
    lines.append(f"hash     {prepared.hash}, prepared by edgecxr {prepared.info.get('version')}")
    return joined(lines)


def not_known(prepared: Prepared) -> str:
    """Return how many labels are not known; "" if all are."""
    labels, films = int(np.isnan(prepared.targets).sum()), int(np.isnan(prepared.abnormal).sum())
    if not (labels or films):
        return ""
    return f"not known: {labels} of {prepared.targets.size} labels of findings, and whether {films} films are normal"


def _files(place: Path) -> list[Path]:
    """Return the files of a data set; a pack is one file."""
    return list(place.iterdir()) if place.is_dir() else [place]


def _table(prepared: Prepared) -> list[str]:
    columns = dict(zip(prepared.labels, prepared.targets.T, strict=True)) | {ABNORMAL: prepared.abnormal}
    used = [split for split in SPLITS if len(prepared.rows(split))]
    rows = [[name, *(_prevalence(values[prepared.rows(split)]) for split in used)] for name, values in columns.items()]
    return aligned([["", *used], *rows], right=True)


def _prevalence(values: np.ndarray[Any, Any]) -> str:
    labelled = int((~np.isnan(values)).sum())
    if not labelled:
        return "not known"
    positive = int((values >= 0.5).sum())
    unknown = f" of {labelled}" if labelled < len(values) else ""
    return f"{positive}{unknown} ({positive / labelled:.1%})"

"""Artefacts of a workspace as one table: data sets, runs and bundles."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.bundle.epoch_history import kept_epoch, read_history
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, ModelError
from edgecxr.storage.folders import CARD, CONFIG, DATASET
from edgecxr.storage.json_values import read_json
from edgecxr.storage.reading import BadFile
from edgecxr.terminal import aligned, joined
from edgecxr.workspace import Workspace

_LARGEST = 64 << 20
_HEADS = ("  kind", "name", "px", "tokens", "AUROC", "date")


def inventory(workspace: Workspace, shipped: Iterable[Path] = ()) -> list[dict[str, Any]]:
    """Return what is in a workspace, of each kind the latest first.

    Args:
        workspace: where to look.
        shipped: folders of the bundles that come with edgecxr; their rows come last and have "shipped".

    Returns:
        JSON-ready rows: "kind" ("data", "teacher", "student" or "bundle"), "name", "data" (the data set), "images" of a
        data set, "px", "tokens", "findings" and "abnormal" (AUROCs) with their "split" and "auroc_data", "date", and of
        runs "exported" and "epochs" ([done, all] if unfinished). "problem" says why an artefact cannot be read.
    """
    bundles = [_model_row(folder, "bundle") for folder in workspace.bundles()]
    runs = [_model_row(folder, "") for folder in workspace.finished_runs()]
    exported = {row["sha256"] for row in bundles if "sha256" in row}
    for row in runs:
        row["exported"] = row.get("sha256") in exported
    rows = [_data_row(folder) for folder in workspace.datasets()]
    rows += [*map(_unfinished_row, workspace.unfinished_runs()), *runs, *bundles]
    rows += [_model_row(folder, "bundle") | {"shipped": True} for folder in shipped]
    return [{key: value for key, value in row.items() if key != "sha256"} for row in rows]


def table(workspace: Workspace, rows: list[dict[str, Any]]) -> str:
    """Return the rows as a text table, by data set."""
    own = [row for row in rows if "shipped" not in row]
    shipped = [row for row in rows if "shipped" in row]
    lines = []
    if not own:
        empty = f"{workspace.root} is empty: begin with `edgecxr prepare` (`edgecxr prepare phantom` needs no data)"
        lines += ["", empty]
    for data in dict.fromkeys(row["data"] for row in own):
        mine = [row for row in own if row["data"] == data]
        of_data = next((row for row in mine if row["kind"] == "data"), {})
        images = f"{of_data['images']} images, {of_data['date']}" if "images" in of_data else "not in this workspace"
        cells = [_cells(row) for row in mine if row["kind"] != "data"]
        lines += ["", f"data set {data or '?'}: {of_data.get('problem', images)}"]
        lines += aligned([[*_HEADS, "exported"], *cells]) if cells else []
    if shipped:
        lines += ["", "comes with edgecxr, and is taken where there is no other bundle:"]
        lines += aligned([_HEADS, *[_cells(row)[: len(_HEADS)] for row in shipped]])
    if any("findings" in row for row in rows):
        lines += ["", "AUROC: findings (macro), normal/abnormal on the test split, or on that in brackets"]
    return joined(lines[1:])


def _cells(row: dict[str, Any]) -> list[str]:
    if "problem" in row:
        return [f"  {row['kind'] or 'run'}", row["name"], "", "", row["problem"]]
    areas = "-"
    if "findings" in row:
        split = "" if row["split"] == "test" else f" ({row['split']})"
        on_other = f" (on {row['auroc_data']})" if row["auroc_data"] != row["data"] else ""
        areas = f"{_area(row['findings'])} {_area(row['abnormal'])}{split}{on_other}"
    state = ("yes" if row["exported"] else "no") if "exported" in row else ""
    if "epochs" in row:
        state = f"at epoch {row['epochs'][0]} of {row['epochs'][1]}"
    return [f"  {row['kind']}", row["name"], str(row["px"]), str(row.get("tokens", "")), areas, row["date"], state]


def _area(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _data_row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "data", "name": folder.name, "data": folder.name, "date": _date(folder / DATASET)}
    try:
        prepared = Prepared.open(folder)
    except InputError:
        return row | {"problem": "damaged"}
    return row | {"images": len(prepared), "px": 224 if prepared.large is None else 448}


def _model_row(folder: Path, kind: str) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": kind, "name": folder.name, "data": "", "date": _date(folder / CARD)}
    try:
        card = read_card(folder)
    except ModelError:
        return row | {"problem": "damaged"}
    kind = kind or ("teacher" if card.method == "teacher" else "student")
    row |= {"kind": kind, "data": str(card.data.get("name", "")), "px": card.size, "tokens": card.tokens}
    return row | {"method": card.method, "sha256": card.sha256} | _aurocs(folder, card)


def _aurocs(folder: Path, card: ModelCard) -> dict[str, Any]:
    """Return the AUROCs of the last evaluation or the kept epoch."""
    own = str(card.data.get("name"))
    try:
        for key in (f"{own}/test", f"{own}/val", *reversed(card.metrics)):
            if key in card.metrics:
                record = card.metrics[key]
                areas = {"findings": record["findings"]["macro"], "abnormal": record["abnormal"]}
                aurocs = {task: area and float(area["auroc"]) for task, area in areas.items()}
                return aurocs | {"split": str(record["split"]), "auroc_data": str(record["data"])}
        history = _history(folder)
        kept = kept_epoch(history) if history else {}
        if kept and not math.isnan(kept["score"]):
            areas = {task: kept[f"val_auroc_{task}"] for task in ("findings", "abnormal")}
            aurocs = {task: None if math.isnan(area) else area for task, area in areas.items()}
            return aurocs | {"split": "val", "auroc_data": own}
    except (KeyError, TypeError, ValueError):  # a record of another version, or of others
        pass
    return {}


def _unfinished_row(folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"kind": "", "name": folder.name, "data": "", "date": _date(folder / CONFIG)}
    try:
        config = read_json(folder / CONFIG, _LARGEST)
        kind = "teacher" if config["method"] == "teacher" else "student"
        facts = {"kind": kind, "data": str(config["data"]), "px": int(config["size"]), "method": str(config["method"])}
        return row | facts | {"epochs": [len(_history(folder)), int(config["epochs"])]}
    except (OSError, ValueError, TypeError, KeyError, BadFile):
        return row | {"problem": "damaged"}


def _history(folder: Path) -> list[dict[str, float]]:
    try:
        return read_history(folder)
    except (OSError, ValueError, TypeError, BadFile):
        return []


def _date(file: Path) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(file.stat().st_mtime))


def as_json(rows: list[dict[str, Any]]) -> str:
    """Return the rows as one JSON array."""
    return json.dumps(rows)

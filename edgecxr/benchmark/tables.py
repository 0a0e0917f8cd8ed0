"""Benchmark records as tables, and the comparison of two records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgecxr.benchmark.record import Record, measured
from edgecxr.metrics import with_interval
from edgecxr.terminal import aligned, joined
from edgecxr.vocabulary import FEW_CASES

Row = dict[str, Any]
Cells = list[str]


def fastest(record: Record) -> dict[str, Row]:
    """Return each model's row of lowest median latency, the fastest first."""
    best: dict[str, Row] = {}
    for row in measured(record):
        if row["model"] not in best or row["latency_ms"]["p50"] < best[row["model"]]["latency_ms"]["p50"]:
            best[row["model"]] = row
    return dict(sorted(best.items(), key=lambda item: item[1]["latency_ms"]["p50"]))


def rival(record: Record, row: Row, against: str | None = None) -> Row | None:
    """Return the row of another model to compare a row with.

    Args:
        record: with both rows.
        row: of a model.
        against: name of the other model; None means the model's teacher.

    Returns:
        The other model's row of the same engine and precision; None if there is none, or if it is `row` itself.
    """
    name = against or record["models"][row["model"]]["compared_with"]
    for other in measured(record):
        if (other["model"], other["backend"], other["precision"]) == (name, row["backend"], row["precision"]):
            return other if other is not row else None
    return None


def times_faster(row: Row, other: Row | None) -> str:
    """Return the speed-up over another row.

    Returns:
        A text such as "12.30x"; "" if the other row is None.
    """
    return f"{other['latency_ms']['p50'] / row['latency_ms']['p50']:.2f}x" if other else ""


def summary(record: Record, against: str | None = None) -> str:
    """Return a record as tables for a terminal.

    The columns of `main_cells` are spread over several tables, whose rows have the same numbers.
    """
    lines = [*head(record), ""]
    rows, best = _all_cells(record, against), best_cells(record, against)
    places = {row["id"]: str(place) for place, row in enumerate(measured(record), 1)}
    for title, columns in _PARTS.items():
        if len(rows) > 1 and _filled([line[columns] for line in rows])[0]:
            part = _filled([[*line[:3], *line[columns]] if columns.start else line[columns] for line in rows])
            lines += [
                title.format(against or "its teacher"),
                *_narrow(["#", *places.values()], part, _NAMES[: columns.start]),
                "",
            ]
    if len(best) > 1:
        numbers = ["#", *(places[row["id"]] for row in fastest(record).values())]
        lines += [BEST_TITLE, *_narrow(numbers, best, ("engine", "precision", "ms p50", "model")), ""]
    lines += [*notes(record), record["notice"]]
    return joined(lines)


WIDTH = 100
"""Columns of a terminal that the tables fit into, unless the names of models are very long."""

BEST_TITLE = "Best against best: each model on its fastest engine and precision; AUROC minus its FP32 teacher's"


def main_title(against: str | None) -> str:
    """Return the title of the table of `main_cells`."""
    other = against or "its teacher"
    return f"Within one engine and precision; faster: than {other}; AUROC with 95 % interval, and minus its teacher's"


def _narrow(numbers: Cells, lines: list[Cells], dispensable: tuple[str, ...]) -> list[str]:
    """Return numbered rows as text, without columns that find no room."""
    lines = [[number, *line] for number, line in zip(numbers, lines, strict=True)]
    for name in ("", *dispensable):
        lines = [[cell for cell, head in zip(line, lines[0], strict=True) if head != name] for line in lines]
        if max(map(len, text := aligned(lines))) <= WIDTH:
            break
    return text


def head(record: Record) -> list[str]:
    """Return lines on the device, the settings, the data and the film."""
    settings, data = record["settings"], record["data"]
    lines = [
        f"{record['device']['name']}, {counted(settings['threads'], 'thread')}, "
        f"{counted(settings['passes'], 'pass', 'passes')}, {record['created'][:16].replace('T', ' ')} UTC"
        + ("" if record["complete"] else ": NOT COMPLETE")
    ]
    if data:
        made_up = ", synthetic phantom films" if data["phantom"] else ""
        lines.append(
            f"AUROC on {data['images']} {data['split']} films of {data['patients']} patients, {data['name']}{made_up}"
        )
    else:
        lines.append("Latency alone, without data to measure AUROC on: --data NAME, or FILE.npz of `edgecxr data pack`")
    if record["film"]:
        lines.append(f"The film from file to answer: {record['film']}")
    return lines


def notes(record: Record) -> list[str]:
    """Return lines on failures, missing engines, and reasons to doubt the figures."""
    lines = [f"warning: {text}" for text in record["warnings"]]
    reasons: dict[str, list[str]] = {}
    for backend, why in record["absent"].items():
        reasons.setdefault(why, []).append(backend)
    lines += [f"not here: {', '.join(backends)} ({why})" for why, backends in reasons.items()]
    lines += few(record)
    lines += [f"failed: {shown(ids)}: {why}" for why, ids in grouped(record, lambda row: row.get("reason"))]
    for row in measured(record):
        lines += [f"{row['id']} has no more {stage}: {why}" for stage, why in row.get("problems", {}).items()]
    lines += [f"no AUROC of {shown(ids)}: {why}" for why, ids in grouped(record, lambda row: row.get("no_auroc"))]
    foreign = [name for name, model in record["models"].items() if model["trained_on_other_data"]]
    if foreign:
        lines.append(f"trained on other data than {record['data']['name']}: {shown(foreign)}")
    for (meter, scope, watts), ids in grouped(record, _meter):
        lines.append(f"energy of {shown(ids)}: {meter}, {scope}, {watts:g} W at rest included")
    lines += [f"no energy: {why}" for why, _ in grouped(record, lambda row: row.get("energy", {}).get("absent"))]
    return lines


def few(record: Record) -> list[str]:
    """Return a line that names findings with too few films.

    Their AUROCs are unreliable. The list is empty if there are no such findings.
    """
    rows = (row["auroc"] for row in measured(record) if "auroc" in row)
    cases = {
        label: min(area["positives"], area["negatives"]) for auroc in rows for label, area in auroc["labels"].items()
    }
    scarce = [f"{label} {count}" for label, count in cases.items() if count < FEW_CASES]
    return [f"fewer than {FEW_CASES} films with or without it, AUROC uncertain: {', '.join(scarce)}"] if scarce else []


def counted(number: int, singular: str, more: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{number} {singular if number == 1 else more or singular + 's'}"


def grouped(record: Record, key: Callable[[Row], Any]) -> list[tuple[Any, list[str]]]:
    """Group the ids of rows by a key.

    Returns:
        Pairs of a value of the key and the ids of its rows; rows whose key is None are left out.
    """
    groups: dict[Any, list[str]] = {}
    for row in record["rows"]:
        if (value := key(row)) is not None:
            groups.setdefault(value, []).append(row["id"])
    return list(groups.items())


def shown(names: list[str]) -> str:
    """Return the first three names, and the number of further ones."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _meter(row: Row) -> tuple[str, str, float] | None:
    energy = row.get("energy", {})
    return (energy["meter"], energy["scope"], energy["idle_watts"]) if energy.get("batches") else None


HEADER = ["model", "engine", "precision", "px", "ms p50", "faster", "min", "p99", "images/s", "at batch",
          "file to answer ms", "start s", "memory MiB", "file MB", "mJ/image",
          "AUROC findings", "findings minus teacher's", "AUROC abnormal", "abnormal minus teacher's"]  # fmt: skip

_NAMES = ("engine", "precision", "model")
_PARTS = {
    "Latency of one image; faster: than {} on the same engine and precision": slice(0, 6),
    "The same rows: latency, throughput, start, memory": slice(6, 15),
    "AUROC with 95 % interval, and minus that of its teacher on the same engine and precision": slice(15, 17),
    "The same for normal/abnormal": slice(17, 19),
}
"""Titles and columns of the tables for a terminal."""


def main_cells(record: Record, against: str | None = None) -> list[Cells]:
    """Return a table with the measured rows, header first.

    Columns that are empty in every row are left out.
    """
    return _filled(_all_cells(record, against))


def _all_cells(record: Record, against: str | None) -> list[Cells]:
    lines = [HEADER]
    for row in measured(record):
        best = max((entry for entry in row["throughput"] if "ms" in entry), key=lambda entry: entry["images_per_s"])
        auroc, diff = row.get("auroc", {}), row.get("against_teacher", {})
        lines.append(
            [
                named(record, row["model"]),
                row["backend"],
                row["precision"],
                str(record["models"][row["model"]]["size"]),
                f"{row['latency_ms']['p50']:.2f}",
                times_faster(row, rival(record, row, against)),
                f"{row['latency_ms']['min']:.2f}",
                number(row["latency_ms"]["p99"], ".2f"),
                f"{best['images_per_s']:.0f}",
                str(best["batch"]),
                number(row.get("film_ms", {}).get("total", {}).get("p50"), ".0f"),
                f"{row['start_s']['total']:.2f}",
                number(row["memory_mib"]["host"], ".0f"),
                number(row["artefact"]["bytes"] / 1e6 if "artefact" in row else None, ".1f"),
                joules(row),
                area(auroc.get("findings")),
                change(diff.get("findings")),
                area(auroc.get("abnormal")),
                change(diff.get("abnormal")),
            ]
        )
    return lines


def best_cells(record: Record, against: str | None = None) -> list[Cells]:
    """Return a table of models on their fastest engine and precision.

    The header comes first, then the models, fastest first. Empty columns are left out.
    """
    best = fastest(record)
    lines = [["model", "engine", "precision", "ms p50", "faster", "findings", "abnormal"]]
    for row in best.values():
        other = best.get(against or record["models"][row["model"]]["compared_with"])
        diff = row.get("against_reference", {})
        lines.append(
            [
                named(record, row["model"]),
                row["backend"],
                row["precision"],
                f"{row['latency_ms']['p50']:.2f}",
                times_faster(row, other) if other is not row else "",
                change(diff.get("findings")),
                change(diff.get("abnormal")),
            ]
        )
    return _filled(lines)


def named(record: Record, model: str) -> str:
    """Return a model's name, with a remark if its weights are random."""
    return f"{model} (random weights)" if record["models"][model]["weights"] == "random" else model


def number(value: float | None, form: str) -> str:
    """Return a number as text, "" for None."""
    return "" if value is None else format(value, form)


def joules(row: Row) -> str:
    """Return the energy of one image at batch size 1 in millijoules.

    It is "" if it was not measured.
    """
    value = _joules(row)
    return f"{1000 * value:.2f}" if value else ""


def _joules(row: Row) -> float | None:
    alone = [batch["joules_per_image"] for batch in row["energy"].get("batches", []) if batch["batch"] == 1]
    return alone[0] if alone else None


def area(figures: dict[str, float] | None) -> str:
    """Return an AUROC with its interval, "" for None."""
    return with_interval(figures["auroc"], figures["low"], figures["high"]) if figures else ""


def change(figures: dict[str, float] | None) -> str:
    """Return a difference with its interval, "" for None."""
    return with_interval(figures["difference"], figures["low"], figures["high"], "+.3f") if figures else ""


def compare(a: Record, b: Record, names: tuple[str, str]) -> str:
    """Return a comparison of two records as text.

    It has the ratios (b / a) of the rows that they share, and lists their other rows.

    Args:
        a: the first record.
        b: the second, of another machine, version or day.
        names: of the two.
    """
    first, second = ({row["id"]: row for row in measured(record)} for record in (a, b))
    shared = [name for name in first if name in second]
    lines = [f"A: {names[0]}: {' '.join(head(a))}", f"B: {names[1]}: {' '.join(head(b))}", ""]
    properties = {
        "machines": [record["device"]["name"] for record in (a, b)],
        "numbers of threads": [record["settings"]["threads"] for record in (a, b)],
        "films": [record["film"] for record in (a, b)],
        "versions": [record["versions"] for record in (a, b)],
        "meters of energy": [sorted({meter[:2] for meter, _ in grouped(record, _meter)}) for record in (a, b)],
    }
    lines += [f"different {name}" for name, (x, y) in properties.items() if x != y]
    cells = [["B / A", "ms p50", "images/s", "start", "MiB", "file to answer", "mJ/image"]]
    for name in shared:
        x, y = first[name], second[name]
        same = all(x.get(key, {}).get("sha256") == y.get(key, {}).get("sha256") for key in ("artefact", "engine"))
        ratios = [_ratio(pick(x), pick(y)) for pick in _PICKS]
        if (_meter(x) or ())[:2] != (_meter(y) or ())[:2]:
            ratios[-1] = ""
        cells.append([name + ("" if same else " *"), *ratios])
    lines += aligned(_filled(cells)) if shared else ["no model, engine and precision that both have"]
    if any(line[0].endswith(" *") for line in cells):
        lines.append("* measured on another file of the model")
    for label, ids in (("A", first.keys() - second.keys()), ("B", second.keys() - first.keys())):
        if ids:
            lines.append(f"only in {label}: {', '.join(sorted(ids))}")
    return joined([*lines, a["notice"]])


def _most(row: Row) -> float:
    return max(entry["images_per_s"] for entry in row["throughput"] if "ms" in entry)


_PICKS = (
    lambda row: row["latency_ms"]["p50"],
    _most,
    lambda row: row["start_s"]["total"],
    lambda row: row["memory_mib"]["host"],
    lambda row: row.get("film_ms", {}).get("total", {}).get("p50"),
    _joules,
)


def _ratio(a: float | None, b: float | None) -> str:
    return f"{b / a:.2f}" if a and b else ""


def _filled(lines: list[Cells]) -> list[Cells]:
    """Return the table without columns that are empty but for the header."""
    kept = [i for i in range(len(lines[0])) if any(line[i] for line in lines[1:])]
    return [[line[i] for i in kept] for line in lines]

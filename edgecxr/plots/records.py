"""Plots of a benchmark record, as SVG."""

from __future__ import annotations

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from edgecxr.benchmark.record import Record, measured
from edgecxr.benchmark.tables import fastest, named
from edgecxr.plots.figure import drawn, name

_TASKS = (("findings", "findings (macro)"), ("abnormal", "normal/abnormal"))
_MARKERS = {"fp32": "o", "fp16": "s", "int8": "^"}
_STAGES = ("decode", "preprocess", "model")


def pictures(record: Record, chosen: dict[str, Any] | None) -> dict[str, bytes]:
    """Return title -> SVG of each plot with data in the record.

    Args:
        record: record of one device.
        chosen: the recommended row, if any.
    """
    shown = {
        "AUROC over latency": pareto(record, chosen),
        "AUROC by finding": findings(record),
        "From file to answer": breakdown(record),
    }
    return {title: picture for title, picture in shown.items() if picture}


def pareto(record: Record, chosen: dict[str, Any] | None) -> bytes | None:
    """Draw AUROCs over the median latency of one image.

    The Pareto front is a line.

    Args:
        record: record of one device.
        chosen: the recommended row, if any; it is marked by a ring.

    Returns:
        The SVG; None if no AUROC was measured.
    """
    rows = [row for row in measured(record) if "auroc" in row]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    colours = _colours(record, rows)
    scored = False
    for axes, (task, title) in zip(figure.subplots(1, 2), _TASKS, strict=True):
        points = [(row["latency_ms"]["p50"], row["auroc"][task], row) for row in rows if row["auroc"][task]]
        scored = scored or bool(points)
        for x, area, row in points:
            style = {"color": colours[row["model"]], "marker": _MARKERS[row["precision"]]}
            axes.errorbar(x, area["auroc"], _ends(area), capsize=2, alpha=0.8, linewidth=0.8, **style)
            if chosen and row["id"] == chosen["id"]:
                axes.plot(x, area["auroc"], marker="o", markersize=16, markerfacecolor="none", color="black")
        front = _front([(x, area["auroc"]) for x, area, _ in points])
        axes.plot(
            [x for x, _ in front], [y for _, y in front], color="0.6", linewidth=1, zorder=0, drawstyle="steps-post"
        )
        axes.set(xscale="log", xlabel="milliseconds for one image (median)", ylabel="AUROC", title=title)
        axes.grid(alpha=0.3, which="both")
        for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            axis(FuncFormatter(lambda value, _: f"{value:g}" if f"{value:g}".strip("0.")[:1] in "125" else ""))
    for model, colour in colours.items():
        figure.axes[0].plot([], [], color=colour, marker="o", linestyle="", label=name(model))
    for precision in dict.fromkeys(row["precision"] for row in rows):
        figure.axes[0].plot([], [], color="0.4", marker=_MARKERS[precision], linestyle="", label=precision)
    if not scored:
        return None
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return _svg(figure)


def findings(record: Record) -> bytes | None:
    """Draw the AUROC of each finding for each scored model.

    Each model is shown at its highest precision; models are in order of resolution, the highest first.

    Args:
        record: record of one device.

    Returns:
        The SVG; None if no AUROC was measured.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row in sorted(measured(record), key=lambda row: list(_MARKERS).index(row["precision"])):
        if row.get("auroc", {}).get("labels"):
            rows.setdefault(row["model"], row)
    labels = list(dict.fromkeys(label for row in rows.values() for label in row["auroc"]["labels"]))
    if not labels:
        return None
    figure = Figure(figsize=(11, max(3.0, 0.42 * len(labels) + 1.6)), layout="constrained")
    axes = figure.subplots()
    colours = _colours(record, list(rows.values()))
    order = sorted(rows, key=lambda model: -record["models"][model]["size"])
    for number, model in enumerate(order):
        shift = 0.7 * ((number + 0.5) / len(order) - 0.5)
        areas = rows[model]["auroc"]["labels"]
        places = [position for position, label in enumerate(labels) if label in areas]
        ends = [_ends(areas[labels[position]]) for position in places]
        axes.errorbar(
            [areas[labels[position]]["auroc"] for position in places],
            [position + shift for position in places],
            xerr=[[low for ((low,), _) in ends], [high for (_, (high,)) in ends]],
            **{"color": colours[model], "marker": "o", "markersize": 4, "linewidth": 0, "elinewidth": 0.8},
        )
        axes.plot(
            [], [], color=colours[model], marker="o", label=name(f"{model}, {record['models'][model]['size']} px")
        )
    axes.set_yticks(range(len(labels)), list(map(name, labels)))
    axes.invert_yaxis()
    axes.axvline(0.5, color="0.6", linewidth=1)
    axes.set(xlabel="AUROC with 95 % interval")
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return _svg(figure)


def breakdown(record: Record) -> bytes | None:
    """Draw the time of each stage from file to answer.

    Each model is shown on its fastest engine.

    Args:
        record: record of one device.

    Returns:
        The SVG; None if no file was read.
    """
    rows = [row for row in fastest(record).values() if "film_ms" in row]
    if not rows:
        return None
    rows.sort(key=lambda row: row["film_ms"]["total"]["p50"])
    figure = Figure(figsize=(11, 0.42 * len(rows) + 1.6), layout="constrained")
    axes: Axes = figure.subplots()
    start = [0.0] * len(rows)
    for stage, colour in zip(_STAGES, ("#6baed6", "#9ecae1", "#e6550d"), strict=True):
        values = [row["film_ms"][stage]["p50"] for row in rows]
        axes.barh(range(len(rows)), values, left=start, label=stage, color=colour)
        start = [a + b for a, b in zip(start, values, strict=True)]
    names = [f"{name(named(record, row['model']))}\n{name(row['backend'])} {row['precision']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds (medians)")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    return _svg(figure)


def _ends(area: dict[str, float]) -> list[list[float]]:
    """Return an interval's distances below and above its value."""
    return [[max(0.0, area["auroc"] - area["low"])], [max(0.0, area["high"] - area["auroc"])]]


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the Pareto front of (latency, AUROC) points, by latency."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _colours(record: Record, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return model -> colour, the highest resolution first."""
    models = dict.fromkeys(row["model"] for row in rows)
    order = sorted(models, key=lambda model: -record["models"][model]["size"])
    palette = matplotlib.colormaps["tab10" if len(order) <= 10 else "tab20"]
    return {model: palette(number % palette.N) for number, model in enumerate(order)}


def _svg(figure: Figure) -> bytes:
    return drawn(figure, format="svg", metadata={"Date": None})

"""Pictures of a benchmark's record, as SVG. Drawn by matplotlib."""

from __future__ import annotations

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from edgecxr.benchmark.record import Record, measured
from edgecxr.benchmark.tables import fastest, named

_TASKS = (("findings", "findings (macro)"), ("abnormal", "normal/abnormal"))
_MARKERS = {"fp32": "o", "fp16": "s", "int8": "^"}
_STAGES = ("decode", "preprocess", "model")


def pictures(record: Record, chosen: dict[str, Any] | None) -> dict[str, bytes]:
    """Return title -> SVG of all that a record has something for.

    Args:
        record: of one device.
        chosen: the row that is recommended, if any.
    """
    drawn = {
        "AUROC over latency": pareto(record, chosen),
        "AUROC by finding": findings(record),
        "From file to answer": breakdown(record),
    }
    return {title: picture for title, picture in drawn.items() if picture}


def pareto(record: Record, chosen: dict[str, Any] | None) -> bytes | None:
    """Draw the AUROCs over the median latency of one image; the front of those that none beats in both is a line.

    Args:
        record: of one device.
        chosen: the row that is recommended, if any; it gets a ring.

    Returns:
        The SVG; None where no AUROC was measured.
    """
    rows = [row for row in measured(record) if "auroc" in row]
    figure = Figure(figsize=(11, 4.8), layout="constrained")
    colours = _colours(record, rows)
    drawn = False
    for axes, (task, title) in zip(figure.subplots(1, 2), _TASKS, strict=True):
        points = [(row["latency_ms"]["p50"], row["auroc"][task], row) for row in rows if row["auroc"][task]]
        drawn = drawn or bool(points)
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
        figure.axes[0].plot([], [], color=colour, marker="o", linestyle="", label=model)
    for precision in dict.fromkeys(row["precision"] for row in rows):
        figure.axes[0].plot([], [], color="0.4", marker=_MARKERS[precision], linestyle="", label=precision)
    if not drawn:
        return None
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return _svg(figure)


def findings(record: Record) -> bytes | None:
    """Draw the AUROC of each finding, by every model that was scored, at its highest precision; by resolution.

    Args:
        record: of one device.

    Returns:
        The SVG; None where no AUROC was measured.
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
        for place, label in enumerate(labels):
            area = rows[model]["auroc"]["labels"].get(label)
            if area:
                style = {"color": colours[model], "marker": "o", "markersize": 4, "linewidth": 0.8}
                axes.errorbar(area["auroc"], place + shift, xerr=_ends(area), **style)
        axes.plot([], [], color=colours[model], marker="o", label=f"{model}, {record['models'][model]['size']} px")
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.axvline(0.5, color="0.6", linewidth=1)
    axes.set(xlabel="AUROC with 95 % interval")
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return _svg(figure)


def breakdown(record: Record) -> bytes | None:
    """Draw where the time from a file to an answer goes, for each model on its fastest engine.

    Args:
        record: of one device.

    Returns:
        The SVG; None where no file was read.
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
    names = [f"{named(record, row['model'])}\n{row['backend']} {row['precision']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize="small")
    axes.invert_yaxis()
    axes.set(xlabel="milliseconds (medians)")
    axes.grid(alpha=0.3, axis="x")
    axes.legend()
    return _svg(figure)


def _ends(area: dict[str, float]) -> list[list[float]]:
    """Return how far an interval reaches below and above its value."""
    return [[max(0.0, area["auroc"] - area["low"])], [max(0.0, area["high"] - area["auroc"])]]


def _front(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both latency and AUROC, by latency."""
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
    picture = io.BytesIO()
    figure.savefig(picture, format="svg", metadata={"Date": None})
    return picture.getvalue()

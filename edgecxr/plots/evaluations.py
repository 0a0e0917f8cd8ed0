"""Plots of an evaluation: reliability, results by size of finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgecxr import metrics
from edgecxr.bundle.tested import is_reliable, marked
from edgecxr.plots.figure import name, save
from edgecxr.vocabulary import ABNORMAL


def reliability(calibration: dict[str, Any], title: str, path: Path) -> Path:
    """Draw the observed rate over the predicted probability.

    The numbers of predictions are drawn below.

    Args:
        calibration: "calibration" of a record of `edgecxr.evaluate.scores.evaluate`.
        title: title of the figure.
        path: path of the PNG.
    """
    shown = {task: scores for task, scores in calibration.items() if scores}
    figure = Figure(figsize=(4.6 * max(1, len(shown)), 5.2), layout="constrained")
    figure.suptitle(name(title))
    grid = figure.subplots(2, max(1, len(shown)), sharex=True, squeeze=False, height_ratios=(3, 1))
    for (upper, lower), (task, scores) in zip(grid.T, shown.items(), strict=False):
        counts, predicted, observed = zip(*scores["bins"], strict=True)
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        upper.plot(predicted, observed, marker="o")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed rate", title=f"{task}: ECE {scores['ece']:.3f}")
        lower.bar(predicted, counts, width=0.05)
        lower.set(xlabel="predicted probability", ylabel="predictions")
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
    return save(figure, path)


def roc(columns: dict[str, tuple[Any, Any]], record: dict[str, Any], title: str, path: Path) -> Path:
    """Draw the ROC and the precision-recall curve of each finding.

    Args:
        columns: label or "abnormal" -> targets (N,) and scores (N,).
        record: record of `edgecxr.evaluate.scores.evaluate` for the same films, for the areas in the legend.
        title: title of the figure.
        path: path of the PNG.
    """
    rows = record["findings"]["labels"] | ({ABNORMAL: record["abnormal"]} if record["abnormal"] else {})
    height = 5.2 + 0.2 * len(rows)
    figure = Figure(figsize=(11, height), layout="constrained")
    figure.suptitle(name(title))
    left, right = figure.subplots(1, 2)
    for number, (label, row) in enumerate(rows.items()):
        wrong, sensitivity, precision = metrics.curve(*columns[label])
        style = {"color": f"C{number % 10}", "linestyle": ("-", "--", ":")[number // 10 % 3]}
        shown = "normal/abnormal" if label == ABNORMAL else label
        shown = marked(shown, not is_reliable(row["low"]))
        areas = [f"{name(shown)}: {row[kind]:.3f}, n = {row['positives']}" for kind in ("auroc", "auprc")]
        left.plot([0, *wrong], [0, *sensitivity], label=areas[0], **style)
        right.plot(sensitivity, precision, label=areas[1], **style)
    left.plot([0, 1], [0, 1], color="0.6", linewidth=1)
    left.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC (AUROC)")
    right.set(xlabel="sensitivity (recall)", ylabel="precision", title="precision-recall (AUPRC)")
    for axes in (left, right):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        axes.grid(alpha=0.3)
        # Below the axes, where no curve runs.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize="small", frameon=False)
    return save(figure, path)


def by_size(record: dict[str, Any], path: Path) -> Path:
    """Draw each model's AUROC and hit rate by size of finding.

    Args:
        record: record of `edgecxr.evaluate.by_size.by_size`.
        path: path of the PNG.
    """
    groups = [group for group in record["sizes"] if group["size"] != "all sizes"]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(
        f"{name(record['data'])}{', synthetic films' if record['phantom'] else ''}: results by size of finding"
    )
    left, right = figure.subplots(1, 2)
    ticks = [f"{g['size']}\n{g['side_px'][0]:.0f}-{g['side_px'][1]:.0f} px, n = {g['cases']}" for g in groups]
    for axes, key in ((left, "auroc"), (right, "hit_rate")):
        for number, model in enumerate(record["models"]):
            shift = 0.08 * (number - (len(record["models"]) - 1) / 2)
            points = [(i + shift, g["rows"][number][key]) for i, g in enumerate(groups) if g["rows"][number][key]]
            if points:
                x, rows = zip(*points, strict=True)
                values = [row["value"] for row in rows]
                ends = [[max(0.0, row["value"] - row["low"]) for row in rows]]
                ends += [[max(0.0, row["high"] - row["value"]) for row in rows]]
                axes.errorbar(x, values, ends, marker="o", capsize=3, label=name(f"{model['name']}, {model['px']} px"))
        axes.set_xticks(range(len(groups)), ticks)
        axes.grid(alpha=0.3)
    left.set(ylabel="AUROC, mean over the findings of a size", xlabel="side of the box at 224 px")
    right.set(ylabel="hit rate of the pointing game", xlabel="side of the box at 224 px", ylim=(0, 1))
    chance = [group["chance_hit_rate"] for group in groups]
    right.plot(range(len(groups)), chance, color="0.5", linestyle=":", label="a point anywhere")
    right.legend(fontsize="small")
    return save(figure, path)

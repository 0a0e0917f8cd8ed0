"""Pictures of a workstation: training curves, reliability, results by the size of a finding. Drawn by matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgecxr.storage.atomic import atomic_write

DPI = 120


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    atomic_write(path, picture.getvalue())
    return path


def curves(history: list[dict[str, Any]], title: str, path: Path) -> Path:
    """Draw the losses and the validation AUROCs by epoch.

    Args:
        history: one row for each epoch, as history.csv has them.
        title: of the figure.
        path: of the PNG.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    dots = "." if len(epochs) < 30 else ""
    parts = [key for key in history[0] if key == "loss" or key.startswith(("bce_", "kd_"))]
    for key in parts:
        left.plot(epochs, [row[key] for row in history], label=key.replace("_", " "), marker=dots)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log", title=title)
    for key, label in (("val_auroc_findings", "findings (macro)"), ("val_auroc_abnormal", "normal/abnormal")):
        right.plot(epochs, [row[key] for row in history], label=label, marker=dots)
    right.set(xlabel="epoch", ylabel="validation AUROC", ylim=(0.4, 1))
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return save(figure, path)


def reliability(calibration: dict[str, Any], title: str, path: Path) -> Path:
    """Draw the observed rate over the predicted probability, with the number of predictions below.

    Args:
        calibration: of a record of `edgecxr.evaluate.scores.evaluate`.
        title: of the figure.
        path: of the PNG.
    """
    shown = {task: found for task, found in calibration.items() if found}
    figure = Figure(figsize=(4.6 * max(1, len(shown)), 5.2), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(2, max(1, len(shown)), sharex=True, squeeze=False, height_ratios=(3, 1))
    for (upper, lower), (task, found) in zip(grid.T, shown.items(), strict=False):
        counts, predicted, observed = zip(*found["bins"], strict=True)
        upper.plot([0, 1], [0, 1], color="0.6", linewidth=1)
        upper.plot(predicted, observed, marker="o")
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="observed rate", title=f"{task}: ECE {found['ece']:.3f}")
        lower.bar(predicted, counts, width=0.05)
        lower.set(xlabel="predicted probability", ylabel="predictions")
        for axes in (upper, lower):
            axes.grid(alpha=0.3)
    return save(figure, path)


def by_size(record: dict[str, Any], path: Path) -> Path:
    """Draw AUROC and hit rate of each model by the size of findings.

    Args:
        record: of `edgecxr.evaluate.by_size.by_size`.
        path: of the PNG.
    """
    groups = [group for group in record["sizes"] if group["size"] != "all sizes"]
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    figure.suptitle(f"{record['data']}{', synthetic films' if record['phantom'] else ''}: results by size of finding")
    left, right = figure.subplots(1, 2)
    ticks = [f"{g['size']}\n{g['side_px'][0]:.0f}-{g['side_px'][1]:.0f} px, n = {g['cases']}" for g in groups]
    for axes, key in ((left, "auroc"), (right, "hit_rate")):
        for number, model in enumerate(record["models"]):
            shift = 0.08 * (number - (len(record["models"]) - 1) / 2)
            points = [(i + shift, g["rows"][number][key]) for i, g in enumerate(groups) if g["rows"][number][key]]
            if points:
                x, found = zip(*points, strict=True)
                values = [row["value"] for row in found]
                ends = [[max(0.0, row["value"] - row["low"]) for row in found]]
                ends += [[max(0.0, row["high"] - row["value"]) for row in found]]
                axes.errorbar(x, values, ends, marker="o", capsize=3, label=f"{model['name']}, {model['px']} px")
        axes.set_xticks(range(len(groups)), ticks)
        axes.grid(alpha=0.3)
    left.set(ylabel="AUROC, mean over the findings of a size", xlabel="side of the box at 224 px")
    right.set(ylabel="hit rate of the pointing game", xlabel="side of the box at 224 px", ylim=(0, 1))
    chance = [group["chance_hit_rate"] for group in groups]
    right.plot(range(len(groups)), chance, color="0.5", linestyle=":", label="a point anywhere")
    right.legend(fontsize="small")
    return save(figure, path)

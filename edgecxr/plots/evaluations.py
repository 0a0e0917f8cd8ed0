"""Pictures of an evaluation: reliability, results by the size of a finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgecxr.plots.figure import save


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

"""Plot of training curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from edgecxr.plots.figure import name, save


def curves(history: list[dict[str, Any]], kept: int, title: str, path: Path) -> Path:
    """Draw the losses and the validation AUROCs by epoch.

    Args:
        history: one row for each epoch, as in history.csv.
        kept: number of the epoch whose weights were kept.
        title: title of the figure.
        path: path of the PNG.
    """
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    figure.suptitle(name(title))
    left, right = figure.subplots(1, 2)
    epochs = [row["epoch"] for row in history]
    dots = "." if len(epochs) < 30 else ""
    losses = [key for key in history[0] if key in ("loss", "distillation") or key.startswith(("bce_", "kd_"))]
    for key in losses:
        left.plot(epochs, [row[key] for row in history], label=name(key.replace("_", " ")), marker=dots)
    # A loss of 0 has no place on a logarithmic axis.
    positive = all(row[key] > 0 for row in history for key in losses)
    left.set(xlabel="epoch", ylabel="training loss", yscale="log" if positive else "linear")
    if positive:  # 0.6, not 6 x 10^-1
        left.yaxis.set_major_formatter(LogFormatter())
        left.yaxis.set_minor_formatter(LogFormatter())
    for key, label in (("val_auroc_findings", "findings (macro)"), ("val_auroc_abnormal", "normal/abnormal")):
        right.plot(epochs, [row[key] for row in history], label=label, marker=dots)
    right.set(xlabel="epoch", ylabel="validation AUROC")
    right.axvline(kept, color="0.5", linestyle=":", label="kept epoch")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        # Below the axes, where no curve runs.
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize="small", frameon=False)
        axes.grid(alpha=0.3)
    return save(figure, path)

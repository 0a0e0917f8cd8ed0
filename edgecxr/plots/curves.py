"""Training curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgecxr.plots.figure import save


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

"""Plot of what INT8 costs, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from edgecxr.plots.figure import name, save

if TYPE_CHECKING:
    from edgecxr.export.sensitivity import Cost


def int8_cost(costs: Sequence[Cost], tasks: Sequence[str], title: str, path: Path) -> Path:
    """Draw each layer's logit difference and AUROC drop.

    The worst layer is at the top.

    Args:
        costs: costs from `edgecxr.export.sensitivity.analyse`, the worst first.
        tasks: keys of the drops.
        title: title of the figure.
        path: path of the PNG.
    """
    figure = Figure(figsize=(8, 1.5 + 0.2 * len(costs)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [name(cost.layer) for cost in reversed(costs)]
    left.barh(names, [cost.rms for cost in reversed(costs)])
    left.set(xlabel="RMS difference of logits", title=name(title))
    for task in tasks:
        right.plot([cost.drop[task] for cost in reversed(costs)], names, ".", label=task)
    right.axvline(0, color="grey", linewidth=0.5)
    right.set(xlabel="AUROC drop")
    right.legend()
    return save(figure, path)

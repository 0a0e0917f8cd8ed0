"""What INT8 costs layer by layer, as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from edgecxr.plots.figure import save

if TYPE_CHECKING:
    from edgecxr.export.sensitivity import Cost


def int8_cost(costs: Sequence[Cost], tasks: Sequence[str], title: str, path: Path) -> Path:
    """Draw the difference of the logits and the AUROC drop of each layer, the worst above.

    Args:
        costs: of `edgecxr.export.sensitivity.analyse`, the worst first.
        tasks: keys of their drops.
        title: of the figure.
        path: of the PNG.
    """
    figure = Figure(figsize=(8, 1.5 + 0.2 * len(costs)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    names = [cost.layer for cost in reversed(costs)]
    left.barh(names, [cost.rms for cost in reversed(costs)])
    left.set(xlabel="RMS difference of logits", title=title)
    for task in tasks:
        right.plot([cost.drop[task] for cost in reversed(costs)], names, ".", label=task)
    right.axvline(0, color="grey", linewidth=0.5)
    right.set(xlabel="AUROC drop")
    right.legend()
    return save(figure, path)

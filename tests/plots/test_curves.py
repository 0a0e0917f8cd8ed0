"""Every curve of a training is inside its axes, and no legend lies on one."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.plots import curves as module

AREA = st.floats(0, 1) | st.just(math.nan)
LOSS = st.floats(0, 100)


@st.composite
def histories(draw):
    rows = draw(st.lists(st.tuples(LOSS, LOSS, AREA, AREA), min_size=1, max_size=40))
    return [
        {"epoch": number, "lr": 0.1, "loss": a + b, "bce_findings": a, "distillation": b,
         "val_auroc_findings": c, "val_auroc_abnormal": d, "score": c}
        for number, (a, b, c, d) in enumerate(rows, 1)
    ]  # fmt: skip


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(histories())
def test_no_value_is_cut_and_no_legend_covers_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history):
    drawn = []
    monkeypatch.setattr(module, "save", lambda figure, path: drawn.append(figure) or path)
    module.curves(history, 1, "run on data", tmp_path / "curves.png")
    figure = drawn[0]
    figure.savefig(tmp_path / "curves.png")
    left, right = figure.axes
    assert {line.get_label() for line in left.lines} == {"loss", "bce findings", "distillation"}
    for axes in (left, right):
        low, high = axes.get_ylim()
        for line in axes.lines[:3] if axes is left else axes.lines[:2]:
            assert all(low <= y <= high for y in line.get_ydata() if not math.isnan(y))
        shown = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
        assert shown and all(tick == round(tick) for tick in shown)
        legend, area = axes.get_legend().get_window_extent(), axes.get_window_extent()
        assert legend.y1 <= area.y0

"""What INT8 costs, layer by layer."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image

from edgecxr.export import sensitivity
from edgecxr.export.export_bundle import layer_costs
from edgecxr.export.lower_precision import weighted_layers
from edgecxr.export.recipe import Recipe


@pytest.fixture(scope="module")
def costs(finished, films, tmp_path_factory):
    return layer_costs(finished.student, films, Recipe(calibration_methods=("minmax",)), tmp_path_factory.mktemp("s"))


def test_every_layer_is_tried_alone_and_the_worst_comes_first(costs, complete):
    layers = weighted_layers(complete.path / "model.onnx")
    assert sorted(cost.layer for cost in costs) == sorted(layers)
    assert [cost.rms for cost in costs] == sorted((cost.rms for cost in costs), reverse=True)
    # One layer costs something, and less than all together.
    together = complete.card.artefacts["model.int8.onnx"]["calibration"]["tried"][0]["rms_logit_difference"]
    assert 0 < costs[0].rms < together
    assert sensitivity.worst(costs, 2) == (costs[0].layer, costs[1].layer)


def test_the_table_shows_the_worst_and_counts_the_rest(costs):
    lines = sensitivity.table(costs, rows=3).splitlines()
    assert lines[1].startswith(costs[0].layer) and len(lines) == 5
    assert lines[-1] == f"and {len(costs) - 3} layers that cost less"


def test_numbers_and_picture_are_written(costs, tmp_path):
    numbers, picture = sensitivity.write(costs, tmp_path, "a student")
    rows = list(csv.DictReader(numbers.open()))
    assert [row["layer"] for row in rows] == [cost.layer for cost in costs]
    assert [float(row["rms"]) for row in rows] == pytest.approx([cost.rms for cost in costs])
    assert float(rows[0]["auroc_drop_findings"]) == pytest.approx(costs[0].drop["findings"], nan_ok=True)
    assert np.asarray(Image.open(picture)).std() > 5

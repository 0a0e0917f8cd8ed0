from __future__ import annotations

import json
import re

import numpy as np
import pytest

from edgecxr.errors import InputError
from edgecxr.evaluate.by_size import TOLERANCE, by_size, cases_of, hit_rate, hits, table
from edgecxr.metrics import auroc
from edgecxr.plots import evaluations
from tests.conftest import LABELS
from tests.evaluate.boxed import answered, boxed


def test_a_case_is_a_finding_of_a_film_and_as_large_as_its_largest_box(tmp_path):
    cases = cases_of(boxed(tmp_path / "x"), "test")
    assert cases.image.tolist() == [0, 1, 2, 3, 4, 5]
    assert cases.label.tolist() == [0, 0, 0, 1, 1, 1]
    assert cases.side == pytest.approx([10, 40, 100, 12, 46, 110])
    # The area that counts as a hit, by hand: a box and 15 px around it, cut off at the edge.
    assert cases.chance[0] * 224**2 == pytest.approx((20 + TOLERANCE) ** 2)
    assert cases.chance[1] * 224**2 == pytest.approx((40 + 2 * TOLERANCE) ** 2)
    assert cases_of(boxed(tmp_path / "y"), "val").side.tolist() == [224]


def test_the_pointing_game_by_hand(tmp_path):
    prepared = boxed(tmp_path / "x")
    # A grid of 7: patches of 32 px, their centres at 16, 48, 80 ...
    #          in box  near  second box  too far  in box  in box
    cells = [0, 3 * 7 + 4, 4 * 7 + 4, 1 * 7 + 5, 2 * 7 + 2, 4 * 7 + 1] + [0] * 6
    model = answered(prepared, np.zeros((12, 2)), cells)
    assert hits(cases_of(prepared, "test"), model.outputs.attention).tolist() == [True, True, True, False, True, True]
    # A point at (16, 16) is hit by a finer grid too, and missed one patch of 16 px further on.
    fine = answered(prepared, np.zeros((12, 2)), [14 + 1] + [14 * 3 + 3] + [0] * 10, grid=14)
    assert hits(cases_of(prepared, "test"), fine.outputs.attention).tolist()[:2] == [True, False]


def test_a_hit_rate_counts_an_image_as_often_as_it_was_drawn():
    rate = hit_rate(np.array([True, False]), np.array([[1.0, 1], [2, 0], [0, 2], [0, 0]]))
    assert (rate.value, rate.low >= 0, rate.high <= 1) == (0.5, True, True)


def test_each_size_is_scored_against_all_films_without_the_finding(tmp_path):
    prepared = boxed(tmp_path / "x", copies=6)
    rng = np.random.default_rng(1)
    findings = rng.normal(size=(72, 2))
    model, blind = (
        answered(prepared, logits, [0] * 72, name=name)
        for name, logits in (("sees", findings), ("blind", findings * 0))
    )
    record = by_size([model, blind], "test", replicates=100)
    json.dumps(record, allow_nan=False)
    assert [group["size"] for group in record["sizes"]] == ["small", "medium", "large", "all sizes"]
    assert [group["cases"] for group in record["sizes"]] == [12, 12, 12, 36]
    small = record["sizes"][0]
    assert small["side_px"] == pytest.approx([10, 12])
    assert small["labels"] == list(LABELS)
    targets = prepared.targets[prepared.rows("test")]
    expected = []
    for label, film in ((0, 0), (1, 3)):  # the small ones
        positive = np.arange(72) % 12 == film
        counted = positive | (targets[:, label] == 0)
        expected.append(auroc(positive[counted].astype(float), findings[counted, label]))
    assert small["rows"][0]["auroc"]["value"] == pytest.approx(np.mean(expected))
    assert small["rows"][0]["against_first"] is None
    assert small["rows"][1]["auroc"]["value"] == 0.5
    assert small["rows"][1]["against_first"]["value"] == pytest.approx(0.5 - np.mean(expected))
    # Both look at the upper left patch, whose centre is (16, 16): there lies one of the two small findings.
    assert small["rows"][0]["hit_rate"]["value"] == 0.5
    area = ((20 + TOLERANCE) ** 2 + (24 - 12 + TOLERANCE) * 0 + (224 - 200 + TOLERANCE) * (22 + TOLERANCE)) / 2
    assert small["chance_hit_rate"] == pytest.approx(area / 224**2, rel=0.05)


def test_a_finding_with_few_cases_has_a_hit_rate_and_no_auroc(tmp_path):
    prepared = boxed(tmp_path / "x")
    record = by_size([answered(prepared, np.zeros((12, 2)), [0] * 12)], "test", replicates=20)
    assert all(group["labels"] == [] and group["rows"][0]["auroc"] is None for group in record["sizes"])
    assert all(0 <= group["rows"][0]["hit_rate"]["value"] <= 1 for group in record["sizes"])
    assert re.search(r"no AUROC: .*finding has 5", table(record))
    assert "2 cases (! fewer than 20" in table(record)


def test_the_table_states_sizes_in_the_student_s_own_pixels_and_the_plot_is_drawn(tmp_path):
    prepared = boxed(tmp_path / "x", copies=6)
    rng = np.random.default_rng(0)
    models = [answered(prepared, rng.normal(size=(72, 2)), [0] * 72, name=f"m{size}", size=size) for size in (224, 28)]
    record = by_size(models, "test", replicates=50)
    lines = table(record).splitlines()
    assert "Compare models within a" in lines[2]
    assert re.search(r"10 to 12 px .*224 px, 12 cases \(! fewer than 20: hits .*\); AUROC of", lines[4])
    assert lines[6].split()[:4] == ["m224", "224", "px", "10.0-12.0"]
    assert lines[7].split()[:4] == ["m28", "28", "px", "1.2-1.5"]
    assert "not for diagnosis" in lines[-1]
    assert evaluations.by_size(record, tmp_path / "by-size.png").read_bytes().startswith(b"\x89PNG")


def test_data_without_boxes_are_refused_with_the_way_out(clinic):
    with pytest.raises(InputError, match=r"no boxes of findings .*test split.*--boxes FILE") as error:
        cases_of(clinic, "test")
    assert error.value.reason == "dataset"

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgecxr.errors import InputError
from edgecxr.evaluate import explain
from tests.conftest import striped, write_prepared
from tests.evaluate.boxed import answered, boxed


def test_hit_rates_beside_chance(tmp_path):
    prepared = boxed(tmp_path / "x")
    cells = [0, 3 * 7 + 4, 4 * 7 + 4, 1 * 7 + 5, 2 * 7 + 2, 4 * 7 + 1] + [0] * 6
    models = [
        answered(prepared, np.zeros((12, 2)), shown, name=name) for name, shown in (("a", cells), ("b", [48] * 12))
    ]
    lines = explain.hit_table(models, "test", replicates=50).splitlines()
    assert lines[0].startswith("Pointing game on x test: 6 boxed findings")
    assert lines.pop(1).startswith("! fewer than 20")
    assert lines[1].split()[:4] == ["a", "28", "px", "0.833"]
    assert lines[2].split()[:4] == ["b", "28", "px", "0.000"]
    assert lines[3].startswith("a point anywhere")


def test_the_picture_has_a_column_for_each_size_and_model_and_marks_boxes_and_points(tmp_path):
    prepared = boxed(tmp_path / "x")
    models = [
        answered(prepared, np.zeros((12, 2)), [24] * 12, name=name, method=method)
        for name, method in (("t", "teacher"), ("u", "none"), ("m", "mlcak"))
    ]
    file = explain.draw(models, "test", 2, 0, tmp_path / "one.png")
    picture = np.asarray(Image.open(file).convert("RGB")).astype(int)
    assert picture.shape[1] == 5 * (280 + 10) + 10
    assert picture.shape[0] == 56 + 2 * (280 + 20 + 10) + 60
    for column in range(5):
        tile = picture[56 : 56 + 280, 10 + column * 290 :][:, :280]
        assert (tile == (88, 196, 255)).all(axis=2).sum() > 20  # a box
        coloured = np.ptp(tile[130:150, 130:150], axis=2).mean()  # the patch in the middle, where all models look
        assert coloured > 20 if column > 1 else coloured < 20
        assert ((tile[140, 134:147] == 255).all()) == (column > 1)  # the cross
    # Beside the film are the pixels of a student, each a square of 10 px.
    image = int(prepared.rows("test")[explain._choose(prepared, "test", 2, 0)[0]])
    squares = picture[56 : 56 + 280, 300 : 300 + 280][5::10, 5::10].mean(axis=2)
    assert np.isclose(squares, 255 * prepared.inputs(np.array([image]), 28)[0, 0], atol=1).mean() > 0.8  # but for boxes
    again = explain.draw(models, "test", 2, 0, tmp_path / "two.png")
    assert file.read_bytes() == again.read_bytes()
    assert explain.draw(models, "test", 2, 3, tmp_path / "other.png").read_bytes() != file.read_bytes()


def test_films_show_one_finding_after_the_other(tmp_path):
    prepared = boxed(tmp_path / "x", copies=4)
    for seed in range(4):
        chosen = explain._choose(prepared, "test", 2, seed) % 12
        assert {label for film in chosen for label in np.flatnonzero(prepared.targets[film])} == {0, 1}
    assert len(set(explain._choose(prepared, "test", 100, 0).tolist())) == 24


def test_without_boxes_abnormal_films_are_shown_and_no_rate_is_given(tmp_path, clinic):
    model = answered(clinic, np.zeros((12, 3)), [0] * 12)
    assert "no boxes in its test split: no hit rate" in explain.hit_table([model], "test")
    assert explain.draw([model], "test", 3, 0, tmp_path / "x.png").exists()
    images, targets, abnormal, _ = striped(8)
    healthy = write_prepared(tmp_path / "healthy", images, targets * 0, abnormal * 0, ["test"] * 8)
    with pytest.raises(InputError, match="no film in the test split of data set healthy is abnormal"):
        explain.draw([answered(healthy, np.zeros((8, 2)), [0] * 8)], "test", 3, 0, tmp_path / "y.png")

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest

from edgecxr.bundle.bundle import Bundle, write_bundle
from edgecxr.bundle.describe import describe
from edgecxr.bundle.gate import FILE
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, UsageError
from edgecxr.export.export_bundle import export_bundle
from edgecxr.export.fit_gate import fit, no_films, threshold_of
from edgecxr.export.not_chest import read_not_chest
from edgecxr.export.recipe import Recipe
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.read import film_of
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.predictor import Predictor
from tests.conftest import TrainedWorkspace, striped, write_prepared
from tests.films.dicom_files import film, write


def samples(count: int, seed: int) -> np.ndarray:
    """Return features with three directions of large variance among 20."""
    rng = np.random.default_rng(seed)
    spread = np.r_[9, 5, 3, np.full(17, 0.5)]
    return (3 + rng.normal(size=(count, 20)) * spread).astype(np.float32)


def test_a_gate_is_as_far_from_films_like_its_own_as_their_spread_says() -> None:
    gate = fit(samples(2000, 0), components=3)
    np.testing.assert_allclose(gate.variances, [81, 25, 9], rtol=0.15)
    assert gate.rest == pytest.approx(0.25, rel=0.05)
    like, unlike = gate.distances(samples(2000, 1)), gate.distances(samples(200, 2) + np.r_[np.zeros(19), 8])
    assert np.sqrt((like**2).mean()) == pytest.approx(1, abs=0.05)
    assert unlike.min() > like.max()


def test_few_films_give_few_components() -> None:
    assert len(fit(samples(16, 0)).variances) == 4 and len(fit(samples(400, 0)[:, :10], 5).variances) == 5


def test_the_threshold_lets_through_as_many_as_it_promises() -> None:
    rng = np.random.default_rng(0)
    refused = [np.mean(rng.gamma(9, size=2000) > threshold_of(rng.gamma(9, size=99), 0.02)) for _ in range(200)]
    assert np.mean(refused) <= 0.022, "on average over choices of the validation films"
    values = np.arange(1.0, 50)
    assert threshold_of(values, 0.02) == 49 and threshold_of(values, 0.1) == 45
    assert threshold_of(values[:10], 0.02) == 10, "of too few, the largest"


def test_what_is_no_film_is_made_of_films_and_differs_from_them() -> None:
    images = striped(5)[0]
    not_films = no_films(images)
    assert all(changed.shape == images.shape and changed.dtype == np.uint8 for changed in not_films.values())
    assert all((changed != images).mean() > 0.3 for changed in not_films.values())
    np.testing.assert_array_equal(not_films["exchanged"], 255 - images)
    np.testing.assert_array_equal(not_films["upside-down"][:, ::-1], images)
    np.testing.assert_array_equal(np.sort(not_films["in-pieces"].reshape(5, -1)), np.sort(images.reshape(5, -1)))
    turned = not_films["on-its-side"]
    assert turned[0, 0, 0] == images[0, 0, -1] and turned[0, -1, 0] == images[0, 0, 0]
    again = no_films(images)
    assert all(np.array_equal(again[kind], changed) for kind, changed in not_films.items())


def as_of_patients(bundle: Bundle, dest: Path) -> Bundle:
    """Return a copy of a bundle whose card does not say that its films are synthetic."""
    card = dataclasses.replace(bundle.card, data=bundle.card.data | {"phantom": False})
    names = [*card.artefacts, FILE]
    return write_bundle(dest, card, {name: bundle.path / name for name in names})


def test_a_bundle_knows_the_films_of_its_training_from_others(bundled: Bundle, films: Prepared, tmp_path: Path) -> None:
    card = bundled.card.gate
    assert set(card["thresholds"]) == set(card["rates"]) == {"fp32"} and card["fitted_on"]["images"] == 24
    for rate in card["rates"]["fp32"].values():
        assert 0 <= rate["low"] <= rate["refused"] / rate["images"] <= rate["high"] <= 1
        assert rate["value"] == pytest.approx(rate["refused"] / rate["images"], abs=1e-4)
    assert card["false_rejection"] == pytest.approx(1 / 13), "12 validation films promise no more"
    with Predictor(as_of_patients(bundled, tmp_path / "real")) as predictor:
        images = [films.images[row] for row in films.rows("test")[:12]]
        shown = [film_of(Radiograph(image.astype(np.float32) / 255, "film")) for image in images]
        results = predictor.look(shown)
        assert sum(isinstance(result, Prediction) for result in results) >= 9
        noise = np.random.default_rng(0).random((224, 224)).astype(np.float32)
        (refused,) = predictor.look([film_of(Radiograph(noise, "noise"))])
        assert isinstance(refused, Rejection) and refused.reason == "not-chest"
        assert refused.gate is not None and refused.gate.distance > refused.gate.threshold  # type: ignore[operator]


def test_a_gate_is_fitted_for_each_precision_with_a_threshold_of_its_own(complete: Bundle) -> None:
    gate = complete.card.gate
    assert set(gate["thresholds"]) == set(gate["usual"]) == set(gate["rates"]) == {"fp32", "fp16", "int8"}
    assert len({*gate["thresholds"].values()}) == 3
    assert all(gate["usual"][name] <= value < math.inf for name, value in gate["thresholds"].items())


def test_files_of_other_things_are_counted(finished: TrainedWorkspace, tmp_path: Path) -> None:
    folder = tmp_path / "others"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(3):
        noise = rng.integers(0, 4096, (90, 80)).astype(np.uint16)
        modality = "CT" if number else "DX"
        write(
            film(noise, BitsStored=12, Modality=modality, WindowCenter=2048, WindowWidth=4096), folder, f"{number}.dcm"
        )
    (folder / "broken.dcm").write_bytes(bytes(128) + b"DICM")
    others = read_not_chest(folder)
    assert len(others) == 3
    messages: list[str] = []
    bundle = export_bundle(
        finished.student,
        finished.prepared,
        tmp_path / "bundle",
        Recipe(precisions=("fp32",)),
        None,
        messages.append,
        others,
    )
    rates = bundle.card.gate["rates"]["fp32"]
    assert rates["given"]["images"] == rates["given-all-checks"]["images"] == 3
    assert rates["given"]["refused"] <= rates["given-all-checks"]["refused"] >= 2
    assert "quality gate: " in messages[-1] and f"--not-chest {rates['given']['refused']}/3" in messages[-1]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no film that"):
        read_not_chest(empty)
    for place, messages in ((tmp_path / "gone", "does not exist"), (folder / "0.dcm", "is a file")):
        with pytest.raises(UsageError, match=f"--not-chest .* {messages}"):
            read_not_chest(place)


def test_without_a_test_split_nothing_is_said_of_films_that_set_the_threshold(
    finished: TrainedWorkspace, tmp_path: Path
) -> None:
    images, targets, abnormal, _ = striped(60)
    targets = np.column_stack([targets, np.zeros(60, np.float32)])
    untested = write_prepared(
        tmp_path / "untested", images, targets, abnormal, ["train"] * 40 + ["val"] * 20, finished.prepared.labels
    )
    messages: list[str] = []
    recipe = Recipe(precisions=("fp32",))
    bundle = export_bundle(finished.student, untested, tmp_path / "bundle", recipe, None, messages.append)
    assert "films" not in bundle.card.gate["rates"]["fp32"] and "noise" in bundle.card.gate["rates"]["fp32"]
    assert "no test split" in messages[-1] and re.search(r"test films \(wrongly\) +-\n", describe(bundle))


def test_too_few_films_give_no_gate_and_say_so(finished: TrainedWorkspace, tmp_path: Path) -> None:
    images, targets, abnormal, _ = striped(30)
    targets = np.column_stack([targets, np.zeros(30, np.float32)])
    splits = ["train"] * 10 + ["val"] * 20
    few = write_prepared(tmp_path / "few", images, targets, abnormal, splits, finished.prepared.labels)
    messages: list[str] = []
    recipe = Recipe(precisions=("fp32",))
    bundle = export_bundle(finished.student, few, tmp_path / "bundle", recipe, None, messages.append)
    assert bundle.card.gate == {} and "quality gate: none" in messages[-1]
    with Predictor(bundle) as predictor:
        assert any(re.search(r"cannot tell whether .*chest film", warning) for warning in predictor.warnings)


def test_a_folder_that_cannot_be_is_refused() -> None:
    for folder in (Path("nowhere"), Path("/".join(["y"] * 2500))):
        with pytest.raises(UsageError, match=r"does not exist: .*films of other things"):
            read_not_chest(folder)

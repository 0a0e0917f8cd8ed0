from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import edgecxr
from edgecxr.bundle.bundle import read_sums
from edgecxr.bundle.describe import describe
from edgecxr.engines.backend import Outputs
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.films.image_file import from_array
from edgecxr.films.radiograph import FilmRead, Objection, Radiograph
from edgecxr.films.read import film_of, read_film
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.predictor import PHANTOM_WARNING, Predictor
from tests.tiny_bundle import LABELS, tiny_bundle, tiny_gate

FIRST, SECOND, THIRD = LABELS


def film(*means: float) -> np.ndarray:
    """Return (224, 224) pixels whose upper left, upper right, lower left, lower right have these values."""
    return np.array(means, np.float32).reshape(2, 2).repeat(112, axis=0).repeat(112, axis=1)


def save(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path)
    return path


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "bundle"))


def test_probabilities_are_the_sigmoid_of_the_logits(predictor: Predictor) -> None:
    # 51/255 and so on are exact in uint8, which every film passes through.
    prediction = predictor.predict(film(0.2, 0.4, 0.8, 1.0))
    assert prediction.findings == pytest.approx(
        {FIRST: sigmoid(-1.2), SECOND: sigmoid(-0.4), THIRD: sigmoid(1.2)}, abs=1e-5
    )
    assert prediction.abnormal == pytest.approx(sigmoid(4 * 0.6 - 2), abs=1e-5)
    assert prediction.attention.shape == (2, 2)
    assert prediction.attention.sum() == pytest.approx(1, abs=1e-5)
    assert prediction.model == "tiny-test"
    assert prediction.operating_point == "youden"
    assert prediction.thresholds == dict.fromkeys((*LABELS, "abnormal"), 0.5)
    assert prediction.warnings == ()


def test_temperature_divides_the_logit_before_the_sigmoid(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle", temperature={FIRST: 2.0, "abnormal": 0.5})
    prediction = Predictor(bundle).predict(film(0.2, 0.4, 0.8, 1.0))
    assert prediction.findings == pytest.approx(
        {FIRST: sigmoid(-0.6), SECOND: sigmoid(-0.4), THIRD: sigmoid(1.2)}, abs=1e-5
    )
    assert prediction.abnormal == pytest.approx(sigmoid(0.8), abs=1e-5)


def test_decisions_follow_the_chosen_operating_point(tmp_path: Path) -> None:
    rules = {
        "youden": {FIRST: 0.2, SECOND: 0.5, THIRD: 0.8, "abnormal": 0.5},
        "sensitive": {FIRST: 0.1, SECOND: 0.1, THIRD: 0.1, "abnormal": 0.99},
    }
    bundle = tiny_bundle(tmp_path / "bundle", operating_points=rules)
    pixels = film(0.2, 0.4, 0.8, 1.0)  # probabilities .23, .40, .77, abnormal .60
    assert Predictor(bundle).predict(pixels).decisions == {FIRST: True, SECOND: False, THIRD: False, "abnormal": True}
    assert Predictor(bundle, operating_point="sensitive").predict(pixels).decisions == {
        FIRST: True,
        SECOND: True,
        THIRD: True,
        "abnormal": False,
    }
    with pytest.raises(UsageError, match=r"no operating point 'f1' \(there are: youden, sensitive\)"):
        Predictor(bundle, operating_point="f1")


def test_a_probability_at_the_operating_point_is_positive(tmp_path: Path) -> None:
    # A black quadrant has the logit -2 exactly.
    at = 0.5 * (1 + math.tanh(-1))
    rules = {"youden": {FIRST: at, SECOND: math.nextafter(at, 1)}}
    prediction = Predictor(tiny_bundle(tmp_path / "bundle", operating_points=rules)).predict(film(0, 0, 0.6, 0.8))
    assert (prediction.decisions[FIRST], prediction.decisions[SECOND]) == (True, False)


def test_without_operating_points_a_half_decides_and_one_warning_says_so(tmp_path: Path) -> None:
    prediction = Predictor(tiny_bundle(tmp_path / "bundle", operating_points={})).predict(film(0.2, 0.4, 0.8, 1.0))
    assert prediction.decisions == {FIRST: False, SECOND: False, THIRD: True, "abnormal": True}
    (warning,) = prediction.warnings
    assert warning.endswith("no operating point for any label: decided at 0.5")


def test_labels_that_a_rule_leaves_out_are_named(tmp_path: Path) -> None:
    rules = {"youden": {FIRST: 0.9, THIRD: 0.9, "abnormal": 0.9}}
    prediction = Predictor(tiny_bundle(tmp_path / "bundle", operating_points=rules)).predict(film(0.2, 0.9, 0.8, 1.0))
    assert prediction.decisions == {FIRST: False, SECOND: True, THIRD: False, "abnormal": False}
    (warning,) = prediction.warnings
    assert warning.endswith(f"no operating point for {SECOND}: decided at 0.5")


def test_a_phantom_model_says_so_after_what_the_reader_said(tmp_path: Path) -> None:
    predictor = Predictor(tiny_bundle(tmp_path / "bundle", data={"phantom": True}))
    prediction = predictor.predict(Radiograph(film(0.2, 0.4, 0.8, 1.0), "a film", warnings=("read with care",)))
    assert prediction.warnings == ("read with care", PHANTOM_WARNING)
    assert prediction.source == "a film"


def test_a_path_a_film_and_its_pixels_give_the_same(predictor: Predictor, tmp_path: Path) -> None:
    pixels = film(0.2, 0.4, 0.8, 1.0)
    path = save(tmp_path / "film.png", pixels)
    of_path, of_film = predictor.predict(path), predictor.predict(Radiograph(pixels, "film"))
    assert of_path.findings == of_film.findings == predictor.predict(pixels).findings
    assert of_path.source == str(path)
    assert set(of_path.timings_ms) == {"read", "preprocess", "model"}
    assert set(of_film.timings_ms) == {"preprocess", "model"}
    assert all(ms > 0 for ms in of_path.timings_ms.values())


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_an_array_of_integers_is_read_as_the_image_file_that_holds_it(
    predictor: Predictor, tmp_path: Path, kind: type, white: int
) -> None:
    pixels = np.linspace(0, white, 300 * 260).reshape(300, 260).astype(kind)
    Image.fromarray(pixels).save(tmp_path / "film.png")
    of_array, of_file = predictor.predict(pixels), predictor.predict(str(tmp_path / "film.png"))
    assert (of_array.findings, of_array.warnings) == (of_file.findings, of_file.warnings)
    assert of_array.source == "array"


def test_full_white_of_integers_is_one(predictor: Predictor) -> None:
    pixels = film(0.2, 0.4, 0.8, 1.0)
    for white in (np.uint8(255), np.uint16(65535)):
        integers = np.round(pixels * white).astype(white.dtype)
        assert predictor.predict(integers).findings == predictor.predict(pixels).findings


def test_a_small_array_is_enlarged_with_a_warning(predictor: Predictor) -> None:
    (warning,) = predictor.predict(film(0.2, 0.4, 0.8, 1.0)[::2, ::2]).warnings
    assert "only 112 x 112 pixels" in warning


def test_a_model_of_448_px_sees_the_film_at_that_size(tmp_path: Path) -> None:
    predictor = Predictor(tiny_bundle(tmp_path / "bundle", size=448))
    pixels = film(0.2, 0.4, 0.8, 1.0).repeat(2, axis=0).repeat(2, axis=1)
    pixels[1:224, 1:224] = 0  # at 224 px, its border would be half as bright
    prediction = predictor.predict(pixels)
    assert prediction.findings[FIRST] == pytest.approx(sigmoid(4 * 0.2 * (1 - 223**2 / 224**2) - 2), abs=1e-5)
    assert prediction.warnings == ()
    for step in (2, 4):
        (warning,) = predictor.predict(pixels[::step, ::step]).warnings
        assert f"only {448 // step} x {448 // step} pixels" in warning and "enlarged to 448 x 448" in warning


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((224, 224), 255, np.float32), r"outside \[0, 1\]: divide them by full white, or give uint8"),
        (np.full((224, 224), np.nan, np.float32), r"outside \[0, 1\]"),
        (np.full((224, 224), -0.1), r"outside \[0, 1\]"),
        (np.zeros((1, 224, 224), np.float32), r"\(1, 224, 224\) is no film: give grey pixels \(H, W\)"),
        (np.zeros((224, 224, 3), np.uint8), r"give grey pixels \(H, W\)"),
        (np.zeros((0, 224), np.float32), r"give grey pixels \(H, W\)"),
        (np.zeros((224, 224), np.int64), "int64 .*give floats in"),
        (np.zeros((224, 224), bool), "bool .*give floats in"),
        (np.full((224, 224), None), "object .*give floats in"),
        (np.zeros((224, 224), np.float32), "array is blank"),
        (np.full((224, 224), 7, np.uint8), "array is blank"),
    ],
)
def test_arrays_that_are_no_film_are_rejected(predictor: Predictor, pixels: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        predictor.predict(pixels)


@pytest.mark.parametrize("source", [None, [[0.5]], 7, object()])
def test_what_is_neither_path_nor_array_is_a_wrong_use(predictor: Predictor, source: Any) -> None:
    with pytest.raises(UsageError, match=rf"path or an array .*not {type(source).__name__}"):
        predictor.predict(source)


@pytest.mark.parametrize(("source", "reason"), [("gone.dcm", "not-found"), ("", "not-an-image"), ("a\0b", "not-found")])
def test_a_path_that_is_no_film_is_rejected(
    predictor: Predictor, source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        predictor.predict(source)
    assert caught.value.reason == reason


def test_thresholds_that_rest_on_few_films_are_named_with_the_counts(tmp_path: Path) -> None:
    def warnings_of(counts: dict[str, Any]) -> tuple[str, ...]:
        bundle = tiny_bundle(tmp_path / "bundle", operating_counts=counts)
        return Predictor(bundle).predict(film(0.2, 0.4, 0.8, 1.0)).warnings

    enough = {"positives": 20, "negatives": 20}
    assert warnings_of({}) == warnings_of(dict.fromkeys((*LABELS, "abnormal"), enough)) == ()
    scarce = {FIRST: {"positives": 3, "negatives": 500}, SECOND: enough, "abnormal": {"positives": 19, "negatives": 4}}
    (warning,) = warnings_of(scarce)
    assert "fewer than 20 films" in warning
    assert warning.endswith(f": {FIRST} (3 positive), abnormal (19 positive, 4 negative)")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": {FIRST: 0.0}}, "temperature"),
        ({"size": 30}, "size 30"),
        ({"size": 56}, r"model\.onnx has image of 1 x 28 x 28 .*card\.json says images of 56 px"),
        ({"tokens": 49}, r"model\.onnx has attention of 2 x 2 .*card\.json says 49 tokens"),
        ({"labels": LABELS[:2], "operating_points": {}}, r"model\.onnx has findings of 3 .*card\.json says 2 labels"),
    ],
)
def test_a_card_that_does_not_fit_its_model_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    bundle = dataclasses.replace(bundle, card=dataclasses.replace(bundle.card, **changes))
    with pytest.raises(ModelError, match=message):
        Predictor(bundle).predict(film(0.2, 0.4, 0.8, 1.0))


@pytest.mark.parametrize("name", ["findings", "abnormal", "attention", "features"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_film_for_which_the_model_gives_no_numbers_costs_the_others_nothing(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, name: str, value: float
) -> None:
    real = predictor._backend.run
    films = [film_of(from_array(film(0.2, 0.4, 0.8, shade)), predictor.image_size) for shade in (1.0, 0.5, 0.9)]
    expected = predictor.look(films)

    def overflowing(images: np.ndarray) -> Outputs:
        outputs = real(images)
        dark = images[:, 0, -1, -1] < 0.6
        getattr(outputs, name)[dark] = value
        return outputs

    monkeypatch.setattr(predictor._backend, "run", overflowing)
    first, second, third = predictor.look(films)
    assert isinstance(second, Rejection) and second.reason == "no-numbers" and "export" in second.message
    for prediction, sound in ((first, expected[0]), (third, expected[2])):
        assert isinstance(prediction, Prediction) and isinstance(sound, Prediction)
        assert (prediction.findings, prediction.abnormal) == (sound.findings, sound.abnormal)
    with pytest.raises(InputError) as error:
        predictor.predict(film(0.2, 0.4, 0.8, 0.5))
    assert error.value.reason == "no-numbers"


def test_extreme_logits_become_certainty_without_a_warning(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ExtremeBackend:
        def run(self, images: np.ndarray) -> Outputs:
            return Outputs(np.array([[-1e4, 0, 1e4]]), np.array([-1e4]), np.full((1, 2, 2), 0.25), np.zeros((1, 4)))

    monkeypatch.setattr(predictor, "_backend", ExtremeBackend())
    with np.errstate(all="raise", under="ignore"):
        prediction = predictor.predict(film(0.2, 0.4, 0.8, 1.0))
    assert list(prediction.findings.values()) == [0.0, 0.5, 1.0]


def test_a_closed_predictor_says_so(predictor: Predictor) -> None:
    with predictor:
        predictor.predict(film(0.2, 0.4, 0.8, 1.0))
    with pytest.raises(ModelError, match="closed"):
        predictor.predict(film(0.2, 0.4, 0.8, 1.0))


def test_films_are_looked_at_together_as_they_are_alone(predictor: Predictor, tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{n}.png", film(0.2 + 0.2 * (n % 2), 0.4, 0.8, 1.0)) for n in range(3)]
    together = predictor.look([read_film(path) for path in paths])
    for path, prediction in zip(paths, together, strict=True):
        alone = predictor.predict(path)
        assert prediction.source == alone.source == str(path)
        assert prediction.findings == pytest.approx(alone.findings, abs=1e-6)
        assert set(prediction.timings_ms) == set(alone.timings_ms) == {"read", "preprocess", "model"}
        np.testing.assert_allclose(prediction.attention, alone.attention, atol=1e-6)


def gated(folder: Path, threshold: float = 0.5, usual: float = 0.4, **more: Any) -> Predictor:
    """Return a model for which a film is the farther off the brighter it is."""
    phantom = more.pop("phantom", False)
    bundle = tiny_bundle(folder, gate=tiny_gate(threshold, usual), data={"phantom": phantom})
    return Predictor(bundle, **more)


DARK, BRIGHT, WHITE = film(0.1, 0.2, 0.3, 0.2), film(0.5, 0.6, 0.7, 0.6), film(0.8, 0.9, 1.0, 0.9)
"""Distances of about .21, .60, .90; exchanged, of .80, .40 and .12."""


def test_a_film_unlike_those_of_the_training_is_refused(tmp_path: Path) -> None:
    predictor = gated(tmp_path / "bundle", usual=0.35)
    taken = predictor.predict(DARK)
    assert taken.gate.verdict == "pass" and taken.warnings == ()
    assert (taken.gate.distance, taken.gate.threshold) == (pytest.approx(0.2121, abs=0.002), 0.5)
    with pytest.raises(
        InputError, match=r"array is refused, .*not look like .*: give .*; --force .*force=True"
    ) as caught:
        predictor.predict(BRIGHT)
    assert caught.value.reason == "not-chest"
    assert caught.value.gate is not None and caught.value.gate.distance == pytest.approx(math.sqrt(0.365), abs=0.002)


def test_a_film_that_looks_right_once_exchanged_has_the_wrong_polarity(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"black and white .*exchanged.*PhotometricInterpretation") as caught:
        gated(tmp_path / "bundle").predict(WHITE)
    assert caught.value.reason == "polarity"


def objecting(pixels: np.ndarray, *reasons: str) -> FilmRead:
    return film_of(Radiograph(pixels, "film", objections=tuple(Objection(name, f"so {name}") for name in reasons)))


def test_what_a_file_says_against_itself_is_refused_before_the_model_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = gated(tmp_path / "bundle")
    batch_sizes = []
    run = predictor._backend.run
    monkeypatch.setattr(predictor._backend, "run", lambda images: batch_sizes.append(len(images)) or run(images))
    results = predictor.look([objecting(DARK, "view", "modality"), objecting(DARK), objecting(DARK, "view")])
    assert batch_sizes == [1]
    assert [getattr(result, "reason", "ok") for result in results] == ["modality", "ok", "view"]
    refused = results[0]
    assert isinstance(refused, Rejection) and refused.gate is not None
    assert (refused.gate.verdict, refused.gate.distance, refused.gate.threshold) == ("refuse", None, 0.5)
    assert [each.reason for each in refused.gate.objections] == ["modality", "view"], "the first is named"
    batch_sizes.clear()
    assert predictor.look([]) == [] and predictor.look([objecting(DARK, "view")])[0] and batch_sizes == []


def test_any_view_is_about_the_view_alone(tmp_path: Path) -> None:
    predictor = gated(tmp_path / "bundle", any_view=True)
    lateral, ct = predictor.look([objecting(DARK, "view"), objecting(DARK, "view", "modality")])
    assert isinstance(lateral, Prediction) and lateral.gate.objections == ()
    assert isinstance(ct, Rejection) and ct.reason == "modality"


def test_the_gate_can_be_overruled_and_the_result_says_so(tmp_path: Path) -> None:
    predictor = gated(tmp_path / "bundle", force=True)
    usual, both = predictor.look([objecting(DARK), objecting(WHITE, "modality")])
    assert isinstance(usual, Prediction) and (usual.gate.verdict, usual.warnings) == ("pass", ())
    assert isinstance(both, Prediction) and both.gate.verdict == "forced"
    assert [each.reason for each in both.gate.objections] == ["modality", "polarity"]
    assert both.warnings[1] == "so modality"
    assert re.fullmatch(r"the quality gate refuses .*\(modality, polarity\) .*overruled by --force", both.warnings[0])


def test_a_model_of_phantoms_only_warns(tmp_path: Path) -> None:
    predictor = gated(tmp_path / "bundle", phantom=True)
    (prediction,) = predictor.look([objecting(BRIGHT, "body-part")])
    assert isinstance(prediction, Prediction) and prediction.gate.verdict == "warn"
    assert prediction.warnings[0] == "so body-part" and prediction.warnings[-1] == PHANTOM_WARNING
    assert not any("overruled" in warning for warning in prediction.warnings)


def test_a_gate_of_few_validation_films_is_warned_of(tmp_path: Path) -> None:
    for share, warned in ((0.02, False), (0.05, False), (0.1, True)):
        gate = tiny_gate() | {"false_rejection": share}
        with Predictor(tiny_bundle(tmp_path / f"model-{share}", gate=gate)) as predictor:
            assert any("refuses about 10%" in warning for warning in predictor.warnings) is warned


def test_a_film_that_was_read_for_another_size_is_a_usage_error(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match=r"was read at 448 px, .*needs 224 px"):
        predictor.look([film_of(Radiograph(DARK, "film"), 448)])


def test_a_model_whose_features_its_gate_does_not_know_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model")
    np.save(bundle.path / "gate.npy", np.zeros((1, 5), np.float32))
    digest = hashlib.sha256((bundle.path / "gate.npy").read_bytes()).hexdigest()
    sums = (bundle.path / "SHA256SUMS").read_text().splitlines()
    sums = [f"{digest}  gate.npy" if line.endswith("gate.npy") else line for line in sums]
    (bundle.path / "SHA256SUMS").write_text("\n".join(sums) + "\n")
    card = dataclasses.replace(bundle.card, gate=bundle.card.gate | {"sha256": digest})
    with pytest.raises(ModelError, match=r"no features .*quality gate"):
        Predictor(dataclasses.replace(bundle, card=card, sums=read_sums(bundle.path)))


def test_features_that_the_gate_cannot_use_are_an_error(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    real = predictor._backend.run
    for features in (None, np.zeros((1, 3), np.float32), np.zeros((1, 4), int)):
        changed = lambda images, given=features: dataclasses.replace(real(images), features=given)  # noqa: E731
        monkeypatch.setattr(predictor._backend, "run", changed)
        with pytest.raises(ModelError, match=r"features .*quality gate"):
            predictor.predict(DARK)


def test_each_prediction_repeats_the_limits_on_the_card(tmp_path: Path) -> None:
    limits = ("not for adults", "few films of oedema")
    predictor = Predictor(tiny_bundle(tmp_path / "limited", limits=limits))
    film = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (64, 1))
    assert set(limits) <= set(predictor.predict(film).warnings)
    assert "not for adults" in describe(predictor.bundle)


def test_the_bundle_that_comes_with_edgecxr_says_what_its_results_hide() -> None:
    shipped = Path(edgecxr.__file__).parent / "bundles" / "research-28"
    assert any("adults" in warning for warning in Predictor(shipped).warnings)

"""What to build of a model, and how much it may lose."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecxr.engines.target import load_target
from edgecxr.errors import UsageError
from edgecxr.export.recipe import METHODS, Recipe, choose, load_recipe
from tests.cli_workspace import edgecxr
from tests.tiny_bundle import tiny_card


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


def test_an_empty_file_is_what_export_does_without_one(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, ""))
    assert recipe == Recipe() == choose(None, False, False, None)
    assert recipe.precisions == ("fp32", "fp16", "int8") and recipe.calibration_methods == METHODS
    assert (recipe.logit_tolerance, recipe.auroc_tolerance) == (1e-4, {"fp16": 0.005, "int8": 0.01})


def test_every_key_is_read(tmp_path: Path) -> None:
    text = """
precisions = ["fp32", "int8"]
logit_tolerance = 1
calibration_images = [32, 500]
calibration_methods = ["entropy"]
seed = 7
keep_float = 3
size = 56
tokens = 196
[auroc_tolerance]
int8 = 0.02
"""
    expected = Recipe(
        ("fp32", "int8"), 1.0, {"int8": 0.02}, (32, 500), ("entropy",), seed=7, keep_float=3, size=56, tokens=196
    )
    assert load_recipe(write(tmp_path, text)) == expected
    assert (expected.tolerance("int8"), expected.tolerance("fp16")) == (0.02, 0.005)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precision = ['fp32']", "unknown key 'precision'; did you mean 'precisions'?"),
        ("calibration_image = [1]", "did you mean 'calibration_images'?"),
        ("precisions = ['fp8']", "precisions ['fp8']: there are fp32, fp16, int8"),
        ("logit_tolerance = 0", "logit_tolerance 0.0: more than 0"),
        ("logit_tolerance = nan", "logit_tolerance nan"),
        ("logit_tolerance = inf", "logit_tolerance inf"),
        ("logit_tolerance = '1e-4'", "the key 'logit_tolerance' has the value '1e-4', which is not a number"),
        (f"logit_tolerance = 1{'0' * 400}", "the key 'logit_tolerance' has the value 1"),
        ("auroc_tolerance = 0.01", "the key 'auroc_tolerance' has the value 0.01, which is not a table of a number"),
        ("auroc_tolerance.int4 = 0.1", "auroc_tolerance {'int4': 0.1}: from 0 to 1, for fp16 and int8"),
        ("auroc_tolerance.int8 = 1.5", "from 0 to 1"),
        ("auroc_tolerance.int8 = 'x'", "the key 'auroc_tolerance.int8' has the value 'x'"),
        ("calibration_images = []", "calibration_images []"),
        ("calibration_images = [0]", "calibration_images [0]"),
        ("calibration_images = 500", "which is not a list of a whole number"),
        (f"calibration_images = [1{'0' * 30}]", "from 1 to 1000000"),
        ("calibration_methods = ['mse']", "calibration_methods ['mse']: there are minmax, percentile, entropy"),
        ("calibration_methods = []", "calibration_methods []"),
        ("seed = -1", "seed -1"),
        ("keep_float = -1", "keep_float -1"),
        ("size = 57", "size 57: one of 448, 224, 112, 56, 28"),
        ("tokens = 0", "tokens 0"),
        ("limits = ['']", "limits"),
        (f"limits = ['{'x' * 301}']", "limits"),
        ("seed = 1\nseed = 2", "cannot be read as TOML"),
    ],
)
def test_a_wrong_value_is_named_with_its_file(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(str(path)) and message in str(caught.value)
    typed = edgecxr("export", "--recipe", path, runs=tmp_path / "runs")
    assert typed.code == 2 and message in typed.error


def test_a_recipe_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.toml does not exist: .*TOML file"):
        load_recipe(tmp_path / "absent.toml")
    with pytest.raises(UsageError, match="not a file"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("recipe", "fits"),
    [
        (Recipe(), True),
        (Recipe(size=28), True),
        (Recipe(size=28, tokens=4), True),
        (Recipe(size=56), False),
        (Recipe(tokens=49), False),
    ],
)
def test_a_recipe_knows_which_models_it_is_for(recipe: Recipe, fits: bool) -> None:
    if fits:
        recipe.check(tiny_card())
    else:
        with pytest.raises(UsageError, match=r"the recipe is for .* \w+ (56|49), .*tiny-test has (28|4)"):
            recipe.check(tiny_card())


def test_options_and_target_choose_the_precisions(tmp_path: Path) -> None:
    v100 = load_target("v100")
    assert choose(None, False, False, None, v100).precisions == ("fp32", "fp16")
    assert choose(None, False, True, None, v100).precisions == ("fp32", "int8")
    assert choose(None, True, True, 5).precisions == ("fp32", "fp16", "int8")
    path = write(tmp_path, "precisions = ['fp32']\nkeep_float = 2\nseed = 4")
    assert choose(path, False, False, None, v100) == Recipe(("fp32",), keep_float=2, seed=4)
    assert choose(path, True, False, 0) == Recipe(("fp32", "fp16"), keep_float=0, seed=4)

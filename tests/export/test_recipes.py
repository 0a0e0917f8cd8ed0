"""What lies in export/: recipes, targets, images and programs that fit each other and the package."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edgecxr.bundle.bundle import Bundle
from edgecxr.engines.target import PROFILES, load_target, target_names
from edgecxr.engines.tensorrt.build import choose_precision
from edgecxr.export.lower_precision import _CALIBRATORS
from edgecxr.export.onnx import OPSETS
from edgecxr.export.recipe import METHODS, Recipe, load_recipe
from edgecxr.registry import BACKENDS
from tests.tiny_bundle import tiny_card

ROOT = Path(__file__).parents[2]
EXPORT = ROOT / "export"
RECIPES = sorted((EXPORT / "recipes").glob("*.toml"))
IMAGES = sorted((EXPORT / "docker").glob("*.Dockerfile"))
TARGETS = [load_target(name) for name in target_names()]


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


def test_the_package_knows_what_targets_and_recipes_may_say() -> None:
    assert set(PROFILES) == set(OPSETS) and set(METHODS) == set(_CALIBRATORS)
    assert {target.engine for target in TARGETS} <= set(BACKENDS)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_gets_files_that_its_engine_takes(target) -> None:
    if target.engine == "tensorrt":
        # The newest that the oldest TensorRT of the target parses.
        parsed = {profile: oldest for profile, oldest in PROFILES.items() if oldest <= version(target.tensorrt[0])}
        assert target.profile == max(parsed, key=lambda profile: parsed[profile])
        assert target.int8_float == "fp16" and target.memory_mib > 0 and target.compute_capability
    else:
        assert (target.profile, target.int8_float, target.memory_mib) == ("modern", "fp32", 0)
        assert target.tensorrt is None and "fp16" not in target.precisions
    # Nothing is recommended that nobody may want: FP32 is always there to compare with.
    assert "fp32" in target.precisions
    if target.compute_capability == "7.0":
        assert "int8" not in target.precisions


def test_every_student_of_the_grids_has_a_recipe() -> None:
    loaded = {path.stem: load_recipe(path) for path in RECIPES}
    shipped = loaded.pop("research-28")  # of the bundle that comes with edgecxr, which must be small
    assert set(shipped.precisions) == {"fp32", "int8"}
    of_students = {name: (recipe.size, recipe.tokens) for name, recipe in loaded.items() if recipe.size}
    assert of_students == {
        f"{size}px-{tokens}tokens": (size, tokens) for size in (28, 56, 112) for tokens in (49, 196)
    }  # fmt: skip
    assert set(loaded) - set(of_students) == {"strict", "quick"}


@pytest.mark.parametrize("path", [p for p in RECIPES if p.stem != "research-28"], ids=lambda path: path.stem)
def test_a_recipe_takes_its_model_and_what_it_says_is_true(path: Path) -> None:
    recipe, default = load_recipe(path), Recipe()
    size, tokens = recipe.size or 28, recipe.tokens or 49
    patch = size // int(tokens**0.5)
    recipe.check(tiny_card(size=size, tokens=tokens, patch=patch))
    assert set(recipe.precisions) == {"fp32", "fp16", "int8"}
    stated = re.search(r"--res (\d+)( --tokens 196)?`: patches of (\d+) x \3 px", path.read_text())
    if recipe.size:
        assert stated and (int(stated[1]), bool(stated[2]), int(stated[3])) == (size, tokens == 196, patch)
        # At least as many images as NVIDIA asks for are among what is tried.
        assert max(recipe.calibration_images) >= 500
        assert (recipe.logit_tolerance, recipe.auroc_tolerance) == (default.logit_tolerance, default.auroc_tolerance)


def test_strict_is_stricter_and_quick_is_quicker() -> None:
    strict, quick, default = (
        *(load_recipe(EXPORT / "recipes" / f"{name}.toml") for name in ("strict", "quick")),
        Recipe(),
    )
    assert strict.logit_tolerance < default.logit_tolerance
    assert all(strict.tolerance(name) < default.tolerance(name) for name in ("fp16", "int8"))
    assert min(strict.calibration_images) >= max(default.calibration_images)
    assert all(quick.tolerance(name) == default.tolerance(name) for name in ("fp16", "int8"))
    tries = len(quick.calibration_images) * len(quick.calibration_methods)
    assert tries == 1 and quick.calibration_images[0] < default.calibration_images[0]


def test_the_readme_names_what_there_is() -> None:
    text = (EXPORT / "README.md").read_text()
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)*)`", text.split("## Targets")[1].split("`recent` is")[0]))
    assert named == set(target_names())
    for key in (name for name in Recipe.__dataclass_fields__ if name != "auroc_tolerance"):
        assert f"`{key}`" in text, key
    for path in re.findall(r"export/recipes/[\w.-]+", text):
        assert (ROOT / path).is_file(), path


def test_the_board_of_the_readme_is_a_target(tmp_path: Path) -> None:
    board = re.search(r"```toml\n(.*?)```", (EXPORT / "README.md").read_text(), re.S)
    assert board
    (tmp_path / "board.toml").write_text(board[1])
    target = load_target(str(tmp_path / "board.toml"))
    assert (target.name, target.batches, target.tensorrt) == ("my-board", (1, 8, 64), ("8.6", "10.3"))


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.stem)
def test_an_image_copies_and_installs_what_there_is(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    steps = [line.split(maxsplit=1) for line in joined.splitlines() if line]
    instructions = {"ARG", "FROM", "ENV", "RUN", "COPY", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    instructions |= {"VOLUME", "EXPOSE", "HEALTHCHECK"}
    assert {name for name, _ in steps} <= instructions
    assert next(name for name, _ in steps if name != "ARG") == "FROM"
    by_name = {name: [rest for other, rest in steps if other == name] for name in instructions}
    assert by_name["USER"] == ["1000"] and by_name["ENTRYPOINT"] == ['["edgecxr"]']
    copied = set()
    for rest in by_name["COPY"]:
        *sources, dest = shlex.split(rest)
        assert all((ROOT / source).exists() for source in sources)
        copied |= {Path(dest, source).name for source in sources}
    assert copied == {"pyproject.toml", "README.md", "LICENSE", "edgecxr", "bundles"}
    for command in by_name["RUN"]:
        done = subprocess.run(["sh", "-n", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not re.search(r"pip install[^&]*tensorrt", command)
    extras = {extra for command in by_name["RUN"] for extra in re.findall(r"/src\[(\w+)\]", command)}
    pyproject = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", pyproject, re.M) for extra in extras)
    assert bool(extras) == (path.stem in ("workstation", "node"))


def test_the_jetson_s_image_has_a_tensorrt_of_its_target() -> None:
    text = (EXPORT / "docker" / "jetson.Dockerfile").read_text()
    inside, target = re.search(r"TensorRT (\d+\.\d+)", text), re.search(r"--target (\S+)", text)
    assert inside and target
    oldest, newest = load_target(target[1]).tensorrt or ("", "")
    assert version(oldest) <= version(inside[1]) <= version(newest)


def type_program(name: str, *args: str | Path, runs: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXPORT / name), *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"EDGECXR_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_make_onnx_makes_a_bundle_and_make_engine_asks_for_tensorrt(finished, films, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / films.name).symlink_to(films.path)
    (tmp_path / finished.student.name).symlink_to(finished.student)
    recipe = EXPORT / "recipes" / "quick.toml"
    command = ("make_onnx.py", finished.student.name, "--recipe", recipe, "--target", "jetson-xavier")
    done = type_program(*command, "--data", films.name, "--out", tmp_path / "bundle", runs=tmp_path)
    assert done.returncode == 0, done.stderr
    bundle = Bundle.open(Path(done.stdout.strip()))
    assert bundle.path == tmp_path / "bundle" and bundle.card.target["name"] == "jetson-xavier"
    assert {facts["precision"]: facts["opset"] for facts in bundle.card.artefacts.values()} == {
        "fp32": 13, "fp16": 13, "int8": 13,
    }  # fmt: skip
    assert choose_precision(bundle, load_target("jetson-xavier")) == "fp16"

    done = type_program("make_engine.py", bundle.path, "--target", "cpu-x86", runs=tmp_path)
    assert done.returncode in (2, 5) and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("make_onnx.py", ("absent",), "absent is no finished run"),
        ("make_onnx.py", ("absent", "--target", "jetson-tx2"), "JetPack 4.6"),
        ("make_engine.py", ("absent",), "absent does not exist"),
    ],
)
def test_the_programs_say_what_is_wrong_in_one_line(
    tmp_path: Path, name: str, args: tuple[str, ...], message: str
) -> None:
    done = type_program(name, *args, runs=tmp_path)
    assert done.returncode in (2, 4) and done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""

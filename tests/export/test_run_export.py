"""`edgecxr export` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from edgecxr.bundle.card import read_card
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import open_backend
from edgecxr.engines.tensorrt import library
from tests.cli_workspace import STUDENT, TEACHER, copied, edgecxr, image_folder, trained
from tests.test_cli import scan

QUICK = "calibration_methods = ['minmax']\n[auroc_tolerance]\nfp16 = 1.0\nint8 = 1.0\n"
SHORT = ("--epochs", "1", "--batch", "16")


@pytest.fixture
def runs(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a teacher, a student and no bundle."""
    place = copied(trained(tmp_path_factory), tmp_path / "runs")
    bundle = place / "export" / STUDENT
    for path in bundle.iterdir():
        path.unlink()
    bundle.rmdir()
    return place


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "quick.toml").write_text(QUICK)
    return tmp_path / "quick.toml"


@pytest.fixture
def no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "MODULES", ("no_such_tensorrt",))
    library._library.cache_clear()
    yield
    library._library.cache_clear()


def names(bundle: Path) -> set[str]:
    return {path.name for path in bundle.iterdir()}


def test_a_student_s_teacher_of_448_px_is_exported_and_infer_sees_what_training_saw(tmp_path):
    runs, films = tmp_path / "runs", image_folder(tmp_path / "films")
    (tmp_path / "fp32.toml").write_text("precisions = ['fp32']\n")
    for command in (
        ("prepare", "folder", films, "--workers", "1", "--size", "448"),
        ("train", "--res", "448", "--patch", "112", "--depth", "2", "--init", "random", *SHORT),
        ("distill", "--res", "28", "--teacher", "teacher-tiny-448", *SHORT),
        ("export", "--with-teacher", "--not-chest", films, "--recipe", tmp_path / "fp32.toml"),
    ):
        typed = edgecxr(*command, runs=runs)
        assert typed.code == 0, typed
    prepared = Prepared.open(runs / "data" / "films")
    for name, size in (("teacher-tiny-448", 448), (STUDENT, 28)):
        said = edgecxr("infer", films / "3.png", "--force", "--model", runs / "export" / name, "--json", runs=runs)
        probability = json.loads(said.out)["findings"]["Dark"]["probability"]
        card = read_card(runs / name)
        logits = open_backend("torch", runs / name).run(prepared.inputs(np.flatnonzero(prepared.ids == "3.png"), size))
        expected = 1 / (1 + np.exp(-logits.findings.item() / card.temperature["Dark"]))
        assert probability == pytest.approx(expected, abs=1e-5)
    refused = edgecxr("train", "--res", "300", runs=runs)
    assert (refused.code, refused.error) == (2, "error: --res 300: there are 224, 448")

    # The files were read for the student: of the teacher, which sees 448 px, that is said.
    cards = {
        name: json.loads((runs / "export" / name / "card.json").read_text()) for name in (STUDENT, "teacher-tiny-448")
    }
    given = {name: card["gate"]["rates"]["fp32"].get("given") for name, card in cards.items()}
    assert given["teacher-tiny-448"] is None and given[STUDENT]["images"] == 24
    assert "--not-chest: left out for teacher-tiny-448" in typed.err


def test_export_alone_writes_three_precisions_and_infer_takes_each(runs, recipe, tmp_path):
    typed = edgecxr("export", "--recipe", recipe, runs=runs)
    assert typed.code == 0, typed.err
    bundle, film = runs / "export" / STUDENT, scan(tmp_path)
    assert typed.out.strip() == str(bundle)
    assert names(bundle) == {"card.json", "SHA256SUMS", "gate.npy", "model.onnx", "model.fp16.onnx", "model.int8.onnx"}
    for precision in ("fp32", "fp16", "int8"):
        assert f"{precision}: " in typed.err
        said = edgecxr("infer", film, "--precision", precision, "--json", runs=runs)
        assert said.code == 0 and json.loads(said.out)["status"] == "ok", said.err
    measured = edgecxr("evaluate", bundle, "--precision", "int8", "--json", runs=runs)
    assert measured.code == 0 and json.loads(measured.out)["model"] == f"{STUDENT} int8"
    refused = edgecxr("evaluate", STUDENT, "--precision", "int8", runs=runs)
    assert refused.code == 2 and "--precision is for bundles" in refused.error


def test_only_what_is_asked_for(runs, recipe, tmp_path):
    assert edgecxr("export", "--fp16", "--recipe", recipe, runs=runs).code == 0
    assert names(runs / "export" / STUDENT) == {"card.json", "SHA256SUMS", "gate.npy", "model.onnx", "model.fp16.onnx"}
    typed = edgecxr("infer", scan(tmp_path), "--precision", "int8", runs=runs)
    assert typed.code == 4 and "has no int8 model (it has: fp32, fp16)" in typed.error


def test_the_teacher_comes_along(runs, recipe):
    typed = edgecxr("export", "--with-teacher", "--fp16", "--recipe", recipe, runs=runs)
    assert typed.code == 0, typed.err
    assert typed.out.split() == [str(runs / "export" / TEACHER), str(runs / "export" / STUDENT)]
    assert "model.fp16.onnx" in names(runs / "export" / TEACHER)
    refused = edgecxr("export", TEACHER, "--with-teacher", runs=runs)
    assert refused.code == 4 and "leave --with-teacher out" in refused.error


def test_without_tensorrt_the_files_are_written_and_the_command_for_the_device_is_said(runs, recipe, no_tensorrt):
    typed = edgecxr("export", "--trt", "--int8", "--target", "jetson-orin-nano", "--recipe", recipe, runs=runs)
    assert typed.code == 5 and "needs tensorrt, which is not installed" in typed.error
    bundle = runs / "export" / STUDENT
    assert "model.int8.onnx" in names(bundle)
    assert f"edgecxr build {STUDENT} --precision int8 --target jetson-orin-nano" in typed.err
    card = json.loads((bundle / "card.json").read_text())
    assert card["target"]["name"] == "jetson-orin-nano"
    assert card["artefacts"]["model.int8.onnx"]["float_part"] == "fp16"


def test_a_target_says_its_notes_and_decides_what_is_worth_trying(runs, recipe):
    typed = edgecxr("export", "--target", "v100", runs=runs)
    assert typed.code == 0, typed.err
    assert "v100: A V100 has no INT8 tensor cores" in typed.err
    assert "model.int8.onnx" not in names(runs / "export" / STUDENT)


def test_analyze_prints_and_draws_what_each_layer_costs_and_exports_nothing(runs, recipe):
    typed = edgecxr("export", "--analyze", "--recipe", recipe, runs=runs)
    assert typed.code == 0, typed.err
    lines = typed.out.splitlines()
    assert lines[0].startswith("layer quantised alone")
    assert lines[-2:] == [str(runs / STUDENT / "int8-layers.csv"), str(runs / STUDENT / "int8-layers.png")]
    assert (runs / STUDENT / "int8-layers.png").stat().st_size > 5000
    assert not (runs / "export" / STUDENT).exists()
    assert not [path for path in (runs / STUDENT).iterdir() if path.name.startswith(".analyse")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--target", "jetson-orin-nan"), "did you mean 'jetson-orin-nano'?"),
        (("--target", "."), "no target '.'"),
        (("--recipe", "none.toml"), "none.toml does not exist"),
        (("--keep-float", "-1"), "--keep-float"),
    ],
)
def test_a_wrong_option_leaves_nothing_behind(runs, options, said):
    typed = edgecxr("export", *options, runs=runs)
    assert typed.code == 2 and said in typed.error
    assert not (runs / "export" / STUDENT).exists()


def test_a_failing_artefact_ends_with_6_and_leaves_the_old_bundle(runs, recipe, monkeypatch):
    assert edgecxr("export", "--fp16", "--recipe", recipe, runs=runs).code == 0
    bundle = runs / "export" / STUDENT
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    from edgecxr.export import export_bundle as module
    from edgecxr.export.parity import FAIL

    monkeypatch.setattr(module, "same_auroc", lambda *a, real=module.same_auroc: failed(real(*a), FAIL))
    typed = edgecxr("export", "--fp16", "--recipe", recipe, runs=runs)
    assert typed.code == 6 and "the fp16 file of" in typed.error and "nothing was written" in typed.error
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def failed(verdict, status):
    from dataclasses import replace

    return replace(verdict, status=status)

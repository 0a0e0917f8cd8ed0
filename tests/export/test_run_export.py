"""`edgecxr export` as it is typed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.torch import load_file, save_file

from edgecxr.bundle.bundle import Bundle, sha256_of
from edgecxr.bundle.card import read_card
from edgecxr.bundle.engine_record import EngineEnvironment, EngineRecord
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
    teacher, student = "teacher-tiny-448-films", "student-tiny-28-mlcak-films"
    runs, films = tmp_path / "runs", image_folder(tmp_path / "films")
    (tmp_path / "fp32.toml").write_text("precisions = ['fp32']\n")
    for command in (
        ("prepare", "folder", films, "--workers", "1", "--size", "448"),
        ("train", "--res", "448", "--patch", "112", "--depth", "2", "--init", "random", *SHORT),
        ("distill", "--res", "28", "--teacher", teacher, *SHORT),
        ("export", "--with-teacher", "--not-chest", films, "--recipe", tmp_path / "fp32.toml"),
    ):
        typed = edgecxr(*command, runs=runs)
        assert typed.code == 0, typed
    prepared = Prepared.open(runs / "data" / "films")
    for name, size in ((teacher, 448), (student, 28)):
        inferred = edgecxr("infer", films / "3.png", "--force", "--model", runs / "export" / name, "--json", runs=runs)
        probability = json.loads(inferred.out)["findings"]["Dark"]["probability"]
        card = read_card(runs / name)
        logits = open_backend("torch", runs / name).run(prepared.inputs(np.flatnonzero(prepared.ids == "3.png"), size))
        expected = 1 / (1 + np.exp(-logits.findings.item() / card.temperature["Dark"]))
        assert probability == pytest.approx(expected, abs=1e-5)
    refused = edgecxr("train", "--res", "300", runs=runs)
    assert (refused.code, refused.error) == (2, "error: --res 300: there are 224, 448")

    # The files were read for the student: of the teacher, which sees 448 px, that is said.
    cards = {name: json.loads((runs / "export" / name / "card.json").read_text()) for name in (student, teacher)}
    rates = {name: card["gate"]["rates"]["fp32"].get("given") for name, card in cards.items()}
    assert rates[teacher] is None and rates[student]["images"] == 24
    assert re.search(r"--not-chest: left out .*teacher-tiny-448", typed.err)


def test_export_alone_writes_three_precisions_and_infer_takes_each(runs, recipe, tmp_path):
    typed = edgecxr("export", "--recipe", recipe, runs=runs)
    assert typed.code == 0, typed.err
    bundle, film = runs / "export" / STUDENT, scan(tmp_path)
    assert typed.out.strip() == str(bundle)
    assert names(bundle) == {"card.json", "SHA256SUMS", "gate.npy", "model.onnx", "model.fp16.onnx", "model.int8.onnx"}
    for precision in ("fp32", "fp16", "int8"):
        assert f"{precision}: " in typed.err
        inferred = edgecxr("infer", film, "--precision", precision, "--json", runs=runs)
        assert inferred.code == 0 and json.loads(inferred.out)["status"] == "ok", inferred.err
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
    device = "jetson-orin-nano"
    typed = edgecxr("export", "--trt", "--int8", "--target", device, "--recipe", recipe, runs=runs)
    assert typed.code == 5 and "needs tensorrt, which is not installed" in typed.error
    bundle = runs / "export" / f"{STUDENT}-{device}"
    assert "model.int8.onnx" in names(bundle)
    assert f"edgecxr build {bundle.name} --precision int8 --target {device}" in typed.err
    card = json.loads((bundle / "card.json").read_text())
    assert card["target"]["name"] == device
    assert card["artefacts"]["model.int8.onnx"]["float_part"] == "fp16"


def test_a_target_says_its_notes_and_decides_what_is_worth_trying(runs, recipe):
    typed = edgecxr("export", "--target", "v100", runs=runs)
    assert typed.code == 0, typed.err
    assert "v100: A V100 has no INT8 tensor cores" in typed.err
    assert "model.int8.onnx" not in names(runs / "export" / f"{STUDENT}-v100")
    # Another target has a bundle of its own.
    assert edgecxr("export", "--target", "cpu-x86", "--recipe", recipe, runs=runs).code == 0
    assert {path.name for path in (runs / "export").iterdir()} == {f"{STUDENT}-v100", f"{STUDENT}-cpu-x86"}
    assert read_card(runs / "export" / f"{STUDENT}-v100").name == f"{STUDENT}-v100"


def test_an_export_takes_over_what_has_not_changed_and_says_what_it_removes(runs, recipe):
    def state(bundle: Path) -> dict[str, tuple[int, bytes]]:
        files = [path for path in bundle.rglob("*") if path.is_file()]
        return {str(path.relative_to(bundle)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}

    common = ("export", "--recipe", recipe, "--out", "mine")
    first = edgecxr(*common, "--fp16", runs=runs)
    bundle = runs / "export" / "mine"
    assert (first.code, first.out) == (0, f"{bundle}\n") and read_card(bundle).name == "mine"
    engine_of(bundle, "model.onnx")
    engine_of(bundle, "model.fp16.onnx")
    before = state(bundle)
    again = edgecxr(*common, "--fp16", runs=runs)
    assert again.code == 0 and "up to date" in again.err and state(bundle) == before

    other = edgecxr(*common, "--int8", runs=runs)
    after = state(bundle)
    assert other.code == 0 and "fp32: unchanged" in other.err and "int8: " in other.err
    assert after["model.onnx"][1] == before["model.onnx"][1]
    assert "engines/model.onnx.engine" in after and "engines/model.fp16.onnx.engine" not in after
    removed = next(line for line in other.err.splitlines() if "no longer in" in line)
    assert "model.fp16.onnx" in removed and "model.fp16.onnx.engine" in removed and "model.onnx.engine" not in removed
    Bundle.open(bundle)

    # Other weights make everything anew.
    card = json.loads((runs / STUDENT / "card.json").read_text())
    state_dict = load_file(runs / STUDENT / "best.safetensors")
    save_file({key: value * 1.01 for key, value in state_dict.items()}, runs / STUDENT / "best.safetensors")
    card["sha256"] = sha256_of(runs / STUDENT / "best.safetensors")
    (runs / STUDENT / "card.json").write_text(json.dumps(card))
    new = edgecxr(*common, "--int8", runs=runs)
    assert new.code == 0 and "unchanged" not in new.err
    assert "model.onnx.engine" in next(line for line in new.err.splitlines() if "no longer in" in line)


def engine_of(bundle: Path, onnx: str) -> None:
    """Put what looks like an engine of a model file into a bundle."""
    record = EngineRecord(
        precision="fp32", here=EngineEnvironment(None, None, "tensorrt", "10.3"),
        onnx=onnx, onnx_sha256=sha256_of(bundle / onnx),
        engine_sha256="0" * 64, engine_bytes=1, batches=(1, 8, 64), memory_mib=None, build_seconds=1.0, typing="strong",
    )  # fmt: skip
    (bundle / "engines").mkdir(exist_ok=True)
    (bundle / "engines" / f"{onnx}.engine").write_bytes(b"x")
    (bundle / "engines" / f"{onnx}.json").write_text(json.dumps({"seal": "none", **asdict(record)}))


@pytest.mark.parametrize("out", [".hidden", "a b"])
def test_a_bundle_s_name_is_a_plain_one(runs, out):
    refused = edgecxr("export", "--out", out, runs=runs)
    assert refused.code == 2 and not (runs / "export" / out).exists()


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
    ("options", "message"),
    [
        (("--target", "jetson-orin-nan"), "did you mean 'jetson-orin-nano'?"),
        (("--target", "."), "no target '.'"),
        (("--recipe", "none.toml"), "none.toml does not exist"),
        (("--keep-float", "-1"), "--keep-float"),
    ],
)
def test_a_wrong_option_leaves_nothing_behind(runs, options, message):
    typed = edgecxr("export", *options, runs=runs)
    assert typed.code == 2 and message in typed.error
    assert not (runs / "export" / STUDENT).exists()


def test_a_failing_artefact_ends_with_6_and_leaves_the_old_bundle(runs, recipe, monkeypatch):
    assert edgecxr("export", "--fp16", "--recipe", recipe, runs=runs).code == 0
    bundle = runs / "export" / STUDENT
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    from edgecxr.export import export_bundle as module
    from edgecxr.export.parity import FAIL

    monkeypatch.setattr(module, "same_auroc", lambda *a, real=module.same_auroc: failed(real(*a), FAIL))
    recipe.write_text(QUICK.replace("fp16 = 1.0", "fp16 = 0.9"))  # else nothing is made again
    typed = edgecxr("export", "--fp16", "--recipe", recipe, runs=runs)
    assert typed.code == 6 and "the fp16 file of" in typed.error and "nothing was written" in typed.error
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def failed(verdict, status):
    from dataclasses import replace

    return replace(verdict, status=status)

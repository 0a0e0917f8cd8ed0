"""`edgecxr.load`: the way into a program; what it takes, what it costs, and what a type checker sees."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import edgecxr
from edgecxr.bundle.bundle import write_bundle
from edgecxr.errors import InputError, ModelError, UsageError
from tests.cli_workspace import edgecxr as command_line
from tests.films.dicom_files import film, write
from tests.test_cli import scan
from tests.tiny_bundle import tiny_bundle, tiny_card, tiny_gate, tiny_onnx

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGECXR_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("EDGECXR_MODEL", raising=False)
    return tmp_path / "runs"


def test_a_bundle_is_found_by_path_by_name_by_variable_and_else_the_latest(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for age, name in enumerate(("path", "latest", "older")):
        folder = tmp_path / name if name == "path" else workspace / "export" / name
        os.utime(tiny_bundle(folder, name=name).path / "card.json", (1000 - age, 1000 - age))

    def name_of(*arguments: str | Path) -> str:
        with edgecxr.load(*arguments) as predictor:
            return predictor.card.name

    assert name_of("path") == name_of(tmp_path / "path") == "path"
    assert name_of("older") == "older"
    assert name_of() == "latest"
    monkeypatch.setenv("EDGECXR_MODEL", str(tmp_path / "path"))
    assert name_of() == "path"


def test_the_options_reach_the_model(tmp_path: Path) -> None:
    points = {rule: dict.fromkeys(("abnormal",), value) for rule, value in (("youden", 0.1), ("strict", 0.9))}
    bundle = tiny_bundle(tmp_path / "model", operating_points=points).path
    pixels = np.linspace(0, 1, 224 * 224).reshape(224, 224)
    assert edgecxr.load(bundle).predict(pixels).decisions["abnormal"]
    assert not edgecxr.load(bundle, operating_point="strict", threads=1).predict(pixels).decisions["abnormal"]
    with pytest.raises(UsageError, match="0 threads"):
        edgecxr.load(bundle, threads=0)
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        edgecxr.load(bundle, backend="onnxruntim")
    with pytest.raises(UsageError, match="edgecxr evaluate"):
        edgecxr.load(bundle, backend="torch")


def test_the_precision_chooses_the_model_file(tmp_path: Path) -> None:
    other = tiny_onnx(tmp_path / "other.onnx")
    graph = onnx.load(other)
    next(value for value in graph.graph.initializer if value.name == "two").raw_data = np.float32(3).tobytes()
    onnx.save_model(graph, other)
    names = {"fp32": "model.onnx", "int8": "model.int8.onnx"}
    card = tiny_card(artefacts={name: {"precision": precision} for precision, name in names.items()}, gate={})
    first = tiny_onnx(tmp_path / "first.onnx")
    bundle = write_bundle(tmp_path / "model", card, {"model.onnx": first, "model.int8.onnx": other}).path
    pixels = np.linspace(0, 1, 224 * 224).reshape(224, 224)
    usual = edgecxr.load(bundle).predict(pixels).abnormal
    assert edgecxr.load(bundle, precision="fp32").predict(pixels).abnormal == usual
    assert edgecxr.load(bundle, precision="int8").predict(pixels).abnormal < usual - 0.1
    with pytest.raises(ModelError, match=r"no fp16 model \(it has: fp32, int8\)"):
        edgecxr.load(bundle, precision="fp16")
    with pytest.raises(UsageError, match="precision fp8: there are fp32, fp16, int8"):
        edgecxr.load(bundle, precision="fp8")
    film = scan(tmp_path, "scan.dcm")
    typed = command_line("infer", film, "--model", bundle, "--json", "--precision", "int8", runs=tmp_path / "runs")
    assert typed.code == 0
    expected = edgecxr.load(bundle, precision="int8").predict(film).abnormal
    assert json.loads(typed.out)["abnormal"]["probability"] == pytest.approx(expected, abs=1e-3)
    assert expected < edgecxr.load(bundle).predict(film).abnormal - 0.1


def test_the_gate_is_overruled_by_name(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model", gate=tiny_gate(0.3, 0.05)).path
    lateral = write(film(np.tile(np.arange(90, dtype=np.uint8), (90, 1)), ViewPosition="RL"), tmp_path)
    with pytest.raises(InputError) as caught:
        edgecxr.load(bundle).predict(lateral)
    assert caught.value.reason == "view" and caught.value.gate is not None
    assert edgecxr.load(bundle, any_view=True).predict(lateral).gate.verdict == "pass"
    assert edgecxr.load(bundle, force=True).predict(lateral).gate.verdict == "forced"
    with pytest.raises(InputError, match="does not look like"):
        edgecxr.load(bundle, any_view=True).predict(np.linspace(0.3, 1, 90 * 90).reshape(90, 90))


@pytest.mark.parametrize("bundle", [None, "gone", Path("gone")])
def test_without_a_bundle_the_error_says_how_to_name_or_make_one(bundle: str | None) -> None:
    with pytest.raises(ModelError, match="`edgecxr export`"):
        edgecxr.load(bundle)


def test_a_type_checker_sees_what_comes_back(tmp_path: Path) -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(
        "import edgecxr\n"
        'prediction = edgecxr.load("x", threads=2).predict("y")\n'
        "reveal_type(prediction.abnormal)\n"
        "reveal_type(prediction.findings)\n"
        "edgecxr.load(3)\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file", os.devnull, str(snippet)]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    output = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout
    assert re.findall(r'snippet.py:(\d): note: Revealed type is "(?:builtins\.)?([\w.\[\], ]+)"', output) in (
        [("3", "float"), ("4", "dict[str, float]")],
        [("3", "float"), ("4", "dict[builtins.str, builtins.float]")],
    ), output
    assert re.findall(r"snippet.py:(\d): error: .*\[([\w-]+)\]", output) == [("5", "arg-type")], output


def test_the_snippets_of_the_page_run(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "device.md").read_text()
    snippets = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert len(snippets) >= 2
    tiny_bundle(tmp_path / "student-tiny-28-mlcak-vindr")
    scan(tmp_path, "scan.dcm")
    Image.fromarray(np.arange(4096, dtype=np.uint8).reshape(64, 64)).save(tmp_path / "film.png")
    for number, snippet in enumerate(snippets):
        command = [sys.executable, "-W", "error", "-c", snippet]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0 and ended.stdout, (snippet, ended)
        assert number > 0 or re.fullmatch(r"0\.\d+ \{.*'Cardiomegaly': 0\.\d+.*\}\n", ended.stdout), ended

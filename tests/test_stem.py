"""A student with the convolutional stem is taken by every command as another is."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest

pytest.importorskip("torch")

from edgecxr.bundle.bundle import Bundle
from tests.cli_workspace import copied, edgecxr, image_folder, trained

QUICK = ("--epochs", "1", "--batch", "16", "--depth", "2")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which a teacher and a student have the stem. Not to be changed."""
    runs = copied(trained(tmp_path_factory), tmp_path_factory.mktemp("stem") / "runs")
    typed = edgecxr("train", "--init", "random", "--stem", "conv", "--patch", "32", *QUICK, runs=runs)
    assert typed.code == 0, typed.err
    teacher = Path(typed.out.strip()).name
    typed = edgecxr("distill", "--res", "28", "--teacher", teacher, *QUICK, runs=runs)
    assert typed.code == 0, typed.err
    student = Path(typed.out.strip()).name
    (runs / "quick.toml").write_text('calibration_methods = ["minmax"]\n')
    typed = edgecxr("export", student, *recipe(runs), "--not-chest", image_folder(runs.parent / "others", 4), runs=runs)
    assert typed.code == 0, typed.err
    (runs / "names").write_text(f"{teacher} {student}")
    return runs


def names(runs: Path) -> list[str]:
    return (runs / "names").read_text().split()


def recipe(runs: Path) -> tuple[str, str]:
    """Calibrate in one way: which one is best is the business of other tests."""
    return "--recipe", str(runs / "quick.toml")


def test_its_bundle_has_every_precision_and_a_gate(runs: Path) -> None:
    bundle = Bundle.open(runs / "export" / names(runs)[1])
    assert bundle.card.stem == "conv" and bundle.card.depth == 2
    assert set(bundle.card.gate["rates"]) == {"fp32", "fp16", "int8"}
    graphs = {precision: onnx.load(bundle.artefact(precision)).graph for precision in ("fp32", "fp16", "int8")}
    for graph in graphs.values():
        assert "BatchNormalization" not in {node.op_type for node in graph.node}
    convolutions = [node for node in graphs["int8"].node if node.op_type == "Conv"]
    before = {output: node.op_type for node in graphs["int8"].node for output in node.output}
    assert len(convolutions) == 3
    for node in convolutions:  # folded before it was quantised: the convolution has the batch norm's bias
        assert [before[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2 and len(node.input) == 3


def test_it_answers_alike_in_every_precision(runs: Path, tmp_path: Path) -> None:
    films = image_folder(tmp_path / "films", 2)
    results = {}
    for precision in ("fp32", "fp16", "int8"):
        typed = edgecxr(
            "infer", films / "0.png", "--model", names(runs)[1], "--precision", precision, "--json", runs=runs
        )
        assert typed.code == 0, typed.err
        results[precision] = json.loads(typed.out)
    values = {name: [result["abnormal"]["probability"]] for name, result in results.items()}
    assert values["fp16"] == pytest.approx(values["fp32"], abs=0.01)
    assert values["int8"] == pytest.approx(values["fp32"], abs=0.05)


@pytest.mark.parametrize("target", ["jetson-orin-nano", "jetson-xavier"])
def test_it_is_exported_for_both_generations_of_tensorrt(runs: Path, tmp_path: Path, target: str) -> None:
    again = copied(runs, tmp_path / "runs")
    typed = edgecxr("export", names(runs)[1], "--target", target, *recipe(runs), runs=again)
    assert typed.code == 0, typed.err
    bundle = Bundle.open(Path(typed.out.strip()))
    assert {entry["precision"] for entry in bundle.card.artefacts.values()} == {"fp32", "fp16", "int8"}
    assert bundle.card.target["name"] == target


@pytest.mark.long
def test_costs_of_its_layers_attention_and_speed(runs: Path, tmp_path: Path) -> None:
    again = copied(runs, tmp_path / "runs")
    teacher, student = names(runs)
    typed = edgecxr("export", student, "--analyze", *recipe(runs), runs=again)
    assert typed.code == 0 and "patch_embed.backbone.0" in (again / student / "int8-layers.csv").read_text()
    typed = edgecxr("explain", teacher, student, "--films", "1", runs=again)
    assert typed.code == 0 and Path(typed.out.splitlines()[-2]).exists(), typed
    typed = edgecxr(
        "benchmark", student, "--backend", "onnxruntime", "--backend", "torch", "--passes", "1", "--max-batch", "1",
        "--threads", "1", "--json", runs=again,
    )  # fmt: skip
    assert typed.code == 0, typed.err
    rows = {(row["backend"], row["precision"]): row for row in json.loads(typed.out)["rows"]}
    assert {key for key, row in rows.items() if row["status"] == "ok"} == {
        ("onnxruntime", "fp32"), ("onnxruntime", "fp16"), ("onnxruntime", "int8"), ("torch", "fp32")
    }  # fmt: skip
    assert all(row["latency_ms"]["p50"] > 0 and row["auroc"] for row in rows.values())

"""`--precision auto`: measured once, kept, and never a slower model than FP32."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.bundle.bundle import Bundle, write_bundle
from edgecxr.engines import fastest_precision as module
from edgecxr.engines.fastest_precision import LARGEST_SHARE, fastest_precision
from edgecxr.errors import UsageError
from edgecxr.infer.resume import precision_of
from edgecxr.machine.cores import Cpu
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import film, write
from tests.tiny_bundle import tiny_bundle, tiny_card, tiny_onnx

Timed = Callable[[dict[str, float]], list[str]]


class Model:
    """A model that takes so long by a clock of its own."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def run(self, images: np.ndarray) -> None:
        assert images.shape[0] == 1
        self.clock[0] += self.seconds

    def close(self) -> None:
        self.seconds = float("nan")


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Timed:
    """Return a function that sets what each precision takes, and returns what is opened from then on."""
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "state"))
    opened: list[str] = []

    def set_to(seconds: dict[str, float]) -> list[str]:
        clock = [0.0]

        def open_backend(backend: str, model: Any, **options: Any) -> Model:
            name = "int8" if "int8" in model.path.name else "fp32"
            opened.append(f"{backend} {name} {options}")
            return Model(clock, seconds[name])

        monkeypatch.setattr(module, "open_backend", open_backend)
        monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
        opened.clear()
        return opened

    yield set_to
    monkeypatch.undo()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle with an FP32 and an INT8 file."""
    folder = tmp_path_factory.mktemp("whole")
    models = {"model.onnx": tiny_onnx(folder / "a.onnx"), "model.int8.onnx": tiny_onnx(folder / "b.onnx")}
    facts = {name: {"precision": "int8" if "int8" in name else "fp32"} for name in models}
    return write_bundle(folder / "bundle", tiny_card(artefacts=facts, gate={}), models)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(fp32=st.floats(1e-5, 0.3), int8=st.floats(1e-5, 0.3))
def test_int8_is_chosen_only_where_it_is_clearly_faster(
    tmp_path_factory: pytest.TempPathFactory, timed: Timed, whole: Bundle, fp32: float, int8: float
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECXR_STATE", str(tmp_path_factory.mktemp("state")))
        opened = timed({"fp32": fp32, "int8": int8})
        chosen = fastest_precision(whole, "onnxruntime", 2)
        assert len(opened) == 2 and all("'threads': 2" in each for each in opened)
        if not np.isclose(int8, LARGEST_SHARE * fp32, rtol=1e-2, atol=1e-6):
            assert chosen == ("int8" if int8 < LARGEST_SHARE * fp32 else "fp32")
        timed({"fp32": int8, "int8": fp32})
        assert fastest_precision(whole, "onnxruntime", 2) == chosen  # kept


def test_it_is_measured_anew_when_what_decides_the_times_has_changed(
    timed: Timed, whole: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = timed({"fp32": 0.002, "int8": 0.001})

    def count(backend: str = "onnxruntime", threads: int | None = None) -> int:
        opened.clear()
        fastest_precision(whole, backend, threads)
        return len(opened)

    assert [count(), count(), count("openvino"), count("openvino"), count(threads=1), count()] == [2, 0, 2, 0, 2, 0]
    monkeypatch.setattr(module.extras, "installed", lambda package: "99.0")
    assert [count(), count()] == [2, 0]
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert [count(), count()] == [2, 0]
    monkeypatch.setattr(module, "cpu", lambda: Cpu("another", 4, 4, None, [], []))
    assert [count(), count()] == [2, 0]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"precision": "fp16"}', '{"precision": 1}', "x" * 9999])
def test_what_was_kept_and_is_damaged_is_measured_again(
    timed: Timed, whole: Bundle, tmp_path: Path, content: str
) -> None:
    opened = timed({"fp32": 0.002, "int8": 0.001})
    assert fastest_precision(whole, "onnxruntime") == "int8"
    (kept,) = (tmp_path / "state" / "precisions").iterdir()
    assert json.loads(kept.read_text())["ms"] == {"fp32": 2.0, "int8": 1.0}
    kept.write_text(content)
    assert fastest_precision(whole, "onnxruntime") == "int8" and len(opened) == 4


def test_without_a_folder_for_it_the_choice_is_made_and_not_kept(
    timed: Timed, whole: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state").write_text("a file")
    timed({"fp32": 0.002, "int8": 0.001})
    assert fastest_precision(whole, "onnxruntime") == "int8"
    assert "not kept" in capsys.readouterr().err


def test_a_bundle_of_one_precision_needs_no_measurement(timed: Timed, tmp_path: Path) -> None:
    opened = timed({})
    bundle = tiny_bundle(tmp_path / "one")
    assert fastest_precision(bundle, "onnxruntime") == "fp32" and opened == []
    half = replace(bundle.card, artefacts={"model.onnx": {"precision": "fp16"}})
    with pytest.raises(UsageError):
        fastest_precision(write_bundle(tmp_path / "half", half, {"model.onnx": tiny_onnx(tmp_path / "h.onnx")}), "x")


def test_infer_says_what_it_takes_once_and_names_it_in_each_line(
    tmp_path: Path, whole: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "state"))
    path = write(film(np.tile(np.linspace(0, 200, 80), (70, 1)).astype(np.uint8)), tmp_path)
    command = ("infer", path, "--model", whole.path, "--precision", "auto", "--json")
    first, second = (edgecxr(*command, runs=tmp_path) for _ in range(2))
    lines = [json.loads(ended.out) for ended in (first, second)]
    assert lines[0]["precision"] == lines[1]["precision"] and lines[0]["precision"] in ("fp32", "int8")
    assert (first.err.count("precision: "), second.err.count("precision: ")) == (1, 0)
    wrong = edgecxr("infer", path, "--model", whole.path, "--precision", "fp8", runs=tmp_path)
    assert wrong.code == 2 and "auto" in wrong.err


@pytest.mark.parametrize("kept", ["fp32", "int8"])
def test_a_file_of_results_goes_on_in_its_precision(
    tmp_path: Path, whole: Bundle, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    (tmp_path / "state").write_text("a file, so that no choice is kept")
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "state"))
    pixels = np.tile(np.linspace(0, 200, 80), (70, 1)).astype(np.uint8)
    films = [write(film(pixels), tmp_path, name) for name in ("a.dcm", "b.dcm")]
    results = tmp_path / "results.jsonl"
    options = ("--model", whole.path, "--json", "--resume", results)
    assert edgecxr("infer", films[0], *options, "--precision", kept, runs=tmp_path).code == 0
    monkeypatch.setattr(
        module, "_measured", lambda *_: {kept: 9.0} | {other: 1.0 for other in module.CHOICES if other != kept}
    )
    assert edgecxr("infer", *films, *options, "--precision", "auto", runs=tmp_path).code == 0
    assert [json.loads(line)["precision"] for line in results.read_text().splitlines()] == [kept, kept]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]\n", b'{"precision": "fp64"}\n', b'{"precision": ["fp32"]}\n', b"\xff\n"]
)
def test_a_file_without_a_precision_decides_nothing(tmp_path: Path, content: bytes) -> None:
    assert precision_of(tmp_path / "missing") is None
    (tmp_path / "results.jsonl").write_bytes(content)
    assert precision_of(tmp_path / "results.jsonl") is None

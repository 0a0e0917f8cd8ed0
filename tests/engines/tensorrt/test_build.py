"""The builder: against a fake of each generation of TensorRT, and against TensorRT-RTX where that is installed.

TensorRT-RTX parses and builds without a GPU, but runs nothing without one.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edgecxr.bundle.bundle import Bundle, sha256_of, write_bundle
from edgecxr.bundle.engine_record import EngineRecord
from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines.tensorrt import library
from edgecxr.engines.tensorrt.build import build_engine, choose_precision
from edgecxr.engines.tensorrt.layers import inspected
from edgecxr.engines.tensorrt.network import profiles_of
from edgecxr.errors import CheckFailed, ModelError, UsageError
from tests.cli_workspace import edgecxr
from tests.fake_tensorrt import VERSIONS, Fake, installed
from tests.tiny_bundle import tiny_card, tiny_onnx

RTX = [name for name in ("tensorrt_rtx", "tensorrt_rtx_bindings") if importlib.util.find_spec(name)]
needs_rtx = pytest.mark.skipif(
    not RTX or importlib.util.find_spec("tensorrt") is not None, reason="needs TensorRT-RTX, and no TensorRT before it"
)


@dataclass(frozen=True)
class Board:
    """What the builder needs to know of a target."""

    name: str = "board"
    engine: str = "tensorrt"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    tensorrt: tuple[str, str] | None = ("8.5", "10.3")
    memory_mib: int = 512
    compute_capability: str | None = None
    batches: tuple[int, int, int] = (1, 1, 4)
    notes: tuple[str, ...] = ("a note",)


def bundle_with(folder: Path, models: dict[str, Path], **facts: dict[str, Any]) -> Bundle:
    """Return a bundle of these files by precision; `facts` go into their entries on the card."""
    names = {precision: f"model.{precision}.onnx" for precision in models} | {"fp32": "model.onnx"}
    artefacts = {
        names[precision]: {"precision": precision, "sha256": sha256_of(path), **facts.get(precision, {})}
        for precision, path in models.items()
    }
    files = {names[precision]: path for precision, path in models.items()}
    return write_bundle(folder, tiny_card(artefacts=artefacts), files)


@pytest.fixture
def three(tmp_path: Path) -> Bundle:
    model = tiny_onnx(tmp_path / "any.onnx")
    nodes = {"float32_nodes": ["norm", "shares"]}
    return bundle_with(
        tmp_path / "three",
        {"fp32": model, "fp16": model, "int8": model},
        fp16=nodes,
        int8={"float_part": "fp16", **nodes},
    )


def record_of(engine: Path) -> EngineRecord:
    record, own = EngineRecord.read(engine.with_suffix(".json"))
    assert own
    return record


# ---- what the builder is told


@pytest.mark.parametrize("version", VERSIONS)
def test_the_engine_and_its_record(version: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(Fake(version), monkeypatch) as fake:
        path = build_engine(bundle, "fp32", batches=(1, 2, 8), memory_mib=256)
        assert path == bundle.path / "engines" / f"fp32-orin-trt{version}.engine"
        record = record_of(path)
        assert (record.here.gpu, record.here.compute_capability, record.here.version) == ("Orin", "8.7", version)
        assert record.onnx_sha256 == sha256_of(bundle.artefact()) == fake.named("parse")[0][0]
        assert record.engine_sha256 == sha256_of(path) and record.engine_bytes == path.stat().st_size
        assert record.batches == (1, 2, 8) and record.memory_mib == 256
        assert record.layers == {"patch": "fp16", "norm": "fp32", "shares": "fp16"}
        assert record.counts == {"fp16": 2, "fp32": 1}
        assert fake.named("set_shape") == [
            ["image", *((batch, 1, 28, 28) for batch in batches)] for batches in ((1, 1, 1), (2, 2, 8))
        ]
        assert fake.named("memory") == [["WORKSPACE", 256 << 20]]
        assert ["IBuilderConfig", "profiling_verbosity", fake.module.ProfilingVerbosity.DETAILED] in fake.named("set")


@pytest.mark.parametrize(
    ("version", "precision", "flags", "network", "typing"),
    [
        ("8.6.1", "fp32", [], 1, "weak"),
        ("8.6.1", "fp16", ["FP16", "OBEY_PRECISION_CONSTRAINTS"], 1, "weak"),
        ("8.6.1", "int8", ["INT8", "FP16", "OBEY_PRECISION_CONSTRAINTS"], 1, "weak"),
        ("10.3.0", "fp32", [], 2, "strong"),
        ("10.3.0", "fp16", [], 2, "strong"),
        ("10.3.0", "int8", [], 2, "strong"),
        ("11.4.0", "int8", [], 2, "strong"),
    ],
)
def test_precision_is_in_the_file_and_in_flags_only_for_tensorrt_8(
    version: str, precision: str, flags: list[str], network: int, typing: str, three: Bundle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with installed(Fake(version), monkeypatch) as fake:
        path = build_engine(three, precision)
    assert [name for (name,) in fake.named("flag")] == flags
    assert fake.named("network") == [[network]]
    assert record_of(path).typing == typing


def test_tensorrt_8_is_told_which_layers_stay_float32(three: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake("8.6.1")
    fake.nodes = [("patch", "CONVOLUTION"), ("norm", "ELEMENTWISE"), ("norm_7", "ELEMENTWISE"), ("norm_x", "SOFTMAX"),
                  ("norm", "CONSTANT"), ("shares", "SOFTMAX")]  # fmt: skip
    with installed(fake, monkeypatch):
        path = build_engine(three, "fp16")
    held = [("norm", 0, "FLOAT"), ("norm_7", 0, "FLOAT"), ("shares", 0, "FLOAT")]
    assert [tuple(args) for args in fake.named("set_output_type")] == held
    assert [args[:2] for args in fake.named("set") if args[0] == "ILayer"] == [["ILayer", "precision"]] * 3
    assert record_of(path).float32_layers == {"listed": 2, "held": 2, "confirmed": 0, "lower": 2}


def layer(name: str, kind: str, *words: str, nodes: str = "") -> dict[str, Any]:
    """Describe a layer as the inspector of TensorRT 8 does."""
    described = {"Name": name, "LayerType": kind, "Outputs": [{"Name": "x", "Format/Datatype": w} for w in words]}
    return described | ({"Metadata": "".join(f"[ONNX Layer: {node}]" for node in nodes.split())} if nodes else {})


HALF, FLOAT = "Row major linear FP16 format", "Row major linear FP32"


@pytest.mark.parametrize(
    ("layers", "confirmed", "lower"),
    [
        ([layer("norm", "Norm", FLOAT), layer("shares", "SoftMax", FLOAT)], 2, 0),
        ([layer("norm", "Norm", HALF), layer("shares", "SoftMax", FLOAT)], 1, 1),
        ([layer("norm", "Norm", FLOAT), layer("norm_3", "Norm", HALF)], 0, 1),
        ([layer("PWN(PWN(norm_1, norm_2), shares)", "PointWiseV2", FLOAT)], 2, 0),
        ([layer("patch + norm", "CaskConvolution", FLOAT), layer("norm_x", "Norm", HALF)], 1, 0),
        ([layer("fused", "kgen", FLOAT, nodes="norm shares")], 2, 0),
        ([layer("norm", "kgen", HALF, nodes="shares patch")], 0, 1),
        ([layer("Reformatting CopyNode for Input Tensor 0 to norm", "Reformat", HALF),
          layer("norm", "Norm", FLOAT)], 1, 0),
        ([layer("{ForeignNode[norm...shares]}", "Myelin", FLOAT)], 0, 0),
        ([layer("norm", "Norm", FLOAT), layer("{ForeignNode[norm...patch]}", "Myelin", FLOAT)], 0, 0),
        ([layer("norm", "Norm", "Four wide channel vectorized row major Int8")], 0, 0),
        ([layer("patch", "CaskConvolution", HALF)], 0, 0),
        ([], 0, 0),
    ],
)  # fmt: skip
def test_what_stays_float32_is_counted_as_the_engine_reports_it(
    layers: list[dict[str, Any]], confirmed: int, lower: int, three: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake, lines = Fake("8.6.1"), list[str]()
    fake.inspected = layers
    with installed(fake, monkeypatch):
        record = record_of(build_engine(three, "fp16", say=lines.append))
    assert record.float32_layers == {"listed": 2, "held": 2, "confirmed": confirmed, "lower": lower}
    assert record.checked and (record.layers is None) is (not layers)
    warnings = "\n".join(line for line in lines if line.startswith("warning"))
    assert (f"computes {lower} of 2 nodes" in warnings) is (lower > 0)
    silent = 2 - confirmed - lower
    assert (f"whether {silent} of 2 nodes" in warnings) is (silent > 0)


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0"])
def test_where_the_file_decides_nothing_is_held_or_counted(
    version: str, three: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    with installed(Fake(version), monkeypatch):
        assert record_of(build_engine(three, "fp16", say=lines.append)).float32_layers == {}
    assert not any(line.startswith("warning") for line in lines)


def test_settings_that_are_not_honoured_do_harm_only_if_the_results_are_wrong(
    three: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake("8.6.1")
    fake.inspected = [layer("norm", "Norm", HALF), layer("shares", "SoftMax", HALF)]

    def overflown(outputs: dict[str, np.ndarray]) -> None:
        outputs["findings"][:] = np.nan

    with installed(fake, monkeypatch):
        assert record_of(build_engine(three, "fp16")).float32_layers["lower"] == 2
        fake.wrong = overflown
        with pytest.raises(CheckFailed, match="findings"):
            build_engine(three, "fp16", force=True)


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.integers(1, 4096)] * 3).map(sorted))
def test_each_batch_has_one_profile(batches: list[int]) -> None:
    smallest, usual, largest = batches
    profiles = profiles_of((smallest, usual, largest))
    covered = [size for least, _, most in profiles for size in range(least, most + 1)]
    assert covered == list(range(smallest, largest + 1))
    assert all(least <= best <= most for least, best, most in profiles)
    assert any(best == usual for _, best, _ in profiles)
    if smallest == 1:
        assert profiles[0] == (1, 1, 1)


def test_layers_that_are_not_found_are_said(three: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, lines = Fake("8.6.1"), list[str]()
    fake.nodes = [("patch", "CONVOLUTION")]
    with installed(fake, monkeypatch):
        build_engine(three, "fp16", say=lines.append)
    assert re.search(r"^warning: only 0 of 2 nodes .*FP32$", "\n".join(lines), re.MULTILINE)
    assert any("whether 2 of 2 nodes" in line for line in lines)


def test_tensorrt_8_builds_no_fp16_without_knowing_what_stays_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundle_with(tmp_path / "b", {"fp16": tiny_onnx(tmp_path / "m.onnx")})
    with (
        installed(Fake("8.6.1"), monkeypatch),
        pytest.raises(ModelError, match="which nodes of the fp16 model stay FP32"),
    ):
        build_engine(bundle, "fp16")
    with installed(Fake("10.3.0"), monkeypatch):  # the file itself says it
        assert build_engine(bundle, "fp16").exists()


def test_int8_with_a_float32_rest_allows_no_fp16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundle_with(tmp_path / "b", {"int8": tiny_onnx(tmp_path / "m.onnx")}, int8={"float_part": "fp32"})
    with installed(Fake("8.6.1"), monkeypatch) as fake:
        build_engine(bundle, "int8")
    assert fake.named("flag") == [["INT8"]]


def test_the_target_gives_batch_and_memory_and_options_win(fake: Fake, bundle: Bundle) -> None:
    lines: list[str] = []
    assert record_of(build_engine(bundle, "fp32", Board(), say=lines.append)).batches == (1, 1, 4)
    assert fake.named("memory") == [["WORKSPACE", 512 << 20]] and "board: a note" in lines
    assert record_of(build_engine(bundle, "fp32", Board(), batches=(1, 1, 1), memory_mib=9)).batches == (1, 1, 1)
    assert fake.named("memory")[-1] == ["WORKSPACE", 9 << 20]
    shapes = [[shape[0] for shape in sizes] for _, *sizes in fake.named("set_shape")]
    assert shapes == [[1, 1, 1], [2, 2, 4], [1, 1, 1]]


@pytest.mark.parametrize(("newest", "warned"), [("10.3", False), ("10", False), ("10.2", True), ("8.6", True)])
def test_another_tensorrt_than_the_targets_is_said(fake: Fake, bundle: Bundle, newest: str, warned: bool) -> None:
    lines: list[str] = []
    build_engine(bundle, "fp32", Board(tensorrt=("8.5", newest)), say=lines.append)
    assert any("board runs TensorRT 8.5 to" in line for line in lines) is warned


@pytest.mark.parametrize(("capability", "warned"), [(None, False), ("8.7", False), ("7.0", True)])
def test_another_gpu_than_the_targets_is_said(fake: Fake, bundle: Bundle, capability: str, warned: bool) -> None:
    lines: list[str] = []
    build_engine(bundle, "fp32", Board(compute_capability=capability), say=lines.append)
    assert any("board has compute capability" in line for line in lines) is warned


def test_a_target_that_comes_with_edgecxr(fake: Fake, three: Bundle, tmp_path: Path) -> None:
    typed = edgecxr("build", three.path, "--target", "jetson-orin-nano", runs=tmp_path / "runs")
    assert typed.code == 0 and "fp16-orin-trt10.3.0.engine" in typed.out and "jetson-orin-nano: " in typed.err
    assert fake.named("set_shape")[0][1][0] == 1 and fake.named("memory")[0][1] > 1 << 20
    typed = edgecxr("build", three.path, "--target", "jetson-orin-nan", runs=tmp_path / "runs")
    assert typed.code == 2 and "did you mean 'jetson-orin-nano'?" in typed.error


def test_a_target_without_tensorrt_needs_no_engine(fake: Fake, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match="runs models on onnxruntime"):
        build_engine(bundle, "fp32", Board(engine="onnxruntime"))


@pytest.mark.parametrize("batches", [(0, 1, 1), (2, 1, 4), (1, 8, 4), (1, 1, 5000)])
def test_batches_that_do_not_rise(fake: Fake, bundle: Bundle, batches: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match=f"--batches {' '.join(map(str, batches))}: give the smallest"):
        build_engine(bundle, "fp32", batches=batches)
    assert not (bundle.path / "engines").exists()


def test_the_best_precision(three: Bundle, bundle: Bundle) -> None:
    assert choose_precision(three) == "fp16"
    assert choose_precision(three, Board()) == "int8"
    assert choose_precision(three, Board(precisions=("fp32",))) == "fp32"
    assert choose_precision(three, Board(precisions=("fp32", "int8", "fp16"))) == "fp16"
    assert choose_precision(bundle, Board()) == "fp32"
    with pytest.raises(ModelError, match=r"no model of int8 \(it has: fp32\)"):
        choose_precision(bundle, Board(precisions=("int8",)))


@pytest.mark.parametrize("status", ["pass", "unresolved"])
def test_an_unresolved_verdict_is_said(fake: Fake, tmp_path: Path, status: str) -> None:
    lines: list[str] = []
    model = tiny_onnx(tmp_path / "any.onnx")
    bundle = bundle_with(tmp_path / "b", {"fp32": model, "fp16": model}, fp16={"verdict": {"status": status}})
    build_engine(bundle, "fp16", say=lines.append)
    assert any("unresolved" in line for line in lines) is (status == "unresolved")


# ---- what is built again, and what is not


def test_a_fresh_engine_is_not_built_again(fake: Fake, bundle: Bundle) -> None:
    path = build_engine(bundle, "fp32")
    assert build_engine(bundle, "fp32") == path and len(fake.named("build")) == 1
    build_engine(bundle, "fp32", force=True)
    assert len(fake.named("build")) == 2
    build_engine(bundle, "fp32", batches=(1, 1, 1))
    assert len(fake.named("build")) == 3
    build_engine(bundle, "fp32")  # no wish for a batch: what is there will do
    assert len(fake.named("build")) == 3
    build_engine(bundle, "fp32", memory_mib=64)
    build_engine(bundle, "fp32", memory_mib=64)
    build_engine(bundle, "fp32", batches=(1, 8, 64))
    assert len(fake.named("build")) == 4 and record_of(path).memory_mib == 64
    path.write_bytes(b"plan")
    build_engine(bundle, "fp32")
    assert len(fake.named("build")) == 5 and record_of(path).engine_sha256 == sha256_of(path)


def test_the_timing_cache_goes_from_build_to_build(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32")
    build_engine(bundle, "fp32", force=True)
    assert fake.named("timing cache") == [[b""], [b"cache of 10.3.0"]]


def test_a_timing_cache_from_elsewhere_is_not_read(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32")
    (cache,) = (bundle.path / "engines").glob("*.cache")
    cache.write_bytes(b"strange")
    build_engine(bundle, "fp32", force=True)
    assert fake.named("timing cache")[-1] == [b""]


def test_a_timing_cache_that_tensorrt_refuses_is_left_out(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32")
    fake.fails.add("timing cache")
    build_engine(bundle, "fp32", force=True)
    assert fake.named("timing cache")[-2:] == [[b"cache of 10.3.0"], [b""]]


def test_engines_are_no_part_of_what_is_checked(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32")
    assert all(whole for _, whole in Bundle.open(bundle.path).verify())
    left = {path.name for path in (bundle.path / "engines").iterdir()}
    assert left == {f"fp32-orin-trt10.3.0.{end}" for end in ("engine", "json")} | {"timing-orin-trt10.3.0.cache"}


# ---- what fails


def failure(bundle: Bundle, **options: Any) -> str:
    with pytest.raises(ModelError) as caught:
        build_engine(bundle, "fp32", **options)
    assert caught.value.exit_code == 4
    assert not list((bundle.path / "engines").glob("[!.]*"))
    return str(caught.value)


@pytest.mark.parametrize(
    ("version", "node"), [("8.6.1", "node 3: no importer"), ("10.3.0", "node /blocks.0/strange (Strange): no importer")]
)
def test_an_operator_that_it_does_not_know_is_named(
    version: str, node: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(Fake(version), monkeypatch) as fake:
        fake.fails.add("parse")
        assert node in failure(bundle)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({}, "build with `--memory 256` or `--batches 1 1 1`"),
        ({"memory_mib": 64}, "build with `--memory 32` or `--batches 1 1 1`"),
        ({"memory_mib": 64, "batches": (1, 1, 1)}, "build with `--memory 32`"),
    ],
)
@pytest.mark.parametrize("words", ["Requested amount of GPU memory (1 MiB): OutOfMemory", "out of memory",
                                   "Tactic needs insufficient workspace", "cudaErrorMemoryAllocation"])  # fmt: skip
def test_memory_that_runs_out_names_the_limit_to_lower(
    fake: Fake, bundle: Bundle, options: dict[str, Any], advice: str, words: str
) -> None:
    fake.fails.add("build")
    fake.says = words
    assert failure(bundle, **options).endswith(advice)


def test_a_build_that_fails_otherwise_quotes_tensorrt(fake: Fake, bundle: Bundle) -> None:
    fake.fails.add("build")
    fake.says = "Could not find any implementation for node /blocks.3/fc1"
    message = failure(bundle)
    assert "Could not find any implementation for node /blocks.3/fc1" in message and "--memory" not in message


def test_no_gpu(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(Fake(), monkeypatch, gpu=None) as fake:
        fake.fails.add("builder")
        assert "TensorRT 10.3.0 cannot build here" in failure(bundle)


@pytest.mark.parametrize("step", ["deserialize", "context", "execute"])
def test_an_engine_that_does_not_run_where_it_was_built_is_not_written(fake: Fake, bundle: Bundle, step: str) -> None:
    fake.fails.add(step)
    fake.says = "no kernel image"
    assert "no kernel image" in failure(bundle)


def test_a_graph_of_others_is_refused(fake: Fake, bundle: Bundle) -> None:
    fake.fails.add("tensors")
    assert re.search(r"model\.onnx is not a model .*outputs \['y'\]", failure(bundle))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"Layers": []}', '{"Layers": ["only names"]}', '{"Layers": [{"Name": "x", "Outputs": [1]}]}'],
)
def test_an_inspector_that_says_something_else_does_no_harm(text: str) -> None:
    class Engine:
        def create_engine_inspector(self) -> Any:
            return self

        def get_engine_information(self, form: Any) -> str:
            return text

    assert inspected(Fake().module, Engine()) is None


def test_a_warning_that_layernorm_may_overflow_is_passed_on(
    fake: Fake, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    build = fake.module.Builder.build_serialized_network

    def warned(*args: Any) -> Any:
        fake.logger.log(fake.module.ILogger.WARNING, "Detected layernorm nodes in FP16: /norm/Pow")
        fake.logger.log(fake.module.ILogger.WARNING, "Something of no weight")
        fake.logger.log(fake.module.ILogger.INFO, "Detected layernorm nodes in FP16 too")
        return build(*args)

    monkeypatch.setattr(fake.module.Builder, "build_serialized_network", warned)
    path = build_engine(bundle, "fp32", say=lines.append)
    assert [line for line in lines if "warning" in line] == [
        "warning: TensorRT: Detected layernorm nodes in FP16: /norm/Pow"
    ]
    assert len(record_of(path).warnings) == 2


# ---- the command


def test_the_command_prints_the_engine(fake: Fake, bundle: Bundle, tmp_path: Path) -> None:
    typed = edgecxr("build", bundle.path, "--batches", "1", "2", "4", "--verify", runs=tmp_path / "runs")
    assert typed.code == 0
    assert typed.out == f"{bundle.path}/engines/fp32-orin-trt10.3.0.engine\n"
    assert "against ONNX Runtime on synthetic films, model.onnx: logits within" in typed.err
    again = edgecxr("build", bundle.path, runs=tmp_path / "runs")
    assert again.out == typed.out and "is fresh" in again.err


def test_the_command_without_a_gpu_builds_and_says_that_it_ran_nothing(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with installed(Fake(), monkeypatch, gpu=None):
        typed = edgecxr("build", bundle.path, runs=tmp_path / "runs")
    assert typed.code == 0 and Path(typed.out.strip()).exists()
    assert re.search(r"engine cannot be run .*no GPU", typed.err)


@pytest.mark.parametrize("built_before", [False, True])
def test_what_cannot_be_verified_is_no_success(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_before: bool
) -> None:
    with installed(Fake(), monkeypatch, gpu=None) as fake:
        if built_before:
            build_engine(bundle, "fp32")
        builds = len(fake.named("build"))
        typed = edgecxr("build", bundle.path, "--verify", runs=tmp_path / "runs")
    assert typed.code == 4 and not typed.out and "no NVIDIA GPU" in typed.error
    assert len(fake.named("build")) == builds  # said before a build, which takes minutes


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (("--precision", "fp8"), 2, "--precision fp8: give one of fp32, fp16, int8"),
        (("--precision", "int8"), 4, "has no int8 model"),
        (("--batches", "1", "2"), 2, "--batches"),
        (("--memory", "0"), 2, "--memory"),
        (("--images", "x.npz"), 2, "--images goes with --verify"),
    ],
)
def test_what_the_command_refuses(
    fake: Fake, bundle: Bundle, tmp_path: Path, args: tuple[str, ...], code: int, message: str
) -> None:
    typed = edgecxr("build", bundle.path, *args, runs=tmp_path / "runs")
    assert typed.code == code and message in typed.error


# ---- TensorRT-RTX itself


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TensorRT-RTX as on a machine without a GPU, whatever this one has."""
    library._library.cache_clear()
    monkeypatch.setattr(library, "find_gpu", lambda: None)
    yield
    library._library.cache_clear()


@needs_rtx
@pytest.mark.parametrize("profile", ["modern", "legacy"])
def test_rtx_builds_every_file_of_a_vit(profile: str, rtx: None, tmp_path: Path) -> None:
    from edgecxr.export.lower_precision import calibrate, to_fp16, to_int8
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT

    source = tmp_path / "fp32.onnx"
    export_fp32(TwoHeadViT("tiny", 28, 4, 3, depth=2).eval(), tiny_card(patch=4, tokens=49), source, profile)
    models = {"fp32": source, "fp16": tmp_path / "fp16.onnx", "int8": tmp_path / "int8.onnx"}
    to_fp16(source, models["fp16"])
    ranges = calibrate(source, np.random.default_rng(0).random((8, 1, 28, 28), dtype=np.float32), "minmax")
    for float_part in ("fp16", "fp32"):
        to_int8(source, models["int8"], ranges, float_part)
        bundle = bundle_with(tmp_path / float_part, models)
        for precision in models if float_part == "fp16" else ("int8",):  # the others are as before
            path = build_engine(bundle, precision)
            record = record_of(path)
            assert path.name.startswith(f"{precision}-no-gpu-trt-rtx") and record.here.library == "tensorrt_rtx"
            assert record.here.gpu is None and record.layers
            assert any(types.startswith(f"{precision} x {precision} -> ") for types in record.counts), record.counts
            assert record.engine_bytes == path.stat().st_size > 10_000
            assert record.onnx_sha256 == sha256_of(models[precision])
            assert not any("layernorm" in text.lower() for text in record.warnings)


def test_no_engine_is_written_through_a_link(fake: Fake, bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (bundle.path / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="is a link"):
        build_engine(bundle, "fp32")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@needs_rtx
def test_rtx_makes_int8_products_of_a_convolutional_stem_and_says_what_it_does_not_fuse(
    rtx: None, tmp_path: Path
) -> None:
    from edgecxr.export.lower_precision import calibrate, to_fp16, to_int8, weighted_layers
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT

    source = tmp_path / "fp32.onnx"
    card = tiny_card(patch=4, tokens=49, stem="conv")
    model = TwoHeadViT("tiny", 28, 4, 3, depth=2, stem="conv").eval()
    export_fp32(model, card, source, "recent", split_attention=True)
    models = {"fp32": source, "fp16": tmp_path / "fp16.onnx", "int8": tmp_path / "int8.onnx"}
    facts = {"fp16": to_fp16(source, models["fp16"])}
    ranges = calibrate(source, np.random.default_rng(0).random((8, 1, 28, 28), dtype=np.float32), "minmax")
    facts["int8"] = to_int8(source, models["int8"], ranges, "fp16")
    bundle = bundle_with(tmp_path / "b", models, **facts)
    stem = {name for name in weighted_layers(source) if name.startswith("patch_embed")}
    assert len(stem) == 3
    for precision, unfused in (("fp16", 0), ("int8", 2)):
        lines: list[str] = []
        record = record_of(build_engine(bundle, precision, say=lines.append))
        assert any(f"does not fuse {unfused} of the 2 convolutions" in line for line in lines) is (unfused > 0)
        assert record.layers is not None and any("[profile 1]" in name for name in record.layers)
        kinds = [types for name, types in record.layers.items() if "patch_embed" in name and " x " in types]
        assert kinds and all(types.startswith(f"{precision} x {precision} ->") for types in kinds)


@needs_rtx
def test_rtx_names_the_operator_that_it_does_not_know(
    rtx: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelFile, "check", lambda model: None)  # which refuses it first
    model = onnx.load(tiny_onnx(tmp_path / "m.onnx"))
    model.graph.node[0].CopyFrom(helper.make_node("Strange", ["image"], ["pooled"], name="first", domain="somewhere"))
    model.opset_import.append(helper.make_opsetid("somewhere", 1))
    onnx.save_model(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"node first \(Strange\)"):
        build_engine(bundle_with(tmp_path / "b", {"fp32": tmp_path / "m.onnx"}), "fp32")


@needs_rtx
def test_rtx_refuses_a_file_that_is_no_model(rtx: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelFile, "check", lambda model: None)
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"does not take .*the file: "):
        build_engine(bundle_with(tmp_path / "b", {"fp32": tmp_path / "m.onnx"}), "fp32")

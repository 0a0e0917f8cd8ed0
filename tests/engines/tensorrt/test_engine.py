"""The TensorRT runner against a fake of TensorRT that computes; no GPU is needed or used."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.bundle.bundle import Bundle, write_bundle
from edgecxr.bundle.engine_record import EngineRecord
from edgecxr.engines.backend import open_backend
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.engines.tensorrt import library
from edgecxr.engines.tensorrt.build import build_engine
from edgecxr.engines.tensorrt.engine import TensorRTBackend
from edgecxr.engines.tensorrt.library import Gpu
from edgecxr.errors import EdgeCxrError, MissingPackage, ModelError, UsageError
from tests.cli_workspace import edgecxr
from tests.fake_tensorrt import VERSIONS, Fake, FakeBuffers, installed
from tests.tiny_bundle import tiny_bundle, tiny_card, tiny_onnx


@pytest.fixture(params=VERSIONS)
def every(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with installed(Fake(request.param), monkeypatch) as fake:
        yield fake


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    with installed(Fake(), monkeypatch) as fake:
        yield fake


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "state"))
    return tiny_bundle(tmp_path / "tiny")


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, 28, 28), dtype=np.float32)


def opened(bundle: Bundle, batches: tuple[int, int, int] = (1, 2, 4), graphs: bool = True) -> TensorRTBackend:
    build_engine(bundle, "fp32", batches=batches)
    return TensorRTBackend(bundle.artefact(), graphs=graphs)


def assert_as_onnxruntime(backend: TensorRTBackend, bundle: Bundle, images: np.ndarray) -> None:
    ours, theirs = backend.run(images), OnnxRuntimeBackend(bundle.artefact()).run(images)
    for name in ("findings", "abnormal", "attention", "features"):
        mine, other = getattr(ours, name), getattr(theirs, name)
        assert mine.shape == other.shape and mine.dtype == np.float32, name
        np.testing.assert_allclose(mine, other, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 11])
def test_answers_are_those_of_the_onnx_file_for_any_number_of_images(every: Fake, bundle: Bundle, count: int) -> None:
    backend = opened(bundle)
    for seed in range(4):  # launched, captured, replayed, replayed
        assert_as_onnxruntime(backend, bundle, images(count, seed))
    backend.close()


def test_a_model_of_before_there_were_features_still_runs(fake: Fake, bundle: Bundle, tmp_path: Path) -> None:
    fake.fails.add("features")
    old = tiny_onnx(tmp_path / "old.onnx", features=False)
    before = write_bundle(tmp_path / "before", tiny_card(gate={}), {"model.onnx": old})
    outputs = opened(before).run(images(2))
    assert outputs.findings.shape == (2, 3) and outputs.features is None


def test_more_images_than_the_largest_batch_are_split(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle, graphs=False)
    fake.calls.clear()
    assert backend.run(images(10)).findings.shape == (10, 3)
    assert fake.named("execute") == [[4], [4], [2]]
    assert fake.named("shape") == [[(4, 1, 28, 28)], [(2, 1, 28, 28)]]


def test_fewer_images_than_the_smallest_batch_are_filled_up(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle, (3, 3, 4))
    backend.run(images(3))
    assert_as_onnxruntime(backend, bundle, images(1))
    batch = np.frombuffer(next(iter(fake.memory.values())), np.float32).reshape(4, -1)
    assert batch[0].any() and not batch[1:3].any()
    assert fake.named("execute")[-1] == [3]


def test_copies_and_work_are_in_order_on_one_stream(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle, graphs=False)
    fake.calls.clear()
    backend.run(images(2))
    steps = [call[0] for call in fake.calls]
    assert steps == ["to_device", "shape", "execute", *["to_host"] * 4, "synchronise"]


def test_a_graph_is_captured_once_for_a_batch_that_stays_and_dropped_when_it_changes(
    fake: Fake, bundle: Bundle
) -> None:
    backend = opened(bundle)
    fake.calls.clear()
    for _ in range(5):
        backend.run(images(2))
    assert len(fake.named("capture")) == 1 and len(fake.named("replay")) == 4 and not fake.named("free graph")
    backend.run(images(3))
    assert len(fake.named("free graph")) == 1 and fake.named("execute")[-1] == [3]
    assert_as_onnxruntime(backend, bundle, images(2, seed=9))


def test_a_single_film_has_its_own_kernels_and_keeps_its_graph(every: Fake, bundle: Bundle) -> None:
    backend = opened(bundle)
    every.calls.clear()
    every.ran.clear()
    for count in (1, 1, 1, 4, 3, 1, 5, 1):  # 5 are 4 and 1
        assert_as_onnxruntime(backend, bundle, images(count, seed=count))
    # The second run of the single film is captured; the others of it are replays, whatever comes between.
    assert every.ran == [(0, 1), (0, 1), (1, 4), (1, 3), (1, 4)]
    assert len(every.named("capture")) == 1 and len(every.named("replay")) == 5 and not every.named("free graph")
    backend.close()
    assert len(every.named("free graph")) == 1


def test_the_first_answer_to_a_single_film_comes_from_its_own_kernels(
    fake: Fake, bundle: Bundle, tmp_path: Path
) -> None:
    film = tmp_path / "film.png"
    Image.fromarray(np.linspace(0, 255, 256 * 256).reshape(256, 256).astype(np.uint8)).save(film)
    build_engine(bundle, "fp32", batches=(1, 8, 64))
    fake.ran.clear()
    typed = edgecxr("infer", film, "--model", bundle.path, "--backend", "tensorrt", "--json", runs=tmp_path / "runs")
    assert typed.code == 0 and fake.ran == [(0, 1)]


@pytest.mark.parametrize("step", ["profile of a context"])
def test_a_profile_that_is_refused_is_said(fake: Fake, bundle: Bundle, step: str) -> None:
    build_engine(bundle, "fp32")
    fake.fails.add(step)
    assert "profile 1" in refused(bundle) and fake.calls[-1] == ("close buffers",)


def test_an_engine_of_one_profile_still_runs(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle, (4, 4, 4))
    for count in (1, 4, 7):
        assert_as_onnxruntime(backend, bundle, images(count))
    assert {profile for profile, _ in fake.ran} == {0}


def test_without_graphs_everything_is_launched(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle)
    fake.fails.add("capture")
    fake.calls.clear()
    for seed in range(4):
        assert_as_onnxruntime(backend, bundle, images(2, seed))
    assert fake.named("execute") == [[2]] * 4 and not fake.named("replay")


def test_memory_is_taken_once_and_given_back(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle)
    taken = [4 * size * 4 for size in (28 * 28, 3, 1, 4, 4)]
    assert [args[0] for args in fake.named("alloc")] == taken * 2  # for the comparison, then for the runs
    for count in (1, 4, 9, 1, 2, 2, 2):
        backend.run(images(count))
    assert len(fake.named("alloc")) == 10 and len(fake.memory) == 5
    backend.close()
    backend.close()
    gc.collect()
    assert fake.calls[-2:] == [("free graph",), ("close buffers",)] and not fake.memory


def test_a_closed_backend_says_so(fake: Fake, bundle: Bundle) -> None:
    backend = opened(bundle)
    backend.close()
    with pytest.raises(ModelError, match="has been closed: open"):
        backend.run(images(1))


def test_half_outputs_become_float32(fake: Fake, bundle: Bundle) -> None:
    fake.fails.add("half")
    outputs = opened(bundle).run(images(2))
    assert outputs.findings.dtype == np.float32
    np.testing.assert_allclose(outputs.findings[:, 0], 4 * images(2)[:, 0, :14, :14].mean(axis=(1, 2)) - 2, atol=1e-2)


def test_threads_share_a_backend(fake: Fake, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(bundle)
    copy = FakeBuffers.to_device

    def slowly(self: FakeBuffers, address: int, host: np.ndarray) -> None:
        copy(self, address, host)
        time.sleep(0.005)  # in which another thread would write its images over these

    monkeypatch.setattr(FakeBuffers, "to_device", slowly)
    expected = [OnnxRuntimeBackend(bundle.artefact()).run(images(3, seed)).findings for seed in range(8)]
    results: dict[int, np.ndarray] = {}
    threads = [
        threading.Thread(target=lambda s=seed: results.__setitem__(s, backend.run(images(3, s)).findings))
        for seed in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in range(8):
        np.testing.assert_allclose(results[seed], expected[seed], atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (images(1).astype(np.float64), "not float64 of shape"),
        (images(1)[:, :, :14], "takes float32 images of shape"),
        (images(0), "takes float32 images of shape"),
        (images(1) * 255, r"takes pixels in \[0, 1\]"),
        (np.full((1, 1, 28, 28), np.nan, np.float32), r"takes pixels in \[0, 1\]"),
    ],
)
def test_images_that_do_not_fit_are_refused(fake: Fake, bundle: Bundle, images: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        opened(bundle).run(images)


# ---- an engine that must not be loaded


def refused(bundle: Bundle) -> str:
    """Return why no engine is loaded; the message must name the command that builds one."""
    with pytest.raises(ModelError) as caught:
        TensorRTBackend(bundle.path / "model.onnx")
    assert caught.value.exit_code == 4
    assert f"`edgecxr build {bundle.path} --precision fp32`" in str(caught.value)
    return str(caught.value)


def test_an_engine_that_was_never_compared(fake: Fake, bundle: Bundle) -> None:
    path = build_engine(bundle, "fp32").with_suffix(".json")
    record, _ = EngineRecord.read(path)
    comparisons = record.verified.copy()
    for verified in ({}, {"noise, model.onnx": {"images": 64, "max_logit_difference": 0.0}}):  # of before
        dataclasses.replace(record, verified=verified).write(path)
        fake.calls.clear()
        assert "has not been compared" in refused(bundle) and not fake.named("deserialize")
    build_engine(bundle, "fp32")  # built again, since it could not be used
    assert EngineRecord.read(path)[0].verified == comparisons


def test_no_engine_yet(fake: Fake, bundle: Bundle) -> None:
    assert "model.onnx has no engine yet" in refused(bundle)


def test_the_engine_of_another_gpu(fake: Fake, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    build_engine(bundle, "fp32")
    monkeypatch.setattr(library, "find_gpu", lambda: Gpu("Tesla V100", "7.0"))
    message = refused(bundle)
    assert "was built for Orin (compute capability 8.7)" in message
    assert "here is Tesla V100 (compute capability 7.0)" in message


def test_the_engine_of_another_tensorrt(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(Fake("10.3.0"), monkeypatch):
        build_engine(bundle, "fp32")
    with installed(Fake("11.4.0"), monkeypatch) as newer:
        assert "was built by TensorRT 10.3.0, and here is TensorRT 11.4.0" in refused(bundle)
        assert not newer.named("deserialize")


def test_an_engine_older_than_its_model(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32")
    tiny_onnx(bundle.path / "model.onnx", labels=2)
    assert "was built from another model.onnx than" in refused(bundle)


def test_a_changed_engine_is_never_deserialised(fake: Fake, bundle: Bundle) -> None:
    path = build_engine(bundle, "fp32")
    path.write_bytes(path.read_bytes() + b" ")
    fake.calls.clear()
    assert re.search(r"has changed since .*not loaded", refused(bundle))
    assert not fake.named("deserialize")


def test_an_engine_that_came_with_the_bundle_is_never_deserialised(
    fake: Fake, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_engine(bundle, "fp32")  # everything fits, but another machine's key has sealed the record
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "another machine"))
    fake.calls.clear()
    assert re.search(r"not built by .*this machine", refused(bundle))
    build_engine(bundle, "fp32", batches=(1, 1, 1))  # this machine has a key now
    for record in (bundle.path / "engines").glob("*.json"):
        values = json.loads(record.read_text())
        record.write_text(json.dumps(values | {"batches": [1, 2, 3]}))
    fake.calls.clear()
    assert re.search(r"not built by .*this machine", refused(bundle))
    assert not fake.named("deserialize")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seal": 1}', "[" * 100_000, '{"seal": "é", "here": {}}'])
def test_a_damaged_record_is_named(fake: Fake, bundle: Bundle, content: str) -> None:
    path = build_engine(bundle, "fp32").with_suffix(".json")
    path.write_text(content)
    assert f"{path} is not the record" in refused(bundle)


def test_an_engine_that_vanished(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32").unlink()
    assert "cannot be read" in refused(bundle)


@pytest.mark.parametrize("step", ["deserialize", "execute"])
def test_what_tensorrt_refuses_is_said_with_its_own_words(fake: Fake, bundle: Bundle, step: str) -> None:
    build_engine(bundle, "fp32")
    fake.fails.add(step)
    fake.says = "Error Code 1: Serialization (Version tag does not match)"
    with pytest.raises(ModelError, match=r"Version tag does not match.*`edgecxr build .* --precision fp32`"):
        TensorRTBackend(bundle.artefact()).run(images(1))


@pytest.mark.parametrize("step", ["context", "address"])
def test_no_room_on_the_gpu(fake: Fake, bundle: Bundle, step: str) -> None:
    build_engine(bundle, "fp32")
    fake.fails.add(step)
    fake.says = "CUDA out of memory"
    with pytest.raises(ModelError, match=r"CUDA out of memory.*close what else uses"):
        TensorRTBackend(bundle.artefact())
    assert fake.calls[-1] == ("close buffers",)


def test_no_gpu_is_said_in_one_line(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with installed(Fake(), monkeypatch, gpu=None), pytest.raises(ModelError, match=r"TensorRT: .*no NVIDIA GPU"):
        TensorRTBackend(bundle.artefact())


def test_threads_are_a_wish_that_a_gpu_cannot_fulfil(fake: Fake, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"tensorrt backend .*number of threads out"):
        open_backend("tensorrt", bundle.artefact(), threads=2)


def test_errors_of_the_buffer_library_become_ours(fake: Fake, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(bundle)

    def broken(*_: object) -> None:
        raise RuntimeError("cuMemcpyHtoDAsync failed: illegal address")

    monkeypatch.setattr("tests.fake_tensorrt.FakeBuffers.to_device", broken)
    with pytest.raises(ModelError, match=r"failed on 2 images \(cuMemcpyHtoDAsync failed"):
        backend.run(images(2))


# ---- finding TensorRT


@pytest.fixture
def nothing_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An interpreter's path on which there is no TensorRT; modules put there are found."""
    import sys

    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "editable" not in repr(finder)])
    for name in library.MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    library._library.cache_clear()
    yield tmp_path
    library._library.cache_clear()
    for name in library.MODULES:
        sys.modules.pop(name, None)


def module(folder: Path, name: str, version: str) -> None:
    (folder / f"{name}.py").write_text(f"__version__ = {version!r}\nclass ILogger: pass\n")


def test_tensorrt_comes_before_tensorrt_rtx(nothing_installed: Path) -> None:
    module(nothing_installed, "tensorrt_rtx_bindings", "1.7")
    assert library.load_tensorrt("x").name == "tensorrt_rtx"
    library._library.cache_clear()
    module(nothing_installed, "tensorrt", "10.3")
    loaded = library.load_tensorrt("x")
    assert (loaded.name, loaded.version) == ("tensorrt", "10.3")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, r"build needs tensorrt, which is not installed: .*pip install"),
        ("raise OSError('libnvinfer.so.10: cannot open shared object')", r"does not load \(libnvinfer.so.10"),
        ("import tensorrt_libs_gone", r"does not load \(No module named 'tensorrt_libs_gone'"),
    ],
)
def test_no_tensorrt_exits_with_5(nothing_installed: Path, source: str | None, message: str) -> None:
    if source is not None:
        (nothing_installed / "tensorrt.py").write_text(source)
    with pytest.raises(MissingPackage, match=message) as caught:
        library.load_tensorrt("edgecxr build")
    assert isinstance(caught.value, EdgeCxrError) and caught.value.exit_code == 5


def test_the_seal_needs_no_change_of_the_bundle(fake: Fake, bundle: Bundle) -> None:
    build_engine(bundle, "fp32")
    assert all(whole for _, whole in Bundle.open(bundle.path).verify())


@pytest.mark.parametrize("kind", ["infinite", "wrong kinds", "deep", "key twice", "pipe", "device", "folder"])
def test_an_odd_record_is_in_no_good_engine_s_way(fake: Fake, bundle: Bundle, kind: str) -> None:
    opened(bundle).close()
    folder = bundle.path / "engines"
    (good,) = folder.glob("*.json")
    odd, text = folder / "0.json", good.read_text()
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "device":
        odd.symlink_to("/dev/zero")
    elif kind == "folder":
        odd.mkdir()
    else:
        record = json.loads(text)
        odd.write_text({
            "infinite": json.dumps(record | {"batches": [float("inf")] * 3}), "deep": "[" * 100_000,
            "wrong kinds": json.dumps(record | {"precision": [], "here": record["here"] | {"gpu": {}}}),
            "key twice": text.replace("{", '{"onnx": "", ', 1),
        }[kind])  # fmt: skip
    TensorRTBackend(bundle.artefact()).close()

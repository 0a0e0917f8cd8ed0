from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecxr import registry
from edgecxr.engines.backend import open_backend
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.engines.openvino import OpenVinoBackend
from edgecxr.errors import MissingPackage, ModelError, UsageError
from edgecxr.infer.predictor import Predictor
from tests.tiny_bundle import tiny_bundle, tiny_onnx

pytest.importorskip("openvino")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx(tmp_path / "model.onnx")


def films(count: int, seed: int = 0, size: int = 28) -> np.ndarray:
    return np.random.default_rng(seed).random((count, 1, size, size), np.float32)


def close_to(path: Path, images: np.ndarray, tolerance: float) -> None:
    ours, theirs = OpenVinoBackend(path, 1).run(images), OnnxRuntimeBackend(path, 1).run(images)
    for name in ("findings", "abnormal", "attention", "features"):
        assert getattr(ours, name).shape == getattr(theirs, name).shape
        assert getattr(ours, name).dtype == np.float32
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=tolerance, rtol=0)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_it_gives_what_onnxruntime_gives(model: Path, batch: int) -> None:
    close_to(model, films(batch), 1e-6)


def test_a_vision_transformer_gives_the_same_logits_at_fp32(tmp_path: Path) -> None:
    # bfloat16, which OpenVINO prefers where the CPU has it, is off by 0.04 here.
    torch = pytest.importorskip("torch")
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT
    from tests.tiny_bundle import tiny_card

    torch.manual_seed(0)
    net = TwoHeadViT("tiny", 28, 4, 3, depth=4).eval()
    with torch.no_grad():  # a new model's attention is so even that it says little
        for value in net.parameters():
            value.mul_(3 if value.ndim > 1 else 1)
    export_fp32(net, tiny_card(), tmp_path / "vit.onnx")
    close_to(tmp_path / "vit.onnx", films(4), 1e-4)


def test_a_model_with_q_and_dq_nodes_runs(model: Path, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Films:
        def __init__(self) -> None:
            self.rest = [{"image": films(4, seed)} for seed in range(3)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.rest.pop() if self.rest else None

    kind = quantization.QuantType.QInt8
    quantization.quantize_static(
        model, tmp_path / "int8.onnx", Films(), activation_type=kind, weight_type=kind, op_types_to_quantize=["MatMul"]
    )
    kinds = {node.op_type for node in onnx.load(tmp_path / "int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    ours = OpenVinoBackend(tmp_path / "int8.onnx").run(films(4))
    np.testing.assert_allclose(ours.findings, OnnxRuntimeBackend(model).run(films(4)).findings, atol=0.05)


def test_a_bundle_is_predicted_alike_by_both(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    pixels = np.linspace(0, 1, 224 * 224).reshape(224, 224)
    with Predictor(bundle, "openvino", threads=2) as ours, Predictor(bundle) as theirs:
        assert ours.predict(pixels).findings == pytest.approx(theirs.predict(pixels).findings, abs=1e-6)


def test_one_image_alone_gets_what_it_gets_among_others(model: Path) -> None:
    backend, images = OpenVinoBackend(model, threads=1), films(3)
    alone = [backend.run(images[number : number + 1]).findings[0] for number in range(3)]
    np.testing.assert_allclose(alone, backend.run(images).findings, atol=1e-6)
    np.testing.assert_array_equal(backend.run(images[:1]).findings[0], alone[0])
    backend.close()
    for count in (1, 3):
        with pytest.raises(ModelError, match="has been closed"):
            backend.run(images[:count])


def test_a_model_that_does_not_compile_for_a_batch_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    backend = OpenVinoBackend(model, threads=1)

    class Broken:
        def compile_model(self, *_: object) -> None:
            raise RuntimeError("no memory is left")

    monkeypatch.setattr(openvino, "Core", Broken)
    with pytest.raises(ModelError, match="no memory is left"):
        backend.run(films(2))
    assert np.isfinite(backend.run(films(1)).findings).all()


def test_threads_get_what_one_gets_alone(model: Path) -> None:
    backend = OpenVinoBackend(model, threads=2)
    batches = [films(1 + seed % 3, seed) for seed in range(8)]
    alone = [backend.run(images) for images in batches]
    ready = threading.Barrier(8)

    def work(number: int) -> bool:
        ready.wait()
        for turn in range(60):
            which = (number + turn) % 8
            if not np.array_equal(backend.run(batches[which]).findings, alone[which].findings):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [True] * 8


def test_what_was_returned_stays_as_it_was(model: Path) -> None:
    backend = OpenVinoBackend(model)
    first = backend.run(films(1, 1))
    kept = first.findings.copy()
    backend.run(films(1, 2))
    np.testing.assert_array_equal(first.findings, kept)


def test_a_closed_backend_says_so_and_what_others_have_begun_ends_well(model: Path) -> None:
    for _ in range(10):
        backend = OpenVinoBackend(model, threads=1)
        expected = backend.run(films(1)).findings
        ready = threading.Barrier(4)

        def work(number: int, backend: OpenVinoBackend = backend, expected: np.ndarray = expected) -> str:
            ready.wait()  # noqa: B023
            if number == 0:
                backend.close()
            try:
                while True:
                    np.testing.assert_array_equal(backend.run(films(1)).findings, expected)
            except ModelError as error:
                return str(error)

        with ThreadPoolExecutor(4) as pool:
            assert all("has been closed" in message for message in pool.map(work, range(4)))
        backend.close()


def test_a_strided_view_gives_the_same_answer(model: Path) -> None:
    backend, image = OpenVinoBackend(model), films(1)
    padded = np.zeros((1, 1, 28, 56), np.float32)
    padded[..., ::2] = image
    np.testing.assert_array_equal(backend.run(padded[..., ::2]).findings, backend.run(image).findings)


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (np.zeros((1, 1, 56, 56), np.float32), r"\(N, 1, 28, 28\)"),
        (np.zeros((0, 1, 28, 28), np.float32), r"\(0, 1, 28, 28\)"),
        (np.zeros((1, 1, 28, 28), np.float64), "float64"),
        (np.full((1, 1, 28, 28), 255, np.float32), r"\[0, 1\], not 255 to 255"),
    ],
)
def test_images_that_do_not_fit_are_refused(model: Path, images: np.ndarray, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        OpenVinoBackend(model).run(images)


@pytest.mark.parametrize("content", [b"this is not a graph", b"", None])
def test_a_file_that_is_no_model_is_named_in_one_line(
    model: Path, content: bytes | None, capfd: pytest.CaptureFixture[str]
) -> None:
    model.write_bytes(model.read_bytes()[:-40] if content is None else content)
    with pytest.raises(ModelError, match=r"model\.onnx .*(export)") as caught:
        OpenVinoBackend(model)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_an_absent_file_and_a_wrong_thread_count_are_said(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx does not exist"):
        OpenVinoBackend(tmp_path / "absent.onnx")
    with pytest.raises(UsageError, match="0 threads"):
        open_backend("openvino", model, threads=0)


def test_a_graph_with_other_names_is_refused(model: Path) -> None:
    graph = onnx.load(model)
    for node in graph.graph.node:
        node.output[:] = ["heat" if name == "attention" else name for name in node.output]
    graph.graph.output[2].name = "heat"
    onnx.save_model(graph, model)
    with pytest.raises(ModelError, match=r"'heat'"):
        OpenVinoBackend(model)


def test_without_openvino_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackage, match=r"the openvino backend needs openvino, .*pip.* install .*\[openvino\]"):
        OpenVinoBackend(model)


def test_the_registry_names_this_class() -> None:
    assert registry.resolve(registry.BACKENDS, "openvino", "backend") is OpenVinoBackend


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_withheld_cores_stay_idle(model: Path) -> None:
    program = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pathlib import Path; from edgecxr.engines.openvino import OpenVinoBackend\n"
        "import numpy; backend = OpenVinoBackend(Path(sys.argv[1]))\n"
        "backend.run(numpy.zeros((1, 1, 28, 28), numpy.float32))\n"
        "print({len(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')})"
    )
    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "{1}", done.stderr

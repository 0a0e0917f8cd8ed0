from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgecxr import registry
from edgecxr.errors import MissingPackage, ModelError, UsageError
from edgecxr.runtime.backend import open_backend
from edgecxr.runtime.onnxruntime import OnnxRuntimeBackend
from tests.tiny_bundle import tiny_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_onnx(tmp_path / "model.onnx")


def quadrants(*means: float, size: int = 28) -> np.ndarray:
    """Return (1, 1, size, size) whose upper left, upper right, lower left, lower right have these values."""
    image = np.array(means, np.float32).reshape(1, 1, 2, 2)
    return image.repeat(size // 2, axis=2).repeat(size // 2, axis=3)


def test_outputs_are_what_the_graph_says(model: Path) -> None:
    outputs = open_backend("onnxruntime", model, threads=1).run(quadrants(0.0, 0.25, 0.5, 1.0))
    np.testing.assert_allclose(outputs.findings, [[-2.0, -1.0, 0.0]], atol=1e-6)
    np.testing.assert_allclose(outputs.abnormal, [4 * 0.4375 - 2], atol=1e-6)
    shares = np.exp([[0.0, 0.25], [0.5, 1.0]])
    np.testing.assert_allclose(outputs.attention, [shares / shares.sum()], atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_each_image_of_a_batch_gets_its_own_answer(model: Path, batch: int) -> None:
    means = np.linspace(0, 1, batch + 1)[1:]
    images = np.concatenate([quadrants(mean, 0, 0, 0) for mean in means])
    outputs = OnnxRuntimeBackend(model).run(images)
    assert outputs.findings.shape == (batch, 3)
    assert outputs.abnormal.shape == (batch,)
    assert outputs.attention.shape == (batch, 2, 2)
    np.testing.assert_allclose(outputs.findings[:, 0], 4 * means - 2, atol=1e-4)


def test_a_strided_view_gives_the_same_answer(model: Path) -> None:
    backend, image = OnnxRuntimeBackend(model), quadrants(0.1, 0.2, 0.3, 0.4)
    padded = np.zeros((1, 1, 28, 56), np.float32)
    padded[..., ::2] = image
    np.testing.assert_array_equal(backend.run(padded[..., ::2]).findings, backend.run(image).findings)


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (np.zeros((1, 1, 56, 56), np.float32), r"\(N, 1, 28, 28\)"),
        (np.zeros((1, 3, 28, 28), np.float32), r"\(1, 3, 28, 28\)"),
        (np.zeros((28, 28), np.float32), r"\(28, 28\)"),
        (np.zeros((0, 1, 28, 28), np.float32), r"\(0, 1, 28, 28\)"),
        (np.zeros((1, 1, 28, 28), np.float64), "float64"),
        (np.full((1, 1, 28, 28), 255, np.float32), r"\[0, 1\], not 255 to 255"),
        (np.full((1, 1, 28, 28), np.nan, np.float32), "nan"),
    ],
)
def test_images_that_do_not_fit_are_refused(model: Path, images: np.ndarray, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        OnnxRuntimeBackend(model).run(images)


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"this is not a graph")
    with pytest.raises(ModelError, match=r"broken\.onnx cannot be loaded by ONNX Runtime .*export the model again"):
        OnnxRuntimeBackend(tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match=r"absent\.onnx does not exist"):
        OnnxRuntimeBackend(tmp_path / "absent.onnx")


def test_a_truncated_model_is_one_line(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-40])
    with pytest.raises(ModelError) as caught:
        OnnxRuntimeBackend(model)
    assert "\n" not in str(caught.value)


def test_a_graph_with_other_names_is_refused(model: Path) -> None:
    graph = onnx.load(model)
    for node in graph.graph.node:
        node.output[:] = ["heat" if name == "attention" else name for name in node.output]
    graph.graph.output[2].name = "heat"
    onnx.save_model(graph, model)
    with pytest.raises(ModelError, match=r"'heat'"):
        OnnxRuntimeBackend(model)


def test_a_closed_backend_says_so(model: Path) -> None:
    backend = OnnxRuntimeBackend(model)
    backend.close()
    backend.close()
    with pytest.raises(ModelError, match="closed"):
        backend.run(quadrants(0, 0, 0, 0))


def test_a_wrong_name_or_thread_count_is_a_usage_error(model: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        open_backend("onnxruntim", model)
    with pytest.raises(UsageError, match="0 threads"):
        open_backend("onnxruntime", model, threads=0)


def test_without_onnxruntime_the_remedy_is_named(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage, match=r"needs onnxruntime, which is not installed: .*pip install"):
        OnnxRuntimeBackend(model)


def test_the_registry_names_this_class() -> None:
    assert registry.resolve(registry.BACKENDS, "onnxruntime", "backend") is OnnxRuntimeBackend


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_withheld_cores_stay_idle(model: Path) -> None:
    program = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pathlib import Path; from edgecxr.runtime.onnxruntime import OnnxRuntimeBackend\n"
        "backend = OnnxRuntimeBackend(Path(sys.argv[1]))\n"
        "print({len(os.sched_getaffinity(int(task))) for task in os.listdir('/proc/self/task')})"
    )
    done = subprocess.run([sys.executable, "-c", program, model], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "{1}", done.stderr

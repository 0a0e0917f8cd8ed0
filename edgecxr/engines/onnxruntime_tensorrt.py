"""ONNX Runtime with NVIDIA's TensorRT, which builds its engines while it runs."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import LARGEST_CARD, ModelCard
from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnxruntime import CPU, OnnxRuntimeBackend, cuda, load_cuda_libraries
from edgecxr.engines.reference import Reference
from edgecxr.errors import UsageError
from edgecxr.storage.folders import CARD
from edgecxr.storage.private import check_private
from edgecxr.storage.reading import BadFile, read_text
from edgecxr.vocabulary import FloatArray

TENSORRT = "TensorrtExecutionProvider"


class ComparedBackend:
    """ONNX Runtime on TensorRT, whose engines are compared with their file.

    The provider builds an engine for the first batch, and another one whenever a batch is smaller or larger than all
    before. Each is compared with ONNX Runtime on the CPU before a result of it is returned.

    Args:
        backend: what is compared.
        model: its file, in a bundle or not.
        precision: of the file.

    Attributes:
        path: the file.
        shapes: as of `OnnxRuntimeBackend`.
    """

    def __init__(self, backend: OnnxRuntimeBackend, model: ModelFile, precision: str) -> None:
        self._backend, self._model, self._precision = backend, model, precision
        self.path, self.shapes = backend.path, backend.shapes
        self._lock = threading.Lock()
        self._reference: Reference | None = None
        self._compared: tuple[int, int] | None = None  # smallest and largest batch

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or ONNX Runtime failed.
            CheckFailed: the engine for this batch does not compute what its file says.
        """
        count = len(images)
        with self._lock:
            if count and not (self._compared and self._compared[0] <= count <= self._compared[1]):
                self._compare(count)
        return self._backend.run(images)

    def close(self) -> None:
        """Free the session."""
        self._backend.close()
        self._reference = None

    def _compare(self, count: int) -> None:
        if self._reference is None:
            if self._model.path.with_name(CARD).is_file():
                self._reference = Reference.of(Bundle.open(self._model.path.parent), self._precision)
            else:
                self._reference = Reference.of_file(self._model, int(self.shapes["image"][-1]))
        low, high = self._compared or (count, count)
        low, high = min(low, count), max(high, count)
        # The batch at hand comes first: it makes the provider build the engine that serves the others from now on.
        self._reference.check(self._backend, [count, *sorted({low, high} - {count})])
        self._compared = low, high


def open_tensorrt(path: Path | ModelFile, threads: int | None = None) -> ComparedBackend:
    """Open an ONNX file with the TensorRT provider on the first GPU.

    The first run with a batch size builds an engine, which can take minutes. Engines are cached in the user's cache
    folder if it is writable. Nodes that TensorRT cannot compute go to CUDA. Each engine is compared with
    its file when its first batch comes. Arguments and errors are those of `OnnxRuntimeBackend`.
    """
    model = ModelFile.of(path)
    load_cuda_libraries()
    facts = _facts(model.path)
    # TensorRT needs these flags to use kernels of less than 32 bits, although the file states its precisions. They are
    # off for an FP32 file, because TensorRT would compute it in FP16.
    half = "fp16" in (facts.get("precision"), facts.get("float_part"))
    options: dict[str, Any] = {
        "device_id": 0,
        "trt_fp16_enable": half,
        "trt_int8_enable": facts.get("precision") == "int8",
        "trt_layer_norm_fp32_fallback": half,
    }
    cache = _engine_cache(model)
    if cache is not None:
        options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
        options |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": str(cache)}
    backend = OnnxRuntimeBackend(model, threads, [(TENSORRT, options), cuda(), CPU])
    return ComparedBackend(backend, model, facts.get("precision", "fp32"))


def _facts(path: Path) -> dict[str, Any]:
    """Return the card's entry for a model file; empty without a card.

    An empty entry means FP32.
    """
    card = path.with_name(CARD)
    try:
        text = read_text(card, LARGEST_CARD)
    except (OSError, BadFile):
        return {}
    return ModelCard.from_json(text, str(card)).artefacts.get(path.name, {})


def _engine_cache(model: ModelFile) -> Path | None:
    """Return the cache folder for a model file's engines.

    An engine is code, so the folder is outside any bundle: no bundle can ship an engine. The folder name contains the
    file's checksum, because ONNX Runtime tells engines apart by the graph and the GPU but not by the weights.

    Returns:
        The folder; None if it cannot be created or written.
    """
    import onnxruntime

    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "edgecxr" / "onnxruntime-tensorrt" / f"{model.sha256}-{onnxruntime.__version__}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for place in (folder.parents[1], folder.parent, folder):
            check_private(place)
    except (OSError, RuntimeError, UsageError):  # no home folder, or engines that others can have written
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None

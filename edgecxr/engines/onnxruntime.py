"""ONNX Runtime behind the `Backend` protocol: on the CPU, or with an execution provider for NVIDIA's GPUs."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.bundle.bundle import sha256_of
from edgecxr.bundle.card import ModelCard
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnx_model import (
    INPUT,
    allowed_cores,
    check_file,
    check_images,
    check_threads,
    first_line,
    input_shape,
    outputs_of,
)
from edgecxr.errors import MissingPackage, ModelError
from edgecxr.storage.folders import CARD
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    import onnxruntime

    Provider = str | tuple[str, dict[str, Any]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"


class OnnxRuntimeBackend:
    """Runs an ONNX file; thread-safe.

    Args:
        path: a self-contained ONNX file with the input "image" and the outputs "findings", "abnormal" and "attention";
            "features" where it has them.
        threads: how many threads of the CPU compute; None takes the cores that this process may use.
        providers: ONNX Runtime's execution providers, in order of preference: names, or names with options. Each has
            to be there and has to load: what one of them cannot compute goes to the next, but none is left out.

    Attributes:
        path: the file.
        shapes: name -> shape of its input and outputs, the batch first; what is not an int is free.

    Raises:
        UsageError: `threads` is less than 1.
        MissingPackage: onnxruntime is not installed, does not load, or has been built without a provider.
        ModelError: the file is missing, damaged, or not a model of edgecxr, or a provider does not load.
    """

    def __init__(self, path: Path, threads: int | None = None, providers: Sequence[Provider] = (CPU,)) -> None:
        check_threads(path, threads)
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingPackage("onnxruntime", "", "the onnxruntime backend") from error
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
        _check_built_in(onnxruntime, names)

        options = onnxruntime.SessionOptions()
        # ONNX Runtime pins its default pool (0) to all cores, even those that taskset or a container withholds.
        options.intra_op_num_threads = (allowed_cores() or 0) if threads is None else threads
        # A transformer is a chain: a second pool for parallel branches would idle.
        options.inter_op_num_threads = 1
        # Warnings about the graph mean nothing to who runs it, and would land between the results on a terminal.
        options.log_severity_level = 3
        # The full optimisation costs 10 ms more than none for a Tiny ViT, and fuses its LayerNorm and GELU.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL

        self.path = path
        check_file(path)
        try:
            # By default ONNX Runtime goes on with other providers when one fails, and says so on standard output.
            session = onnxruntime.InferenceSession(str(path), options, providers=list(providers), enable_fallback=False)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            remedy = "export the model again, or upgrade onnxruntime" if names == [CPU] else _see_doctor(names[0])
            raise ModelError(
                f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__} ({first_line(error)}): {remedy}"
            ) from error
        # A provider whose libraries do not load is left out in silence, not refused.
        absent = [name for name in names if name not in session.get_providers()]
        if absent:
            raise ModelError(
                f"{path} would not run on {absent[0]}: ONNX Runtime {onnxruntime.__version__} could not load it and "
                f"took {', '.join(session.get_providers())}: {_see_doctor(absent[0])}"
            )
        self._session: onnxruntime.InferenceSession | None = session
        try:
            inputs = {value.name: value.shape for value in session.get_inputs()}
            outputs = {value.name: value.shape for value in session.get_outputs()}
        except UnicodeDecodeError as error:
            raise ModelError(f"{path} has names that are no text: export the model again") from error
        self._shape = input_shape(path, inputs, outputs)
        self._outputs = outputs_of(outputs)
        self.shapes = inputs | outputs

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or ONNX Runtime failed.
        """
        session = self._session  # another thread may close meanwhile
        if session is None:
            raise ModelError(f"{self.path} has been closed: open it again")
        check_images(self.path, images, self._shape)
        try:
            values = session.run(self._outputs, {INPUT: images})
        except Exception as error:
            raise ModelError(
                f"{self.path} failed on {len(images)} images ({first_line(error)}): "
                "give fewer at a time, or export the model again"
            ) from error
        return Outputs(*values)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def open_cuda(path: Path, threads: int | None = None) -> OnnxRuntimeBackend:
    """Open an ONNX file with the CUDA provider on the first GPU; arguments and errors are `OnnxRuntimeBackend`'s.

    What has no kernel for CUDA, such as arithmetic on shapes, is computed on the CPU.
    """
    _load_cuda_libraries()
    return OnnxRuntimeBackend(path, threads, [_cuda(), CPU])


def open_tensorrt(path: Path, threads: int | None = None) -> OnnxRuntimeBackend:
    """Open an ONNX file with the TensorRT provider on the first GPU; arguments and errors are `OnnxRuntimeBackend`'s.

    The first run with a batch size builds an engine, which takes up to minutes; it is kept in the user's cache folder
    for the next time, unless that cannot be written. What TensorRT cannot compute goes to CUDA.
    """
    check_file(path)
    _load_cuda_libraries()
    facts = _facts(path)
    # The file says where it wants which precision, and TensorRT needs its leave for kernels of less than 32 bits all
    # the same. Without need there is none: it would make an FP32 file one of 16 bits.
    half = "fp16" in (facts.get("precision"), facts.get("float_part"))
    options: dict[str, Any] = {
        "device_id": 0,
        "trt_fp16_enable": half,
        "trt_int8_enable": facts.get("precision") == "int8",
        "trt_layer_norm_fp32_fallback": half,
    }
    cache = _engine_cache(path)
    if cache is not None:
        options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
        options |= {"trt_timing_cache_enable": True, "trt_timing_cache_path": str(cache)}
    return OnnxRuntimeBackend(path, threads, [(TENSORRT, options), _cuda(), CPU])


def _cuda() -> Provider:
    # FP32 means FP32: with TF32, products would have a mantissa of 10 bits.
    return CUDA, {"device_id": 0, "use_tf32": 0}


def _load_cuda_libraries() -> None:
    """Let ONNX Runtime find the CUDA and cuDNN that pip installed; those of the system it finds by itself."""
    with contextlib.suppress(ImportError):  # reported by the backend
        import onnxruntime

        # Which library does not load is said in an error; the warnings around it only repeat that at length.
        onnxruntime.set_default_logger_severity(3)
        # It prints what it does not find; whether the provider loads decides.
        if CUDA in onnxruntime.get_available_providers() and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls(msvc=False)


def _facts(path: Path) -> dict[str, Any]:
    """Return what the card beside a model file says of it; a file without a card is FP32."""
    card = path.with_name(CARD)
    try:
        text = card.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return {}
    return ModelCard.from_json(text, str(card)).artefacts.get(path.name, {})


def _engine_cache(path: Path) -> Path | None:
    """Return a folder for the engines of a model file, None where none can be made.

    An engine is code, so it lies where no bundle can bring one along. ONNX Runtime tells engines apart by the graph and
    the GPU but not by the weights, hence the checksum.
    """
    import onnxruntime

    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = root / "edgecxr" / "onnxruntime-tensorrt" / f"{sha256_of(path)}-{onnxruntime.__version__}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no home
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def _check_built_in(onnxruntime: Any, providers: Sequence[str]) -> None:
    """Raise MissingPackage where the installed ONNX Runtime was built without a provider."""
    there = onnxruntime.get_available_providers()
    absent = [name for name in providers if name not in there]
    if absent:
        from edgecxr import extras

        pip = extras.pip()
        cause = ImportError(
            f"the installed onnxruntime {onnxruntime.__version__} has no {absent[0]}; `{pip} uninstall -y onnxruntime` "
            f"and then `{pip} install 'onnxruntime-gpu[cuda,cudnn]'`, on a Jetson the one of NVIDIA's index"
        )
        raise MissingPackage("onnxruntime-gpu", "", f"the backend for {absent[0]}") from cause


def _see_doctor(provider: str) -> str:
    return f"`edgecxr doctor` says which libraries {provider} misses; or use another backend"

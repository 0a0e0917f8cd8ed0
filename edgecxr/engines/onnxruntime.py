"""ONNX Runtime behind the `Backend` protocol, on CPU or NVIDIA GPU."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines import watchdog
from edgecxr.engines.backend import Outputs
from edgecxr.engines.onnx_model import (
    INPUT,
    allowed_cores,
    check_images,
    check_threads,
    first_line,
    input_shape,
    outputs_of,
)
from edgecxr.errors import MissingPackage, ModelError
from edgecxr.vocabulary import FloatArray

if TYPE_CHECKING:
    import onnxruntime

    Provider = str | tuple[str, dict[str, Any]]

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

_ERROR, _FATAL = 3, 4  # least severity of what ONNX Runtime logs


class OnnxRuntimeBackend:
    """A thread-safe backend that runs an ONNX file with ONNX Runtime.

    Args:
        path: an ONNX file of edgecxr, read or to be read, with the input "image" and the outputs "findings",
            "abnormal" and "attention"; "features" is optional.
        threads: number of CPU threads; None uses the cores that this process may use.
        providers: ONNX Runtime's execution providers in order of preference: names, or names with options. All of them
            must be available and must load. Nodes that one cannot compute go to the next.

    Attributes:
        path: the file.
        shapes: name -> shape of its input and outputs, the batch first; a dimension that is not an int is free.

    Raises:
        UsageError: `threads` is less than 1.
        MissingPackage: onnxruntime is not installed, does not load, or has been built without a provider.
        ModelError: the file is missing, damaged, or not a model of edgecxr, or a provider does not load.
    """

    def __init__(
        self, path: Path | ModelFile, threads: int | None = None, providers: Sequence[Provider] = (CPU,)
    ) -> None:
        check_threads(threads)
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
        # ONNX Runtime's own log quotes names in the file as they are, which a terminal would obey. Errors are raised
        # too, but for those of CUDA's libraries, which name no part of the file.
        options.log_severity_level = _FATAL
        onnxruntime.set_default_logger_severity(_ERROR if names[0] == CUDA else _FATAL)
        # Full optimisation fuses LayerNorm and GELU, and takes only 10 ms more than none for a Tiny ViT.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # On x86 CPUs without VNNI sums of INT8 products would overflow.
        options.add_session_config_entry("session.x64quantprecision", "1")

        model = ModelFile.of(path)
        self.path = path = model.path
        self._slow = names != [CPU]  # a GPU's engine compiles itself at first
        try:
            # By default, ONNX Runtime falls back to other providers when one fails, and prints to standard output.
            with watchdog.watched(path, watchdog.BUILDING if self._slow else watchdog.LOADING):
                session = onnxruntime.InferenceSession(
                    model.content, options, providers=list(providers), enable_fallback=False
                )
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            remedy = "export the model again, or upgrade onnxruntime" if names == [CPU] else _see_doctor(names[0])
            raise ModelError(
                f"{path} cannot be loaded by ONNX Runtime {onnxruntime.__version__} ({first_line(error)}): {remedy}"
            ) from error
        # It keeps the file for a fallback, which is off.
        session._model_bytes = None
        # ONNX Runtime silently drops a provider whose libraries do not load.
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
        self._largest = 0  # batch that has come back
        self.shapes = inputs | outputs

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or ONNX Runtime failed.
        """
        session = self._session  # another thread may call close() meanwhile
        if session is None:
            raise ModelError(f"{self.path} has been closed: open it again")
        check_images(self.path, images, self._shape)
        try:
            with watchdog.watched_run(self.path, len(images), self._largest, self._slow):
                values = session.run(self._outputs, {INPUT: images})
        except Exception as error:
            raise ModelError(
                f"{self.path} failed on {len(images)} images ({first_line(error)}): "
                "give fewer at a time, or export the model again"
            ) from error
        self._largest = max(self._largest, len(images))
        return Outputs(*values)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def open_cuda(path: Path | ModelFile, threads: int | None = None) -> OnnxRuntimeBackend:
    """Open an ONNX file with the CUDA provider on the first GPU.

    Nodes without a CUDA kernel, such as arithmetic on shapes, run on the CPU.
    Arguments and errors are those of `OnnxRuntimeBackend`.
    """
    load_cuda_libraries()
    return OnnxRuntimeBackend(path, threads, [cuda(), CPU])


def cuda() -> Provider:
    """Return the CUDA provider on the first GPU, with its options."""
    # TF32 would cut the mantissa of FP32 products to 10 bits.
    return CUDA, {"device_id": 0, "use_tf32": 0}


def load_cuda_libraries() -> None:
    """Let ONNX Runtime find the CUDA and cuDNN installed by pip.

    It finds system-wide ones by itself.
    """
    with contextlib.suppress(ImportError):  # reported by the backend
        import onnxruntime

        # The error names the library that does not load; the warnings around it only repeat that at length.
        onnxruntime.set_default_logger_severity(_ERROR)
        # Hide its messages about missing libraries: what counts is whether the provider loads.
        if CUDA in onnxruntime.get_available_providers() and hasattr(onnxruntime, "preload_dlls"):
            with contextlib.redirect_stdout(io.StringIO()):
                onnxruntime.preload_dlls(msvc=False)


def _check_built_in(onnxruntime: Any, providers: Sequence[str]) -> None:
    """Raise MissingPackage if ONNX Runtime was built without a provider."""
    available = onnxruntime.get_available_providers()
    absent = [name for name in providers if name not in available]
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

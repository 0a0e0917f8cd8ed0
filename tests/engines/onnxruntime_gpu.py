from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest

from edgecxr.engines.onnxruntime_tensorrt import TENSORRT

GPU = {
    "onnxruntime-cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"],
    "onnxruntime-tensorrt": ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"],
}


class Gpu:
    """ONNX Runtime for GPUs as it looks from outside; keeps what sessions were asked for, and computes on the CPU.

    `wrong` gets the outputs of a TensorRT engine, and its batches so far, and may change the outputs.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loads = GPU["onnxruntime-tensorrt"]
        self.requested: list[Any] = []
        self.fallback = True
        self.wrong: Callable[[list[np.ndarray], list[int]], None] | None = None
        session = onnxruntime.InferenceSession

        def cpu_session(path: str, options: Any, providers: Sequence[Any], enable_fallback: bool = True) -> Any:
            names = [provider if isinstance(provider, str) else provider[0] for provider in providers]
            if names != ["CPUExecutionProvider"]:
                self.requested, self.fallback = list(providers), enable_fallback
            real = session(path, options, providers=["CPUExecutionProvider"])
            # As ONNX Runtime does it: what cannot be loaded is missing here, and nothing is raised.
            real.get_providers = lambda: [name for name in names if name in self.loads]
            if names[0] == TENSORRT:
                real.run = self._run(real.run)
            return real

        monkeypatch.setattr(onnxruntime, "InferenceSession", cpu_session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU["onnxruntime-tensorrt"])
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **_: None, raising=False)

    def _run(self, exact: Callable[..., list[np.ndarray]]) -> Callable[..., list[np.ndarray]]:
        batches: list[int] = []

        def run(names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
            batches.append(len(feeds["image"]))
            values = [value.copy() for value in exact(names, feeds)]
            if self.wrong is not None:
                self.wrong(values, batches)
            return values

        return run

    def options(self, number: int = 0) -> dict[str, Any]:
        return self.requested[number][1]

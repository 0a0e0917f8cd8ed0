"""Results of ONNX Runtime that an engine is compared with.

No engine is used that has not passed it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.gate import Gate, load_gate
from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines.backend import Backend, Outputs
from edgecxr.engines.check_films import check_films
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.errors import CheckFailed, ModelError
from edgecxr.vocabulary import FloatArray

TOLERANCE = 1e-3
"""Largest difference of a logit from ONNX Runtime that arithmetic in FP32 may cause; of the attention and the features,
the largest difference as a share of their largest value."""

GATE_TOLERANCE = 1e-2
"""Largest difference of the gate's distance that FP32 may cause, as a share of the gate's threshold."""

MULTIPLES = {"fp32": 0, "fp16": 8, "int8": 4}
"""By precision, how many times the difference between its file and the FP32 file, both run by ONNX Runtime, the engine
may differ from its file, on top of the above. Two ways of computing the same FP16 file differ by up to 3 times, of the
same INT8 file by less than once; FP16 sums, which some GPUs use, cost more."""

SYNTHETIC = "synthetic films"

_RUNS = 3  # launched, captured as a CUDA graph, replayed
_STEP = 5  # by which images move between runs of a batch that holds all of them
_AT_A_TIME = 16


@dataclass(frozen=True, eq=False)
class Reference:
    """ONNX Runtime's results, which an engine is compared with.

    Attributes:
        onnx: the file that the engine is built from.
        name: what the images are, for messages.
        images: (N, 1, S, S) float32 in [0, 1].
        outputs: of the file.
        of_fp32: outputs of the bundle's FP32 file; None if there is none.
        allowed: what is compared -> largest allowed difference of the engine.
        labels: of the model, for messages.
        gate: the model's quality gate; None if the bundle has none.
    """

    onnx: Path
    name: str
    images: FloatArray
    outputs: Outputs
    of_fp32: Outputs | None
    allowed: dict[str, float]
    labels: tuple[str, ...]
    gate: Gate | None

    @classmethod
    def of(cls, bundle: Bundle, precision: str, images: FloatArray | None = None, name: str = SYNTHETIC) -> Reference:
        """Run the model file and the FP32 file of a bundle.

        Args:
            bundle: the bundle.
            precision: of the file.
            images: (N, 1, S, S) float32 in [0, 1]; by default synthetic films.
            name: what the images are.

        Raises:
            MissingPackage: ONNX Runtime is not installed.
            ModelError: a file cannot be run, or has no features although the bundle has a quality gate.
            CheckFailed: the file itself gives values that are not numbers.
        """
        model = bundle.model(precision)
        images = check_films(bundle.card.size) if images is None else images
        outputs = _run_file(model, images)
        gate = None
        with suppress(ModelError):  # a gate that cannot be read keeps the bundle from being used at all
            gate = load_gate(bundle, precision)
        if gate is not None and (outputs.features is None or outputs.features.shape[1:] != gate.mean.shape):
            raise ModelError(f"{model.path} has no features for the quality gate of its bundle: export the model again")
        has_fp32 = any(entry.get("precision") == "fp32" for entry in bundle.card.artefacts.values())
        of_fp32 = None
        if has_fp32:
            of_fp32 = outputs if precision == "fp32" else _run_file(bundle.model("fp32"), images)
        allowed = _floors(outputs, bundle.card.labels, gate)
        if of_fp32 is not None and _misfit(of_fp32, outputs) is None:
            rounding = _differences(outputs, of_fp32, bundle.card.labels, gate)
            allowed = {key: least + MULTIPLES[precision] * float(rounding[key].max()) for key, least in allowed.items()}
        return cls(model.path, name, images, outputs, of_fp32, allowed, bundle.card.labels, gate)

    @classmethod
    def of_file(cls, model: ModelFile, size: int) -> Reference:
        """Run a model file that lies in no bundle on synthetic films.

        Args:
            model: the file, taken for FP32.
            size: side of its images in pixels.

        Raises:
            MissingPackage: ONNX Runtime is not installed.
            ModelError: the file cannot be run.
            CheckFailed: the file itself gives values that are not numbers.
        """
        images = check_films(size)
        outputs = _run_file(model, images)
        return cls(model.path, SYNTHETIC, images, outputs, outputs, _floors(outputs, (), None), (), None)

    def check(self, engine: Backend, batches: Sequence[int]) -> dict[str, Any]:
        """Compare an engine on all images, in several batch sizes.

        Args:
            engine: the engine.
            batches: sizes of the batches.

        Returns:
            JSON-ready facts for the engine's record.

        Raises:
            CheckFailed: an output differs by more than is allowed, or is not a number; the message names the worst.
        """
        largest = dict.fromkeys(self.allowed, 0.0)
        for batch in batches:
            count = len(self.images)
            step = batch if batch < count else _STEP
            for turn in range(max(_RUNS, math.ceil(count / batch))):
                rows = (turn * step + np.arange(batch)) % count
                differences = self._compare(engine.run(self.images[rows]), rows, batch)
                largest = {key: max(value, float(differences[key].max())) for key, value in largest.items()}
        worst = self._worst(largest)
        return {
            "images": len(self.images),
            "batches": list(batches),
            "max_logit_difference": max(largest[key] for key in self._logit_names()),
            "max_attention_difference": largest["attention"],
            "worst": {"output": worst, "difference": largest[worst], "allowed": self.allowed[worst]},
        }

    def cost(self) -> dict[str, Any] | None:
        """Return the file's differences from the FP32 file."""
        if self.of_fp32 is None or _misfit(self.of_fp32, self.outputs) is not None:
            return None
        differences = _differences(self.outputs, self.of_fp32, self.labels, self.gate)
        return {
            "images": len(self.images),
            "max_logit_difference": max(float(differences[key].max()) for key in self._logit_names()),
            "max_attention_difference": float(differences["attention"].max()),
        }

    def _compare(self, ours: Outputs, rows: NDArray[np.intp], batch: int) -> dict[str, NDArray[Any]]:
        theirs = self.outputs.rows(rows)
        where = f"of {self.onnx} on TensorRT, for {self.name} at batch {batch}"
        other = _misfit(ours, theirs)
        if other is not None:
            raise CheckFailed(f"the engine {where}, has another {other} than the file has: {_remedy(self.onnx)}")
        for output, values in _arrays(ours).items():
            if not np.isfinite(values).all():
                raise CheckFailed(
                    f"the engine {where}, gives values of {output} that are not numbers: {_remedy(self.onnx)}"
                )
        differences = _differences(ours, theirs, self.labels, self.gate)
        worst = self._worst({key: float(values.max()) for key, values in differences.items()})
        difference = float(differences[worst].max())
        if not difference <= self.allowed[worst]:
            raise CheckFailed(
                f"the engine {where}, does not compute what ONNX Runtime computes: {worst} is off by {difference:.2g}, "
                f"at most {self.allowed[worst]:.2g} is allowed: {_remedy(self.onnx)}"
            )
        return differences

    def _worst(self, largest: dict[str, float]) -> str:
        return max(largest, key=lambda key: largest[key] / self.allowed[key])

    def _logit_names(self) -> list[str]:
        return [key for key in self.allowed if key not in _OTHERS]


_OTHERS = ("attention", "features", "gate", "gate distance")


def _run_file(model: ModelFile, images: FloatArray) -> Outputs:
    with closing(OnnxRuntimeBackend(model)) as backend:
        parts = [_arrays(backend.run(images[i : i + _AT_A_TIME])) for i in range(0, len(images), _AT_A_TIME)]
    outputs = _outputs({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    for name, values in _arrays(outputs).items():
        if not np.isfinite(values).all():
            raise CheckFailed(
                f"{model.path} gives values of {name} that are no numbers, on ONNX Runtime too: no engine of it can be "
                "used; export the model again"
            )
    return outputs


def _arrays(outputs: Outputs) -> dict[str, FloatArray]:
    """Return the outputs by name, without those that are missing."""
    named = ((field.name, getattr(outputs, field.name)) for field in dataclasses.fields(outputs))
    return {name: values for name, values in named if values is not None}


def _outputs(arrays: dict[str, FloatArray]) -> Outputs:
    return Outputs(arrays["findings"], arrays["abnormal"], arrays["attention"], arrays.get("features"))


def _misfit(ours: Outputs, theirs: Outputs) -> str | None:
    """Return an output that only one has, or in another shape."""
    mine, other = ({name: values.shape for name, values in _arrays(outputs).items()} for outputs in (ours, theirs))
    return next((name for name in mine | other if mine.get(name) != other.get(name)), None)


def _differences(ours: Outputs, theirs: Outputs, labels: Sequence[str], gate: Gate | None) -> dict[str, NDArray[Any]]:
    """Return what is compared -> (N,) largest absolute differences, by image."""
    findings = np.abs(ours.findings - theirs.findings)
    differences = {name: findings[:, column] for column, name in enumerate(_names(ours, labels))}
    differences["abnormal"] = np.abs(ours.abnormal - theirs.abnormal)
    differences["attention"] = np.abs(ours.attention - theirs.attention).max(axis=(1, 2))
    if ours.features is not None and theirs.features is not None:
        differences["features"] = np.abs(ours.features - theirs.features).max(axis=1)
        if gate is not None:
            # How far apart the gate finds them, and how differently far from the training films.
            differences["gate"] = gate.distances((gate.mean + (ours.features - theirs.features)).astype(np.float32))
            differences["gate distance"] = np.abs(gate.distances(ours.features) - gate.distances(theirs.features))
    return differences


def _floors(outputs: Outputs, labels: Sequence[str], gate: Gate | None) -> dict[str, float]:
    """Return what is compared -> the difference that FP32 may cause."""
    allowed = dict.fromkeys((*_names(outputs, labels), "abnormal"), TOLERANCE)
    allowed["attention"] = TOLERANCE * max(float(outputs.attention.max()), TOLERANCE)
    if outputs.features is not None:
        allowed["features"] = TOLERANCE * max(float(np.abs(outputs.features).max()), TOLERANCE)
        if gate is not None:
            allowed |= dict.fromkeys(("gate", "gate distance"), GATE_TOLERANCE * gate.threshold)
    return allowed


def _names(outputs: Outputs, labels: Sequence[str]) -> list[str]:
    count = outputs.findings.shape[1]
    words = labels if len(labels) == count else range(count)
    return [f"findings ({word})" for word in words]


def _remedy(onnx: Path) -> str:
    lower = onnx.name != "model.onnx"
    return "it is not used; " + ("take --precision fp32, or " if lower else "") + "install another TensorRT"

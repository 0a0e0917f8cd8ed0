"""The interface of inference engines, and how to open one by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgecxr import registry
from edgecxr.bundle.model_file import ModelFile
from edgecxr.vocabulary import FloatArray


@dataclass(frozen=True)
class Outputs:
    """Raw outputs of a model for a batch, before any threshold.

    Attributes:
        findings: (N, L) float32 logits, one column per label of the card.
        abnormal: (N,) float32 logits.
        attention: (N, g, g) float32, class token to patches in the last block; sums to 1 per image.
        features: (N, 4 D) float32, output of the first block for the four quarters of the image, by which the quality
            gate recognises chest films; None for models without this output.
    """

    findings: FloatArray
    abnormal: FloatArray
    attention: FloatArray
    features: FloatArray | None = None

    @property
    def logits(self) -> FloatArray:
        """Logits of the findings and "abnormal", (N, L + 1), "abnormal" last."""
        return np.column_stack([self.findings, self.abnormal])

    def rows(self, chosen: NDArray[Any]) -> Outputs:
        """Return the outputs of some images, by their numbers or a mask."""
        features = None if self.features is None else self.features[chosen]
        return Outputs(self.findings[chosen], self.abnormal[chosen], self.attention[chosen], features)


class Backend(Protocol):
    """A loaded model."""

    def run(self, images: FloatArray) -> Outputs:
        """Run a batch.

        Args:
            images: (N, 1, S, S) float32 in [0, 1].

        Raises:
            ModelError: the images do not fit the model, or the engine failed.
        """
        ...

    def close(self) -> None:
        """Free the model's resources; the backend cannot be used afterwards."""
        ...


def open_backend(name: str, path: Path | ModelFile, sha256: str | None = None, **options: Any) -> Backend:
    """Load a model file.

    Args:
        name: a key of `registry.BACKENDS`.
        path: a bundle's model file, read or to be read; a run's folder for the backends of checkpoints.
        sha256: the checksum that a path's file must have; None for any.
        options: passed to the backend unchanged, such as "threads".

    Raises:
        UsageError: there is no such backend.
        MissingPackage: the backend's engine is not installed.
        ModelError: the file cannot be loaded.
    """
    if sha256 is not None and not isinstance(path, ModelFile):
        path = ModelFile.read(path, sha256)
    backend: Backend = registry.resolve(registry.BACKENDS, name, "backend")(path, **options)
    return backend

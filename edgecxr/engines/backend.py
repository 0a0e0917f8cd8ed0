"""What runs a model, whatever the engine: tensors in, tensors out, nothing of X-rays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgecxr import registry
from edgecxr.vocabulary import FloatArray


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch, before any threshold.

    Attributes:
        findings: (N, L) float32 logits, one column per label of the card.
        abnormal: (N,) float32 logits.
        attention: (N, g, g) float32, class token to patches in the last block; sums to 1 per image.
        features: (N, 4 D) float32, what the first block makes of the four quarters of the image, by which the quality
            gate tells chest films; None of models that do not give them.
    """

    findings: FloatArray
    abnormal: FloatArray
    attention: FloatArray
    features: FloatArray | None = None

    @property
    def logits(self) -> FloatArray:
        """(N, L + 1), "abnormal" last."""
        return np.column_stack([self.findings, self.abnormal])


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
        """Free what the model holds; the backend is not used again."""
        ...


def open_backend(name: str, path: Path, **options: Any) -> Backend:
    """Load a model file.

    Args:
        name: a key of `registry.BACKENDS`.
        path: the artefact of a bundle that this backend reads.
        options: go to the backend as they are, such as "threads".

    Raises:
        UsageError: there is no such backend.
        MissingPackage: the backend's engine is not installed.
        ModelError: the file cannot be loaded.
    """
    backend: Backend = registry.resolve(registry.BACKENDS, name, "backend")(path, **options)
    return backend

"""Model files: read once, and given to engines as they were checked.

A model may come from a stranger, and engines trust what they are given: they open other files that it names, run loops
without end, and allocate whatever it asks for. So they only get models that could be an export of edgecxr.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgecxr.bundle.onnx_graph import ExternalData, read_graph
from edgecxr.bundle.onnx_sizes import check_sizes
from edgecxr.bundle.protobuf import Malformed
from edgecxr.errors import ModelError, brief
from edgecxr.storage.reading import BadFile, read_bytes

LARGEST = 1 << 29
"""Limit in bytes of a model file; ViT-B in FP32, the largest export, has two thirds of it."""


@dataclass(frozen=True)
class ModelFile:
    """A model that has been checked.

    Attributes:
        path: where it was read from, for messages and for what lies beside it.
        content: its bytes.
    """

    path: Path
    content: bytes

    @classmethod
    def read(cls, path: Path, sha256: str | None = None) -> ModelFile:
        """Read a model file and check that edgecxr could have exported it.

        Args:
            path: an ONNX file.
            sha256: the checksum that it must have; None for any.

        Raises:
            ModelError: it cannot be read, has another checksum, or is not such a file.
        """
        try:
            model = cls(path, read_bytes(path, LARGEST))
        except FileNotFoundError as error:
            raise ModelError(f"{path} does not exist: export the model again") from error
        except (OSError, BadFile) as error:
            raise ModelError(f"{path} cannot be read ({brief(error)}): export it again or copy it again") from error
        if sha256 not in (None, model.sha256):
            raise ModelError(f"{path} has changed since its bundle was opened: export it again or copy it again")
        model.check()
        return model

    @classmethod
    def of(cls, model: Path | ModelFile) -> ModelFile:
        """Return a model file, which is read if it is a path."""
        return model if isinstance(model, ModelFile) else cls.read(Path(model))

    @functools.cached_property
    def sha256(self) -> str:
        """Its checksum in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    def check(self) -> None:
        """Check that an engine can do no harm with it.

        Raises:
            ModelError: it has something that no export of edgecxr has.
        """
        try:
            # ONNX Runtime takes a file with these bytes for one of its own format, whatever else it is.
            if self.content[4:8] == b"ORTM":
                raise Malformed("it is in ONNX Runtime's own format")
            check_sizes(read_graph(self.content))
        except ExternalData as error:
            raise ModelError(
                f"{self.path} takes weights from other files, which no checksum covers: export the model again"
            ) from error
        # The others are what Python and NumPy say of a shape or number that no rule has thought of.
        except (Malformed, ValueError, OverflowError) as error:
            raise ModelError(
                f"{self.path} is not a model that edgecxr exports ({brief(error, 240)}): export it with edgecxr, or "
                "copy it again"
            ) from error

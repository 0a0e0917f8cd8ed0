"""What reads DICOM takes as long to import as a model to load: the two go side by side."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


def import_readers(paths: Iterable[Path]) -> threading.Thread | None:
    """Begin to import the reader of DICOM in the background, unless all paths look like plain images.

    Python has one thread at a time, but loading a model and checking its sum are not Python.

    Args:
        paths: the files and folders that will be read.

    Returns:
        The thread, or None where there is nothing to import.
    """
    if all(path.suffix.lower() in _IMAGES for path in paths):
        return None
    thread = threading.Thread(target=_import, args=("edgecxr.runtime.dicom",))
    thread.start()
    return thread


def _import(module: str) -> None:
    # Whatever is wrong is said when the module is needed, by who needs it.
    with suppress(Exception):
        importlib.import_module(module)

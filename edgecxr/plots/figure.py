"""How a figure becomes a file."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from edgecxr.storage.atomic import atomic_write

DPI = 120


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all, and return its path."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    atomic_write(path, picture.getvalue())
    return path

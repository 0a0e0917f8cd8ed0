"""Writer of figures, and of names in them."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import printable

DPI = 120
_LONGEST = 100  # letters of a name


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG atomically and return its path."""
    atomic_write(path, drawn(figure, format="png", dpi=DPI))
    return path


def drawn(figure: Figure, **options: Any) -> bytes:
    """Return a figure as a file's content.

    Args:
        figure: the figure.
        options: of `Figure.savefig`.
    """
    picture = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that the font lacks, names that leave little room
        figure.savefig(picture, **options)
    return picture.getvalue()


def name(text: str) -> str:
    """Return a text that matplotlib draws as it is, cut if long.

    Else it would take $ for mathematics, and leave a name that begins with _ out of legends.
    """
    text = printable(text)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return (" " if text.startswith("_") else "") + text.replace("$", r"\$")

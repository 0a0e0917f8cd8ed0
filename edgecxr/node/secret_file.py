"""Secrets, such as tokens and passwords, in files of their own."""

from __future__ import annotations

from pathlib import Path

from edgecxr.errors import UsageError, brief
from edgecxr.storage.reading import read_text

_LARGEST = 4096
_OTHERS = 0o077


def read_secret(path: str, shortest: int = 1) -> str:
    """Return the line of a file that others cannot read.

    Args:
        path: of the file.
        shortest: least number of characters.

    Raises:
        UsageError: it cannot be read, others can read it, or it has no such line.
    """
    try:
        if Path(path).stat().st_mode & _OTHERS:
            raise UsageError(f"{path} is open to other users: `chmod 600 {path}`")
        text = read_text(Path(path), _LARGEST).strip()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({brief(error)}): write the secret into it") from error
    if len(text) < shortest or not text.isascii() or not text.isprintable():
        raise UsageError(f"{path} has no secret: write one line of at least {shortest} ASCII characters into it")
    return text

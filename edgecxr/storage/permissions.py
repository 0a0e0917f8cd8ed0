"""Permissions of new files: others get none where patients' data are written."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from edgecxr.errors import UsageError

PRIVATE = "077"
"""Files that only their user can read (0600), in such folders (0700)."""


@contextmanager
def umask(octal: str) -> Iterator[None]:
    """Take permissions from all files and folders that are made meanwhile.

    Args:
        octal: the permissions that they do not get, as the shell's umask takes them: "077", or "022" for files that
            everybody can read.

    Raises:
        UsageError: it is no such number, or would keep files from their own user.
    """
    if not re.fullmatch("0{0,2}[0-7]{2}", octal):
        raise UsageError(f"--umask {octal}: give an octal number such as 077, 027 or 022")
    before = os.umask(int(octal, 8))
    try:
        yield
    finally:
        os.umask(before)

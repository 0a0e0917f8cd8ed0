"""pydicom, loaded without `requests`.

pydicom wants it only to download files for its own tests, and it takes a fifth of pydicom's time to load. To be
imported by processes that only read films, before all else: no other thread must import `requests` meanwhile.
"""

from __future__ import annotations

import importlib
import sys

_WANTED = "requests"

if _WANTED not in sys.modules:
    sys.modules[_WANTED] = None  # type: ignore[assignment] # an import of it fails
    try:
        importlib.import_module("pydicom.data.download")
    finally:
        del sys.modules[_WANTED]

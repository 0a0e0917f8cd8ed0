from __future__ import annotations

import importlib.util
import subprocess
import sys

LOADS = """
import sys
import edgecxr.workers.pydicom_without_requests
assert "pydicom.pixels" in sys.modules and "requests" not in sys.modules
try:
    import requests
except ImportError:
    sys.exit(7)
"""


def test_requests_is_left_out_and_can_be_loaded_later() -> None:
    ended = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, timeout=120)
    assert ended.returncode == (0 if importlib.util.find_spec("requests") else 7), ended.stderr


def test_requests_stays_where_it_is_loaded_already() -> None:
    code = "import types, sys; sys.modules['requests'] = mine = types.ModuleType('requests')\n"
    code += "import edgecxr.workers.pydicom_without_requests\nassert sys.modules['requests'] is mine"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr

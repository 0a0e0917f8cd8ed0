"""How torch's threads wait is said before torch is imported, and what the user said holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

# argv: a module. Prints the variables at the moment in which torch is looked for, and nothing if it never is.
ASK = """
import importlib, json, os, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
            print(json.dumps({name: os.environ[name] for name in names if name in os.environ}))
            sys.stdout.flush()
            os._exit(0)

sys.meta_path.insert(0, Finder())
importlib.import_module(sys.argv[1])
"""


def variables_of(module: str, **typed: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | typed
    done = subprocess.run([sys.executable, "-c", ASK, module], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("module", ["edgecxr.train.run_training", "edgecxr.demo"])
def test_threads_do_not_spin_for_long(module: str) -> None:
    assert variables_of(module) == {"GOMP_SPINCOUNT": "2000", "KMP_BLOCKTIME": "1"}


@pytest.mark.parametrize(
    "typed", [{"GOMP_SPINCOUNT": "7", "KMP_BLOCKTIME": "200"}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": ""}]
)
def test_what_the_user_says_holds(typed: dict[str, str]) -> None:
    assert variables_of("edgecxr.train.run_training", **typed) == typed

"""The one way to start another Python: without the current folder.

`python -c` and `python -m` import modules from the folder that a user stands in, and so does an empty entry of
PYTHONPATH. In a folder of strangers' films a file numpy.py would be run.
"""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Iterable

_PACKAGES = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH100, PTH120
"""The folder that edgecxr itself is imported from."""

_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120

# Python 3.10 has no -P. There `-c` imports nothing before the program, which sets the path first; `sys` is built in.
_SAFE = ("-P",) if sys.version_info >= (3, 11) else ()


def import_path() -> list[str]:
    """Return this process's import path without the current folder.

    The folder stays where Python, its packages or edgecxr are installed there, or PYTHONPATH has its whole name.
    """
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109
    except OSError:  # the folder was removed
        here = ""
    places = (_PACKAGES, _LIBRARY, os.path.join(_LIBRARY, "lib-dynload"), *_site_packages(), *_named())  # noqa: PTH118
    kept = {os.path.realpath(place) for place in places}
    real = ((place, os.path.realpath(place)) for place in sys.path if os.path.isabs(place))  # noqa: PTH117
    return [place for place, meant in real if meant != here or meant in kept]


def leave_current_folder() -> None:
    """Import nothing more from the current folder, here and in children.

    Libraries pass on this process's path and variables to Pythons that they start.
    """
    sys.path[:] = import_path()
    variables = environment()
    for name in set(os.environ) - set(variables):
        del os.environ[name]
    os.environ.update(variables)


def command(function: str, *arguments: str) -> list[str]:
    """Return the command of a new Python that calls a function.

    Start it with `environment()`.

    Args:
        function: "module:function" of edgecxr, without parameters.
        arguments: `sys.argv[1:]` of the new process.
    """
    module, _, name = function.partition(":")
    program = f"import sys; sys.path[:] = {import_path()!a}; sys.argv[0] = 'edgecxr'; "
    return [sys.executable, *_SAFE, "-c", f"{program}from {module} import {name}; {name}()", *arguments]


def environment() -> dict[str, str]:
    """Return this process's variables, without relative entries of PYTHONPATH.

    A new Python imports sitecustomize from these, and passes them on to its own children.
    """
    variables = dict(os.environ)
    if variables.pop("PYTHONPATH", None) and _named():
        variables["PYTHONPATH"] = os.pathsep.join(_named())
    return variables


def run_edgecxr(arguments: Iterable[str]) -> int:
    """Run an edgecxr command in a new process; return its code."""
    import subprocess

    return subprocess.run(command("edgecxr.cli:main", *arguments), env=environment()).returncode


def _named() -> list[str]:
    """Return the entries of PYTHONPATH that mean the same everywhere."""
    return [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if os.path.isabs(place)]  # noqa: PTH117


def _site_packages() -> list[str]:
    # Old virtualenvs have a `site` of their own, without these functions.
    places = site.getsitepackages() if hasattr(site, "getsitepackages") else []
    user = site.getusersitepackages() if hasattr(site, "getusersitepackages") else ""
    return [*places, user] if user else places

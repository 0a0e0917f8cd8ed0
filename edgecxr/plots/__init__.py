"""Plots for workstations: the only package that uses matplotlib."""

from __future__ import annotations

import os


def _import_matplotlib() -> None:
    """Import matplotlib without the settings of the current folder.

    It would take a file `matplotlibrc` there before the user's own, and settings can start LaTeX. There is no switch
    for that, and a change of folder would reach other threads.
    """
    exists = os.path.exists
    os.path.exists = lambda path: path != "matplotlibrc" and exists(path)
    try:
        import matplotlib  # noqa: F401
    finally:
        os.path.exists = exists


_import_matplotlib()

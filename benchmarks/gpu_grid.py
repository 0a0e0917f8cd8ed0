"""What gpu.py makes of the models that it has trained: the paper's tables, and where they look."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tables import Scores
from tables_text import Grid, write

from edgecxr.data.prepared import Prepared
from edgecxr.evaluate import by_size, explain, model_families
from edgecxr.workspace import Workspace


def tabulate(
    args: argparse.Namespace,
    name: str,
    prepared: Prepared,
    workspace: Workspace,
    teacher: Path,
    students: dict[tuple[str, int, int], Path],
) -> None:
    """Write the paper's tables of what there is to OUT/tables-NAME.

    Args:
        args: of gpu.py.
        name: of the data set.
        prepared: the same.
        workspace: where its runs are.
        teacher: run.
        students: (method, px, seed) -> run.
    """
    settings = {"tokens": 49, "init": "teacher", "epochs": args.epochs, "patch": args.patch}
    settings |= {"teacher_init": "pretrained" if args.pretrained else "random", "teacher_epochs": args.epochs}
    grid, scores = Grid(prepared, settings), Scores(workspace, prepared, 1000)
    grid.teachers["tiny"] = scores.of(teacher)
    for (method, size, seed), run in students.items():
        grid.students.setdefault(("tiny", method, size), {})[seed] = scores.of(run)
    write(grid, args.out / f"tables-{name}")


def drawn(prepared: Prepared, workspace: Workspace, models: list[str], path: Path) -> dict[str, Any]:
    """Draw where models look to `path`; return what they are worth by the size of findings, where there are boxes."""
    shown = model_families.answers(workspace, models, prepared.name, "test")
    explain.draw(shown, "test", 6, 0, path)
    return {"data": prepared.name} | (by_size.by_size(shown, "test") if len(prepared.boxes) else {"boxes": 0})

"""runs/: where artefacts lie, and which one is the latest."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.registry import DATASETS
from edgecxr.storage.atomic import writing
from edgecxr.storage.folders import CARD, DATASET
from edgecxr.storage.locks import locked

_PLAIN_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Workspace:
    """The folder that commands read from and write to when no path is given.

    "Latest" is the finished artefact whose card.json or dataset.json is the newest file.

    Attributes:
        root: such as runs/; it need not exist yet.
    """

    root: Path

    @classmethod
    def default(cls) -> Workspace:
        """Return the workspace of the variable EDGECXR_RUNS, else of ./runs."""
        root = Path(os.environ.get("EDGECXR_RUNS") or "runs")
        if os.path.exists(root) and not os.path.isdir(root):
            raise UsageError(f"{root} is a file, where the workspace should be: set EDGECXR_RUNS to a folder")
        return cls(root)

    def data_dir(self, name: str) -> Path:
        """Return where the prepared data set `name` lies, or will lie."""
        return self.root / "data" / _plain(name)

    def export_dir(self, student: str) -> Path:
        """Return where the bundle of a student lies, or will lie."""
        return self.root / "export" / _plain(student)

    def latest_dataset(self, name: str | None = None) -> Path:
        """Return the folder of a prepared data set.

        Args:
            name: of the data set; None takes the latest.

        Raises:
            InputError: there is none; reason "dataset".
        """
        found = _newest_first(_folders(self.root / "data"), DATASET)
        for folder in found:
            if name in (None, folder.name):
                return folder
        wanted = f"no prepared data set {name!r}" if name else "no prepared data set"
        there_are = f" (there are: {', '.join(sorted(f.name for f in found))})" if found else ""
        kind = name if name in DATASETS else "phantom"
        command = f"edgecxr prepare {kind} {'--n 2000' if kind == 'phantom' else 'PATH'}"
        choice = "name one of those, or " if found else ""
        raise InputError(f"{wanted} in {self.root / 'data'}{there_are}: {choice}make one with `{command}`", "dataset")

    def runs(self, name: str) -> list[Path]:
        """Return the runs called `name`, `name`-2, `name`-3 ..., finished or not, the last made first."""
        numbered = [(_number(folder.name, name), folder) for folder in _folders(self.root)]
        return [folder for number, folder in sorted(numbered, reverse=True) if number]

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Keep other processes from looking for or making a run called `name`; one that comes second waits.

        Raises:
            UsageError: the workspace cannot be written.
        """
        lock = self.root / f".{_plain(name)}.lock"
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(lock):
                yield

    def new_run(self, name: str) -> Path:
        """Make the folder of a new run: `name`, or `name`-2, `name`-3 ... where that is taken.

        Raises:
            UsageError: the workspace cannot be written.
        """
        runs = self.runs(_plain(name))
        number = _number(runs[0].name, name) + 1 if runs else 1
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            while True:
                run = self.root / (name if number == 1 else f"{name}-{number}")
                try:
                    run.mkdir()
                    return run
                except FileExistsError:  # a process beside this one was faster, or a file has the name
                    number += 1

    def latest_run(self, prefix: str = "", predicate: Callable[[Path], bool] | None = None) -> Path:
        """Return the latest finished run.

        Args:
            prefix: how its name begins, such as "teacher-" or "student-tiny-28".
            predicate: a further condition on the folder.

        Raises:
            ModelError: there is none.
        """
        folders = [folder for folder in _folders(self.root) if folder.name.startswith(prefix)]
        for run in _newest_first(folders, CARD):
            if predicate is None or predicate(run):
                return run
        command = "edgecxr distill" if prefix.startswith("student") else "edgecxr train"
        kind = prefix.rstrip("-") or "model"
        raise ModelError(f"no finished run of a fitting {kind} in {self.root}: make one with `{command}`")

    def finished_runs(self) -> list[Path]:
        """Return the finished runs, the latest first."""
        return _newest_first(_folders(self.root), CARD)

    def latest_bundle(self) -> Path:
        """Return the folder of the latest bundle.

        Raises:
            ModelError: there is none.
        """
        found = _newest_first(_folders(self.root / "export"), CARD)
        if not found:
            raise ModelError(f"no bundle in {self.root / 'export'}: make one with `edgecxr export`")
        return found[0]


def _plain(name: str) -> str:
    if not _PLAIN_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a folder in the workspace: use letters, digits, '.', '-', '_'"
        )
    return name


def _number(folder: str, name: str) -> int:
    """Return 1 for `name` itself, n for `name`-n, 0 for anything else."""
    match = re.fullmatch(re.escape(name) + r"(?:-([2-9]|[1-9]\d+))?", folder)
    return 0 if match is None else int(match[1] or 1)


def _folders(parent: Path) -> list[Path]:
    """Return the folders in `parent`, without the hidden ones that are still being written."""
    try:
        return [entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UsageError(f"{parent} cannot be read ({error.strerror}): check its permissions") from error


def _newest_first(folders: list[Path], marker: str) -> list[Path]:
    dated = []
    for folder in folders:
        with suppress(OSError):
            dated.append(((folder / marker).stat().st_mtime_ns, folder))
    return [folder for _, folder in sorted(dated, reverse=True)]

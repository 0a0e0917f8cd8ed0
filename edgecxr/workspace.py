"""The workspace folder: where artefacts are and which is the latest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.registry import DATASETS
from edgecxr.storage.atomic import writing
from edgecxr.storage.folders import CARD, CONFIG, DATASET
from edgecxr.storage.locks import locked

_FOLDERS = ("data", "export")
"""Folders of the workspace that are no runs."""

_PLAIN_NAME = re.compile(r"\w[\w.+-]*")


@dataclass(frozen=True)
class Workspace:
    """The folder that commands use if no path is given.

    They read from it and write to it. "Latest" is the finished artefact whose card.json or dataset.json is the newest
    file.

    Attributes:
        root: path such as runs/; it need not exist yet.
    """

    root: Path

    @classmethod
    def default(cls) -> Workspace:
        """Return the workspace at the variable EDGECXR_RUNS, else at ./runs."""
        root = Path(os.environ.get("EDGECXR_RUNS") or "runs")
        if os.path.exists(root) and not os.path.isdir(root):
            raise UsageError(f"{root} is a file, where the workspace should be: set EDGECXR_RUNS to a folder")
        return cls(root)

    def data_dir(self, name: str) -> Path:
        """Return the folder of the prepared data set `name`.

        It need not exist yet.
        """
        return self.root / "data" / _plain(name)

    def export_dir(self, student: str) -> Path:
        """Return the folder of a student's bundle.

        It need not exist yet.
        """
        return self.root / "export" / _plain(student)

    def latest_dataset(self, name: str | None = None) -> Path:
        """Return the folder of a prepared data set.

        Args:
            name: name of the data set; None means the latest.

        Raises:
            InputError: there is none; reason "dataset".
        """
        folders = self.datasets()
        for folder in folders:
            if name in (None, folder.name):
                return folder
        missing = f"no prepared data set {name!r}" if name else "no prepared data set"
        listing = f" (there are: {', '.join(sorted(f.name for f in folders))})" if folders else ""
        kind = name if name in DATASETS else "phantom"
        command = f"edgecxr prepare {kind} {'--n 2000' if kind == 'phantom' else 'PATH'}"
        choice = "name one of those, or " if folders else ""
        raise InputError(f"{missing} in {self.root / 'data'}{listing}: {choice}make one with `{command}`", "dataset")

    def runs(self, name: str) -> list[Path]:
        """Return the runs of a name, the last made first.

        They are called `name`, `name`-2, `name`-3 ..., and need not be finished.
        """
        numbered = [(_number(folder.name, name), folder) for folder in _folders(self.root)]
        return [folder for number, folder in sorted(numbered, reverse=True) if number]

    @contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Lock the run name `name` against other processes.

        Another process that enters this context with the same name waits, so that only one at a time looks for such a
        run or makes one.

        Raises:
            UsageError: the workspace cannot be written.
        """
        lock = self.root / f".{_plain(name)}.lock"
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            with locked(lock):
                yield

    def check_free(self, name: str) -> None:
        """Refuse the name of a run that is taken for good.

        An unfinished run may be one that goes on.

        Raises:
            UsageError: it is no plain name, or that of a finished run or of another folder of the workspace.
        """
        if _plain(name) in _FOLDERS:
            raise UsageError(f"--name {name}: {self.root / name} is a folder of the workspace; give another name")
        if (self.root / name / CARD).exists():
            raise _taken(self.root / name)

    def new_run(self, name: str, numbered: bool = True) -> Path:
        """Make the folder of a new run.

        Args:
            name: its name; one that is taken gets a number: `name`-2, `name`-3 ...
            numbered: False refuses a name that is taken.

        Raises:
            UsageError: the workspace cannot be written, or the name is taken.
        """
        if not numbered and (self.root / _plain(name)).exists():
            raise _taken(self.root / name)
        runs = self.runs(_plain(name))
        number = _number(runs[0].name, name) + 1 if runs else 1
        with writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            while True:
                run = self.root / (name if number == 1 else f"{name}-{number}")
                try:
                    run.mkdir()
                    return run
                except FileExistsError:  # another process was faster, or a file has the name
                    number += 1

    def finished_runs(self) -> list[Path]:
        """Return the finished runs, the latest first."""
        return _newest_first(_folders(self.root), CARD)

    def unfinished_runs(self) -> list[Path]:
        """Return the runs without a card, the latest first."""
        runs = _newest_first(_folders(self.root), CONFIG)
        return [run for run in runs if not (run / CARD).exists()]

    def datasets(self) -> list[Path]:
        """Return the prepared data sets, the latest first."""
        return _newest_first(_folders(self.root / "data"), DATASET)

    def bundles(self) -> list[Path]:
        """Return the bundles, the latest first."""
        return _newest_first(_folders(self.root / "export"), CARD)

    def latest_bundle(self) -> Path:
        """Return the folder of the latest bundle.

        Raises:
            ModelError: there is none.
        """
        bundles = self.bundles()
        if not bundles:
            raise ModelError(f"no bundle in {self.root / 'export'}: make one with `edgecxr export`")
        return bundles[0]


def _taken(run: Path) -> UsageError:
    return UsageError(f"{run} is there already, finished or with other settings: give another --name")


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
    """Return the folders in `parent`, except hidden ones.

    Hidden folders are still being written.
    """
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

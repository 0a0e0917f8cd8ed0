"""The spool of a node.

It is a folder of films and results, with a database of what became of them. What a transaction has committed survives a
kill and a power cut. A file is brought to the disk before the row that names it, and its name is the row's number, so
that nothing from the network enters a path.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgecxr.errors import UsageError
from edgecxr.storage.atomic import sync_folder
from edgecxr.storage.private import own_folder
from edgecxr.storage.unfinished import new_file, sweep

DATABASE = "node.sqlite"

_VERSION = 1
_BUSY = 60.0  # seconds to wait for another process's transaction, which takes milliseconds
_REMEDY = "name another folder with `state`"

_TABLES = """
CREATE TABLE film (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL, digest TEXT NOT NULL, sop_class TEXT NOT NULL, study TEXT NOT NULL, series TEXT NOT NULL,
    size INTEGER NOT NULL, source TEXT NOT NULL, received REAL NOT NULL, twin INTEGER,
    state TEXT NOT NULL, reason TEXT, changed REAL NOT NULL, lease TEXT, ended INTEGER NOT NULL DEFAULT 0,
    prediction TEXT, spooled INTEGER NOT NULL DEFAULT 1,
    UNIQUE (uid, digest)
);
CREATE INDEX film_state ON film (state, ended, id);
CREATE TABLE result (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    film INTEGER NOT NULL REFERENCES film (id), kind TEXT NOT NULL, sop_class TEXT NOT NULL, uid TEXT NOT NULL UNIQUE,
    spooled INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX result_film ON result (film);
CREATE TABLE delivery (
    result INTEGER NOT NULL REFERENCES result (id), destination TEXT NOT NULL,
    state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, begun REAL NOT NULL, due REAL NOT NULL, error TEXT,
    PRIMARY KEY (result, destination)
);
CREATE INDEX delivery_state ON delivery (destination, state, due);
CREATE TABLE watched (path TEXT PRIMARY KEY, size INTEGER NOT NULL, changed INTEGER NOT NULL, outcome TEXT NOT NULL)
"""

Run = Callable[..., sqlite3.Cursor]


class Spool:
    """The spool as one process sees it; its threads may share it.

    Args:
        folder: of the node's state; made if missing.

    Attributes:
        folder: the same.
        incoming: folder of unfinished files.
        films: folder of films.
        results: folder of results.

    Raises:
        UsageError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.incoming, self.films, self.results = (folder / name for name in ("incoming", "films", "results"))
        self._lock = threading.RLock()
        try:
            for place in (folder, self.incoming, self.films, self.results):
                own_folder(place, _REMEDY)
            self._database = sqlite3.connect(
                folder / DATABASE, timeout=_BUSY, isolation_level=None, check_same_thread=False
            )
            self._database.row_factory = sqlite3.Row
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._create()
        except (OSError, sqlite3.Error) as error:
            raise UsageError(f"{folder} cannot be used ({error}): {_REMEDY}") from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def read(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """Return the rows that a statement selects."""
        with self._lock:
            return self._database.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        """Provide a function that runs a statement with values.

        All statements of the block count, or none. Other processes wait.

        Raises:
            sqlite3.Error: the database cannot be written.
        """
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield lambda statement, *values: self._database.execute(statement, values)
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def new_file(self) -> tuple[Path, IO[bytes]]:
        """Make a file in `incoming`, and open it.

        It is the caller's to remove.

        Raises:
            OSError: it cannot be made.
        """
        return new_file(self.incoming)

    @contextmanager
    def written(self, content: bytes) -> Iterator[Path]:
        """Provide a file in `incoming` that is on the disk.

        It is removed afterwards unless it was moved.

        Raises:
            OSError: it cannot be written.
        """
        path, file = self.new_file()
        try:
            with file:  # open until it is moved: a file that nobody holds is swept
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                yield path
        finally:
            path.unlink(missing_ok=True)

    def film_path(self, number: int) -> Path:
        """Return the path of a film's file."""
        return self.films / f"{number}.dcm"

    def result_path(self, number: int) -> Path:
        """Return the path of a result's file."""
        return self.results / f"{number}.dcm"

    def sweep(self) -> int:
        """Remove what kills have left; return how many files no row named."""
        sweep(self.incoming)
        removed = 0
        with self.transaction() as run:  # nobody else is between moving a file and committing its row
            for place, table in ((self.films, "film"), (self.results, "result")):
                known = {f"{row[0]}.dcm" for row in run(f"SELECT id FROM {table}")}
                for path in place.iterdir():
                    if path.name not in known:
                        path.unlink()
                        removed += 1
        return removed

    def forget(self, keep_films: float, keep_results: float) -> int:
        """Remove files that have been kept long enough; return how many.

        Rows stay, so that a film that is sent again is known. What is not filed yet stays.

        Args:
            keep_films: seconds for which the file of a film stays after it was filed, refused or rejected.
            keep_results: seconds for which its results stay.
        """
        now, removed = time.time(), 0
        final = "film.state IN ('filed', 'refused', 'rejected', 'forgotten')"
        of_films = f"SELECT id FROM film WHERE spooled AND {final} AND changed < ?"
        of_results = (
            f"SELECT result.id FROM result JOIN film ON film.id = film WHERE result.spooled AND {final} AND changed < ?"
        )
        for table, path, select, keep in (
            ("film", self.film_path, of_films, keep_films),
            ("result", self.result_path, of_results, keep_results),
        ):
            numbers = [row[0] for row in self.read(select, now - keep)]
            for number in numbers:
                path(number).unlink(missing_ok=True)
            with self.transaction() as run:
                for number in numbers:
                    run(f"UPDATE {table} SET spooled = 0 WHERE id = ?", number)
            removed += len(numbers)
        with self.transaction() as run:
            run(
                "UPDATE film SET state = 'forgotten', prediction = NULL WHERE state = 'filed' AND NOT spooled"
                " AND NOT EXISTS (SELECT 1 FROM result WHERE film = film.id AND spooled)"
            )
        return removed

    def _create(self) -> None:
        with self.transaction() as run:
            version = run("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _TABLES.split(";"):
                    run(statement)
                run(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise UsageError(
                    f"{self.folder / DATABASE} was made by another version of edgecxr: give another folder, or use the "
                    "version that made it"
                )


def moved(building: Path, target: Path) -> None:
    """Move a file to its final name, durably.

    Its content is on the disk already.

    Raises:
        OSError: it cannot be moved.
    """
    building.replace(target)
    sync_folder(target.parent)

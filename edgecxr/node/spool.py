"""The spool of a node.

It is a folder of films and results, with a database of what became of them. What a transaction has committed survives a
kill and a power cut. A file is brought to the disk before the row that names it, and its name is the row's number, so
that nothing from the network enters a path.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edgecxr.errors import UsageError
from edgecxr.storage.atomic import sync_folder
from edgecxr.storage.private import own_folder
from edgecxr.storage.unfinished import new_file, sweep

DATABASE = "node.sqlite"

_BUSY = 60.0  # seconds to wait for another process's transaction, which takes milliseconds
_REMEDY = "name another folder with `state`"

_FIRST = """
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

_NOW = "(julianday('now') - 2440587.5) * 86400"  # seconds since the epoch

_PAGES = f"""
CREATE TABLE page (
    film INTEGER PRIMARY KEY REFERENCES film (id), patient TEXT, patient_id TEXT, abnormal INTEGER,
    findings TEXT NOT NULL, pictures INTEGER NOT NULL
);
CREATE TABLE event (film INTEGER NOT NULL, at REAL NOT NULL, what TEXT NOT NULL, whither TEXT);
CREATE INDEX event_film ON event (film);
CREATE TRIGGER film_event AFTER UPDATE OF state ON film WHEN new.state <> old.state BEGIN
    INSERT INTO event VALUES (new.id, {_NOW}, new.state, NULL); END;
CREATE TRIGGER delivery_event AFTER UPDATE OF state ON delivery WHEN new.state <> old.state BEGIN
    INSERT INTO event SELECT film, {_NOW}, new.state, new.destination FROM result WHERE id = new.result; END;
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT NOT NULL, at REAL NOT NULL)
"""

_COMMITMENT = """
CREATE TABLE commitment (
    result INTEGER NOT NULL REFERENCES result (id), destination TEXT NOT NULL,
    sop_class TEXT NOT NULL, uid TEXT NOT NULL, number TEXT,
    begun REAL NOT NULL, due REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (result, destination)
)
"""

_TABLES = (_FIRST, _PAGES, _COMMITMENT)
"""Statements that bring a database from each version to the next, one to each semicolon at the end of a line."""

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
        pictures: folder of pictures for the web page.

    Raises:
        UsageError: the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = ("incoming", "films", "results", "pictures")
        self.incoming, self.films, self.results, self.pictures = (folder / name for name in names)
        self._lock = threading.RLock()
        try:
            for place in (folder, self.incoming, self.films, self.results, self.pictures):
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

    def picture_path(self, number: int, kind: str) -> Path:
        """Return the path of a film's picture.

        Args:
            number: of the film.
            kind: of the picture, such as "film".
        """
        return self.pictures / f"{number}.{kind}.png"

    def note(self, name: str, value: Any) -> None:
        """Note a fact for the web page.

        It takes the place of what was noted under this name.

        Args:
            name: such as "model".
            value: anything that JSON can hold.

        Raises:
            sqlite3.Error: the database cannot be written.
        """
        with self.transaction() as run:
            run("INSERT OR REPLACE INTO note VALUES (?, ?, ?)", name, json.dumps(value), time.time())

    def sweep(self) -> int:
        """Remove what kills have left; return how many files no row keeps."""
        sweep(self.incoming)
        removed = 0
        with self.transaction() as run:  # nobody else is between moving a file and committing its row
            for place, table in ((self.films, "film"), (self.results, "result"), (self.pictures, "film")):
                kept = "" if place is self.pictures else " WHERE spooled"
                ids = {str(row[0]) for row in run(f"SELECT id FROM {table}{kept}")}
                for path in place.iterdir():
                    if path.name.partition(".")[0] not in ids:
                        path.unlink()
                        removed += 1
        return removed

    def forget(self, keep_films: float, keep_results: float) -> int:
        """Remove files that have been kept long enough; return how many.

        Rows stay, so that a film that is sent again is known. What is not filed yet stays.

        Args:
            keep_films: seconds for which the file of a film stays after it was filed, refused or rejected.
            keep_results: seconds for which its results stay; what a destination is still to get stays longer.
        """
        now, removed = time.time(), 0
        final = "film.state IN ('filed', 'refused', 'rejected', 'forgotten')"
        of_films = f"SELECT id FROM film WHERE spooled AND {final} AND changed < ?"
        of_results = (
            f"SELECT result.id FROM result JOIN film ON film.id = film WHERE result.spooled AND {final} AND changed < ?"
            " AND result.id NOT IN (SELECT result FROM delivery WHERE state IN ('waiting', 'dead'))"
            " AND result.id NOT IN (SELECT result FROM commitment)"
        )
        for table, path, select, keep in (
            ("film", self.film_path, of_films, keep_films),
            ("result", self.result_path, of_results, keep_results),
        ):
            with self.transaction() as run:  # a retry that asks for a result meanwhile finds it, or none of it
                numbers = [row[0] for row in run(select, now - keep)]
                for number in numbers:
                    run(f"UPDATE {table} SET spooled = 0 WHERE id = ?", number)
            for number in numbers:
                path(number).unlink(missing_ok=True)  # what a kill leaves here, `sweep` removes
            removed += len(numbers)
        return removed + self._forget_pages(now - keep_results)

    def _forget_pages(self, before: float) -> int:
        """Remove what the page shows of films done before a time."""
        done = "FROM film WHERE state IN ('filed', 'refused', 'rejected', 'forgotten') AND changed < ?"
        shown = "SELECT film FROM page UNION SELECT film FROM event"
        numbers = [row[0] for row in self.read(f"SELECT film FROM ({shown}) WHERE film IN (SELECT id {done})", before)]
        removed = 0
        for number in numbers:
            for path in self.pictures.glob(f"{number}.*"):
                path.unlink(missing_ok=True)
                removed += 1
        with self.transaction() as run:
            for number in numbers:
                run("DELETE FROM page WHERE film = ?", number)
                run("DELETE FROM event WHERE film = ?", number)
                run("UPDATE film SET prediction = NULL WHERE id = ? AND state <> 'filed'", number)
            run(
                "UPDATE film SET state = 'forgotten', prediction = NULL WHERE state = 'filed' AND NOT spooled"
                " AND NOT EXISTS (SELECT 1 FROM result WHERE film = film.id AND spooled)"
            )
        return removed

    def _create(self) -> None:
        if self.read("PRAGMA user_version")[0][0] == len(_TABLES):
            return  # nothing is written, so that whoever only looks waits for nobody
        with self.transaction() as run:
            version = run("PRAGMA user_version").fetchone()[0]
            if version > len(_TABLES):
                raise UsageError(
                    f"{self.folder / DATABASE} was made by a later version of edgecxr: give another folder, or use the "
                    "version that made it"
                )
            for statements in _TABLES[version:]:
                for statement in statements.split(";\n"):
                    run(statement)
            run(f"PRAGMA user_version = {len(_TABLES)}")


class ChangingNote:
    """A fact for the web page that is written when it changes.

    Args:
        spool: where.
        name: as that of `Spool.note`.
    """

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool, self._name, self._last = spool, name, None

    def update(self, value: Any) -> None:
        """Note a value if it is new; a failure is tried again."""
        if value != self._last:
            with suppress(sqlite3.Error):
                self._spool.note(self._name, value)
                self._last = value


def moved(building: Path, target: Path) -> None:
    """Move a file to its final name, durably.

    Its content is on the disk already.

    Raises:
        OSError: it cannot be moved.
    """
    building.replace(target)
    sync_folder(target.parent)

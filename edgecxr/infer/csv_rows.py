"""A table of results for spreadsheets: one row per film."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgecxr.errors import UsageError
from edgecxr.infer.resume import ResultsFile
from edgecxr.storage.appended import LineFile, appended
from edgecxr.storage.spreadsheet import csv_text
from edgecxr.vocabulary import ABNORMAL

_FIRST = ("source", "status", "reason")
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_LAST = ("message", "warnings", "operating_point", "model", "model_sha256", "precision", "edgecxr", "time", "notice")
_REMEDY = "give another with --csv"


class CsvFile:
    """A table that is open to be appended to.

    Each output of the model has three columns: its probability, its threshold, and the decision as 0 or 1.
    """

    def __init__(self, file: LineFile, labels: Sequence[str]) -> None:
        self._file, self._names = file, (ABNORMAL, *labels)

    def add(self, record: Mapping[str, Any]) -> None:
        """Append the row of one film.

        Args:
            record: what `edgecxr.infer.json_line.record_of` returned.

        Raises:
            UsageError: the row cannot be written.
        """
        self._file.add(csv_text(self._row(record), ()))

    def restore(self, records: Iterator[Mapping[str, Any]]) -> None:
        """Replace the rows of an earlier run.

        A killed run may have lost some; its file of results has them all.

        Args:
            records: those of the file of results.

        Raises:
            UsageError: the file holds something else, or cannot be written.
        """
        header = csv_text(self._header, ())
        before = self._file.read()
        if before and not before.startswith(header.encode()) and not header.encode().startswith(before):
            raise UsageError(f"the table of --csv holds something else than results of this model: {_REMEDY}")
        text = csv_text(self._header, map(self._row, records))
        self._file.cut(0)
        self._file.add(text)

    @property
    def _header(self) -> list[str]:
        decided = [column for name in self._names for column in (name, f"{name} threshold", f"{name} decision")]
        return [*_FIRST, *_UIDS, *decided, *_LAST]

    def _row(self, record: Mapping[str, Any]) -> list[object]:
        outputs = {**record.get("findings", {}), ABNORMAL: record.get(ABNORMAL)}
        cells: list[object] = [record.get(key) or "" for key in _FIRST]
        cells += [(record.get("film") or {}).get(key, "") for key in _UIDS]
        for name in self._names:
            output = outputs.get(name)
            cells += [output["probability"], output["threshold"], int(output["decision"])] if output else [""] * 3
        last = dict(record) | {"warnings": " | ".join(record.get("warnings", ()))}
        return cells + [last.get(key) or "" for key in _LAST]


@contextmanager
def csv_file(path: Path, labels: Sequence[str], results: ResultsFile | None) -> Iterator[CsvFile]:
    """Open a table for new rows.

    With a file of results that is resumed, the table first gets the rows of what that has; without, it must be new.

    Args:
        path: the table.
        labels: the model's findings.
        results: the file of results, if any.

    Raises:
        UsageError: there is such a file already, or it cannot be written.
    """
    if results is None and os.path.lexists(path):
        raise UsageError(f"{path} is there already: {_REMEDY}, or add --json --resume FILE to go on with it")
    with appended(path, _REMEDY) as file:
        table = CsvFile(file, labels)
        table.restore(iter(()) if results is None else results.records())
        yield table

"""A file of results, one JSON object per line, to which a later run appends what it lacks."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgecxr.errors import GATE_REASONS, InputError, UsageError, brief
from edgecxr.infer.predictor import Predictor
from edgecxr.storage.atomic import writing
from edgecxr.storage.locks import open_locked

AGAIN = ("too-slow", "too-large", "crash", "not-found")
"""Reasons that may be gone the next time: such files are looked at again."""

_BEGINNING = b'{"source": '


class ResultsFile:
    """A file of results, open to be appended to.

    Attributes:
        done: the files that it has, with "ok" or "rejected"; without those that were rejected for a reason of `AGAIN`,
            or by the quality gate where that is overruled now.
    """

    def __init__(self, path: Path, descriptor: int, end: int, done: dict[str, str]) -> None:
        self._path, self._descriptor, self._end = path, descriptor, end
        self.done = done

    def add(self, line: str) -> None:
        """Append a line, whole or not at all.

        Raises:
            UsageError: it cannot be written.
        """
        data = f"{line}\n".encode("ascii")
        with writing(self._path, "give another with --resume"):
            try:
                written = 0
                while written < len(data):
                    written += os.pwrite(self._descriptor, data[written:], self._end + written)
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._end)
                raise
        self._end += len(data)


@contextmanager
def resumed(path: Path, predictor: Predictor) -> Iterator[ResultsFile]:
    """Open a file of results, and keep other processes from writing to it; it is made if need be.

    Args:
        path: the file.
        predictor: whose results are to be added.

    Raises:
        InputError: it holds something else; reason "malformed".
        UsageError: it cannot be opened, another process writes to it, or it has results of another model.
    """
    with writing(path, "give another with --resume"):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_locked(path, f"is writing to {path}: wait for it, or give another with --resume")
    with file:
        done, end = _read(path, file.read(), predictor)
        with writing(path, "give another with --resume"):
            os.ftruncate(file.fileno(), end)  # what was cut off when it was written
        yield ResultsFile(path, file.fileno(), end, done)


def _read(path: Path, content: bytes, predictor: Predictor) -> tuple[dict[str, str], int]:
    """Return the files that there are results of, and where the last whole line ends."""
    overruled = GATE_REASONS if predictor.force else ("view",) if predictor.any_view else ()
    done: dict[str, str] = {}
    end = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        cut = not line.endswith(b"\n")
        if cut and line[: len(_BEGINNING)] == _BEGINNING[: len(line)]:
            break
        try:
            result = json.loads(line)
            source, status = str(result["source"]), str(result["status"])
            reason, model = result.get("reason"), result.get("model") or predictor.card.name
            precision = result.get("precision") or predictor.precision
            of_gate = result.get("gate") is not None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"line {number} of {path} is no result of `edgecxr infer --json`: give another with --resume",
                "malformed",
            ) from error
        point = result.get("operating_point", predictor.operating_point)
        if (model, precision, point) != (predictor.card.name, predictor.precision, predictor.operating_point):
            ours = f"{predictor.card.name} ({predictor.precision}) at {predictor.operating_point}"
            raise UsageError(
                f"{path} has results of {brief(model)} ({brief(precision)}) at {brief(point)}, not of {ours}: give "
                "another with --resume"
            )
        done.pop(source, None)
        if reason not in AGAIN and not (of_gate and reason in overruled):
            done[source] = "ok" if status == "ok" else "rejected"
        end += len(line)
    return done, end

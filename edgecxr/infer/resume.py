"""A file of JSON lines to which later runs append missing results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecxr.errors import GATE_REASONS, InputError, UsageError, brief
from edgecxr.infer.film_files import lacks
from edgecxr.infer.json_line import stamp_of
from edgecxr.infer.predictor import Predictor
from edgecxr.storage.appended import LineFile, appended
from edgecxr.storage.json_values import parse_json
from edgecxr.storage.reading import open_file
from edgecxr.vocabulary import PRECISIONS

AGAIN = ("too-slow", "too-large", "crash", "not-found")
"""Reasons that may not apply the next time: such files are tried again."""

_BEGINNING = b'{"source": '
_REMEDY = "give another with --resume"


@dataclass(frozen=True)
class ExpectedOutputs:
    """What a run writes of each film beside its line.

    Attributes:
        pictures: folder of pictures; None for none.
        dicom: folder of DICOM files; None for none.
        attention: whether lines have the attention map.
        patient: whether the DICOM files say who the patient is.
    """

    pictures: Path | None = None
    dicom: Path | None = None
    attention: bool = False
    patient: bool = True

    def contradicts(self, line: Any) -> bool:
        """Return whether DICOM files were written by the other choice of `patient`.

        Those of older versions, which do not say it, are taken to name the patient.
        """
        filed = line.get("dicom") or {}
        return self.dicom is not None and bool(filed.get("files")) and filed.get("patient", True) != self.patient

    def missing(self, line: Any) -> bool:
        """Return whether a predicted film lacks something of this.

        Its line says what there is, and which files. What could not be made is not missing: it would fail again.
        """
        filed = line.get("dicom") or {}
        files = [file["path"] for file in filed.get("files", ())]
        return (
            (self.attention and "attention" not in line)
            or (
                self.pictures is not None
                and "overlay_reason" not in line
                and not _lie(self.pictures, line.get("overlay"))
            )
            or (self.dicom is not None and not (_lie(self.dicom, *files) or (not files and filed.get("reason"))))
        )


def _lie(folder: Path, *files: Any) -> bool:
    """Return whether there are files, and all lie in a folder."""
    # Resolved, since one run may be given the relative path of the folder, and the next one the absolute path.
    whole = folder.resolve()
    return bool(files) and all(
        isinstance(file, str) and Path(file).is_file() and Path(file).resolve().is_relative_to(whole) for file in files
    )


@dataclass(frozen=True)
class EarlierResult:
    """What a file of results says of a film.

    Attributes:
        status: "ok" or "rejected", "lacking" without a picture or a DICOM result that could not be made.
        stamp: size and time of the film's file; None if the line does not say, as those of older versions.
    """

    status: str
    stamp: dict[str, Any] | None


class ResultsFile:
    """A file of results, open to be appended to.

    Attributes:
        done: path of a film -> what the last line about it says; without films that were rejected for a reason in
            `AGAIN`, or by the quality gate if that is overruled now, and those of which something is missing.
    """

    def __init__(self, file: LineFile, done: dict[str, EarlierResult]) -> None:
        self._file, self.done = file, done

    def add(self, line: str) -> None:
        """Append a line, whole or not at all.

        Raises:
            UsageError: the line cannot be written.
        """
        self._file.add(f"{line}\n")

    def status(self, film: Path) -> str | None:
        """Return a film's status, one of `EarlierResult`.

        It is None if the film is to be looked at: if it has no result, or its file has changed since, such as one that
        was still being copied.
        """
        done = self.done.get(str(film))
        if done is None or (done.stamp is None and done.status == "rejected"):
            return None
        return done.status if done.stamp in (None, stamp_of(film)) else None

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the last line about each film."""
        lines = [parse_json(line) for line in self._file.read().splitlines()]
        last = {record["source"]: number for number, record in enumerate(lines)}
        yield from (lines[number] for number in sorted(last.values()))


@contextmanager
def resumed(path: Path, predictor: Predictor, expected: ExpectedOutputs) -> Iterator[ResultsFile]:
    """Open a file of results, for this process alone.

    The file is created if it does not exist.

    Args:
        path: the file.
        predictor: the model whose results are added.
        expected: what the run writes beside the lines.

    Raises:
        InputError: the file has other content; reason "malformed".
        UsageError: it cannot be opened, another process writes to it, or it has results of another model.
    """
    with appended(path, _REMEDY) as file:
        done, end = _read(path, file.read(), predictor, expected)
        file.cut(end)  # remove a last line that was not written completely
        yield ResultsFile(file, done)


def precision_of(path: Path) -> str | None:
    """Return the precision of a file's first result.

    None if there is none that says it; what is wrong with the file is found when it is opened to be appended to.
    """
    try:
        with open_file(path) as file:
            precision = parse_json(file.readline()).get("precision")
    except (OSError, ValueError, AttributeError):
        return None
    return precision if precision in PRECISIONS else None


def _read(
    path: Path, content: bytes, predictor: Predictor, expected: ExpectedOutputs
) -> tuple[dict[str, EarlierResult], int]:
    """Return the films with results, and where the last whole line ends."""
    overruled = GATE_REASONS if predictor.force else ("view",) if predictor.any_view else ()
    ours = predictor.identity
    done: dict[str, EarlierResult] = {}
    end = 0
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        cut = not line.endswith(b"\n")
        if cut and line[: len(_BEGINNING)] == _BEGINNING[: len(line)]:
            break
        try:
            result = parse_json(line)
            source, status = str(result["source"]), str(result["status"])
            # What a line of an older version does not say, is taken to be right.
            model, precision = result.get("model") or ours.name, result.get("precision") or ours.precision
            sha256, point = result.get("model_sha256", ours.sha256), result.get("operating_point", ours.operating_point)
            reason, stamp, by_gate = result.get("reason"), result.get("file"), result.get("gate") is not None
            again = expected.missing(result) if status == "ok" else reason in AGAIN or (by_gate and reason in overruled)
            state = "rejected" if status != "ok" else "lacking" if lacks(result) else "ok"
            contradicts = expected.contradicts(result)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"line {number} of {path} is no result of `edgecxr infer --json`: {_REMEDY}", "malformed"
            ) from error
        if (model, precision, point) != (ours.name, ours.precision, ours.operating_point):
            here = f"{ours.name} ({ours.precision}) at {ours.operating_point}"
            raise UsageError(
                f"{path} has results of {brief(model)} ({brief(precision)}) at {brief(point)}, not of {here}: {_REMEDY}"
            )
        if sha256 != ours.sha256:
            raise UsageError(f"{path} has results of another export of {ours.name} ({ours.precision}): {_REMEDY}")
        if contradicts:
            raise UsageError(
                f"{path} has DICOM results {'without' if expected.patient else 'with'} the patient: {_REMEDY} and "
                f"another folder with --dicom, or {'add' if expected.patient else 'leave out'} --no-phi"
            )
        done.pop(source, None)
        if not again:
            done[source] = EarlierResult(state, stamp)
        end += len(line)
    return done, end

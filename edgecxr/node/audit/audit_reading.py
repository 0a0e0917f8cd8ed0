"""The audit trail, read: as entries, as lines for people, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edgecxr.errors import CheckFailed, UsageError
from edgecxr.node.audit.audit_messages import OWN
from edgecxr.node.audit.audit_trail import FOLDER, HEAD, LARGEST_FILE, End, entry_of, file_names, first_line
from edgecxr.storage.locks import open_locked
from edgecxr.storage.reading import BadFile, open_file

MOST_SEARCHED = 20_000
"""Lines that `latest` looks through at a time, about a second."""

_DETAILS = (
    "it was changed, removed or exchanged, or one before it was: compare the trail with a copy, and find out who can "
    "write to the state folder"
)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_OUTCOMES = {"4": "minor failure", "8": "serious failure", "12": "major failure"}


@dataclass
class Checked:
    """What a whole trail consists of.

    Attributes:
        end: its end.
        torn: numbers of lines that were not written to their ends, and closed.
        unfinished: whether the last line is one, not closed so far.
    """

    end: End
    torn: list[int] = field(default_factory=list)
    unfinished: bool = False


def entries(state: Path, since: datetime | None = None, film: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the entries of a trail, the oldest first.

    Args:
        state: folder of the node's state.
        since: only those from then on.
        film: only those about the film with this SOP instance UID, and about its results.

    Raises:
        UsageError: there is no trail, or it cannot be read.
    """
    for _, contents, _ in _files(state, _snapshot(state)[1]):
        for content in contents:
            entry = entry_of(content)
            if entry is None:
                continue
            time = _time(entry)
            if since is not None and time is not None and time < since:
                continue
            if film is None or film in _uids(entry):
                yield entry


def latest(
    state: Path, count: int, before: int | None = None, text: str = ""
) -> tuple[list[dict[str, Any]], int | None]:
    """Return some entries of a trail, the newest first.

    Args:
        state: folder of the node's state.
        count: number of entries at most.
        before: number of a line; only earlier ones. None: from the end.
        text: only entries that have this somewhere in what `describe` returns, in any case.

    Returns:
        The entries; and the line to go on before, None at the beginning. After `MOST_SEARCHED` lines the search ends.

    Raises:
        UsageError: there is no trail, or it cannot be read.
    """
    sizes = _snapshot(state)[1]
    names = [name for name in sizes if before is None or first_line(name) < before]
    shown: list[dict[str, Any]] = []
    searched = 0
    for name, contents, _ in _files(state, {name: sizes[name] for name in reversed(names)}):
        first = first_line(name)
        for number in range(first + len(contents) - 1, first - 1, -1):
            if before is not None and number >= before:
                continue
            searched += 1
            entry = entry_of(contents[number - first])
            if entry is not None and text.casefold() in " ".join(describe(entry)).casefold():
                shown.append(entry)
            if number > 1 and (len(shown) == count or searched == MOST_SEARCHED):
                return shown, number
    return shown, None


def verify(state: Path, anchor: str | None = None) -> Checked:
    """Check that no line of a trail was changed, removed or exchanged.

    Args:
        state: folder of the node's state.
        anchor: number and SHA-256 of a line, "12:3fa9...", as an earlier check gave them. Lines up to that one may be
            missing, if whole files are.

    Raises:
        UsageError: there is no trail, or `anchor` is none.
        CheckFailed: the trail is not whole; the error has the line's number.
    """
    noted = End.of(anchor) if anchor is not None else None
    if anchor is not None and noted is None:
        raise UsageError(f"--anchor {anchor[:80]}: give what an earlier --verify has printed, LINE:SHA256")
    head, sizes = _snapshot(state)
    checked = Checked(End())
    passed_head, passed_anchor = head in (End(), noted), False
    closing = False  # whether the line before is torn, so that this one must say it
    for name, contents, rest in _files(state, sizes):
        first = first_line(name)
        if noted is not None and checked.end == End() and 1 < first <= noted.line + 1:
            begin = entry_of(contents[0]) if contents else None
            checked.end = End(first - 1, str((begin or {}).get("previous")))
            passed_anchor = checked.end == noted
        if first != checked.end.line + 1 or checked.unfinished:
            raise _broken(checked.end.line + 1, "is missing")
        for content in contents:
            end, number = checked.end, checked.end.line + 1
            entry = entry_of(content)
            if entry is None:
                checked.torn.append(number)
            elif entry.get("line") != number or entry.get("previous") != end.sha256:
                raise _broken(number, "does not continue the line before")
            elif _kind(entry) == "trail-broken":
                raise _broken(number, "says that lines before it were changed or removed")
            elif closing and _kind(entry) != "trail-torn":
                raise _broken(number - 1, "is no whole line")
            closing = entry is None
            checked.end = end.after(content)
            passed_head = passed_head or checked.end == head
            passed_anchor = passed_anchor or checked.end == noted
        checked.unfinished = bool(rest)
    if head is None or not passed_head:
        raise _broken(head.line if head else checked.end.line, "was the last one, and is not as it was")
    if noted is not None and not passed_anchor:
        raise _broken(noted.line, "is not the one of --anchor")
    return checked


def report(checked: Checked) -> list[str]:
    """Return what was checked as lines for people."""
    lines = [f"whole: {checked.end.line} lines, the last one {checked.end}"]
    if checked.torn:
        lines.append(f"not written to their ends, by a kill or a power cut: lines {', '.join(map(str, checked.torn))}")
    if checked.unfinished:
        lines.append("the last line is not written to its end; the node's next event closes it")
    return lines


def describe(entry: dict[str, Any]) -> list[str]:
    """Return an entry as cells for people.

    They are number, time, event, who, what, how it went.
    """
    event = _table(entry.get("EventIdentification"))
    who = []
    for item in _tables(entry, "ActiveParticipant"):
        at = item.get("NetworkAccessPointID")
        who.append(f"{item.get('UserID', '')}{f' at {at}' if at else ''}")
    objects = []
    for item in _tables(entry, "ParticipantObjectIdentification"):
        objects += _instances(item) or [str(item.get("ParticipantObjectID", ""))]
    outcome = _OUTCOMES.get(str(event.get("EventOutcomeIndicator")), "")
    remark = str(event.get("EventOutcomeDescription", ""))
    time = _time(entry)
    when = time.astimezone().isoformat(sep=" ", timespec="seconds") if time else ""
    how = ": ".join(part for part in (outcome, remark) if part)
    return [str(entry.get("line")), when, _kind(entry), ", ".join(who), ", ".join(objects), how]


def moment(text: str) -> datetime:
    """Return the moment that --since names.

    Args:
        text: "2026-11-29", "2026-11-29T08:30", or a number of minutes, hours, days or weeks: "30m", "12h", "7d", "2w".

    Raises:
        UsageError: it is none of these.
    """
    if text[:-1].isdecimal() and text[-1:] in _UNITS and len(text) <= 7:
        return datetime.now(timezone.utc) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"--since {text[:80]}: give a time such as 2026-11-29T08:30, or 30m, 12h, 7d or 2w for so long ago"
        ) from error


def _broken(line: int, why: str) -> CheckFailed:
    return CheckFailed(f"the audit trail is broken: line {line} {why}; {_DETAILS}")


def _snapshot(state: Path) -> tuple[End | None, dict[str, int]]:
    """Return the head and the sizes of the files at one moment.

    Raises:
        UsageError: there is no trail, or it cannot be read.
    """
    folder = state / FOLDER
    try:
        with ExitStack() as stack:
            head = None
            if (folder / HEAD).is_file():
                file = stack.enter_context(open_locked(folder / HEAD))
                head = End.of(file.read(200).decode("ascii", "replace"))
            sizes = {name: (folder / name).stat().st_size for name in file_names(folder)}
    except OSError as error:
        raise UsageError(f"{folder} cannot be read ({error.strerror}): run this as the node's user") from error
    if not sizes and head is None:
        raise UsageError(f"there is no audit trail in {state}: name the node's configuration with --config")
    return head, sizes


def _files(state: Path, sizes: dict[str, int]) -> Iterator[tuple[str, list[bytes], bytes]]:
    """Yield the name, lines and unfinished line of each file.

    Raises:
        UsageError: one cannot be read.
    """
    for name, size in sizes.items():
        path = state / FOLDER / name
        try:
            with open_file(path) as file:
                *contents, rest = file.read(min(size, 4 * LARGEST_FILE)).split(b"\n")
        except (OSError, BadFile) as error:
            raise UsageError(f"{path} cannot be read ({error}): run this as the node's user") from error
        yield name, contents, rest


def _kind(entry: dict[str, Any]) -> str:
    types = _tables(_table(entry.get("EventIdentification")), "EventTypeCode")
    return next((str(each.get("csd-code")) for each in types if each.get("codeSystemName") == OWN), "")


def _time(entry: dict[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(str(_table(entry.get("EventIdentification")).get("EventDateTime"))).astimezone()
    except (ValueError, OverflowError, OSError):
        return None


def _uids(entry: dict[str, Any]) -> set[str]:
    uids: set[str] = set()
    for item in _tables(entry, "ParticipantObjectIdentification"):
        uids.update(_instances(item))
        uids.update(str(detail.get("value")) for detail in _tables(item, "ParticipantObjectDetail"))
    return uids


def _instances(described: dict[str, Any]) -> list[str]:
    return [
        str(instance.get("UID"))
        for of_class in _tables(described, "SOPClass")
        for instance in _tables(of_class, "Instance")
    ]


# An entry may have been edited by hand: it is shown as far as it is one.
def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _tables(table: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = table.get(key)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []

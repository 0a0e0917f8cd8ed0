"""Labels of one column of names."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgecxr.data.tables.cells import NEGATIVE, POSITIVE, UNCERTAIN, UNSURE, is_unsure
from edgecxr.data.tables.labels import SETS, is_finding, plain_name
from edgecxr.data.tables.statements import is_normal, objection, parts_of, signs, without_remarks
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.storage.settings import shown

_NORMAL = "normal"
"""Key of the one class for all names that say that nothing is wrong."""

MAP = "a file for --labels lists it under a finding if it is one"
"""The end of a remedy for a name that is not clear."""

_YES, _NO = (*POSITIVE, "1"), (*NEGATIVE, "0")

_DOUBT = re.compile(
    r"\( *\?+ *\)|\((?:likely|possible|probable|suspected|uncertain)\)|"
    r"\?+|\b(?:possibl[ey]|probabl[ey]|(?:un)?likely|suspected|suspicious (?:of|for)|suspicion of|questionable|query|"
    r"rule out|maybe|may be|cannot exclude|uncertain|equivocal|verdacht auf|ddx?|fraglich\w*|m\u00f6glich\w*|"
    r"wahrscheinlich\w*|posible|sospecha de|sospetto?)\b|\br/o\b|\bsusp\b\.?|\bv\.? ?a\.",
    re.IGNORECASE,
)
_JOINED = re.compile(r"[/+&\\·、\uff0c\uff1b]| [-\u2013] |\b(?:and|und|et|with|mit|y|plus|sowie)\b", re.IGNORECASE)
_EMPTY_LISTS = ("[]", "{}", "()", "set()")
_NOT_STATED = ("none", "nil", "nothing", "-", "--", "\u2013", "\u2014", *_EMPTY_LISTS)
"""Cells of a column of names that may mean that nothing is wrong as well as that nothing is known."""


def spread(
    table: Table,
    column: str,
    others: list[str],
    uncertain: str | None = None,
    normal: Collection[str] = (),
    as_written: Collection[str] = (),
) -> Table:
    """Return a table with a column for each finding.

    These columns of 0 and 1 replace the column that names the findings.

    A cell holds the names of all findings on an image, Pneumonia|Effusion (or with ; or , between them), or says that
    nothing is wrong; an empty one is not known. A column of yes and no becomes one finding with the column's name.
    Names that differ only in case, blanks and underscores are one.

    Args:
        table: the user's table.
        column: the column; it is replaced.
        others: columns that may be findings, too.
        uncertain: what a name with a doubt, such as "Pneumonia?", counts as: a key of `findings.UNCERTAIN`; None
            refuses it.
        normal: other names that mean that nothing is wrong.
        as_written: names that are those of findings whatever they say.

    Raises:
        InputError: another column holds labels, a cell contradicts itself, doubts, denies or joins findings or may say
            that nothing is wrong, or a name is that of another column; reason "dataset".
    """
    both = [name for name in others if name != column and _is_labels(table.columns[name])]
    if both:
        raise InputError(
            f"{table.path} has findings in column {column!r}, and columns of 0 and 1 ({listing(both)}): leave the "
            "latter out with --ignore, or leave out --label-column to use only them",
            "dataset",
        )
    cells = table.columns[column]
    rest = {name: values for name, values in table.columns.items() if name != column}
    names = _Names(uncertain, normal, as_written, any(is_normal(cell) or cell.lower() in _NO for cell in set(cells)))
    places = [_Place(table, line, column, cell) for line, cell in zip(table.lines, cells, strict=True)]
    entries = [cell.lower() for cell in cells if not is_unknown(cell) and cell not in normal]
    if any(cell in (*_YES, *_NO) for cell in entries) and all(cell in (*_YES, *_NO, *UNSURE) for cell in entries):
        no = {cell for cell in cells if cell.lower() in _NO or cell in normal}
        for place in places:
            if place.cell not in no:
                names.refuse_not_stated(place)
        answers = ["1" if cell.lower() in _YES else "0" if cell in no else cell for cell in cells]
        return dataclasses.replace(table, columns=rest | {column: answers})
    first = {place.cell: place for place in reversed(places)}
    values = {cell: names.read(first[cell]) for cell in dict.fromkeys(cells)}
    read = [values[cell] for cell in cells]
    labels = list(names.spelt.values())
    names.refuse_alike()
    names.refuse_joined()
    taken = [name for name in labels if name in rest]
    if taken:
        raise InputError(
            f"column {column!r} of {table.path} names findings for which the table has columns, too "
            f"({listing(taken)}): rename these columns",
            "dataset",
        )
    columns = {label: [_value(of, label, label == names.spelt.get(_NORMAL)) for of in read] for label in labels}
    return dataclasses.replace(table, columns=rest | columns)


def spread_folders(
    root: Path,
    folders: Collection[str],
    uncertain: str | None = None,
    normal: Collection[str] = (),
    as_written: Collection[str] = (),
) -> dict[str, dict[str, str]]:
    """Return what names of class folders say, by the rules of `spread`.

    Args:
        root: the folder that holds them.
        folders: their names.
        uncertain: see `spread`.
        normal: see `spread`.
        as_written: see `spread`.

    Returns:
        Class -> folder -> "1", "0", or "" if it is not known.

    Raises:
        InputError: as in `spread`, of a folder.
    """
    names = _Names(uncertain, normal, as_written, False)
    values = {folder: names.read(_Folder(root, folder)) for folder in folders}
    names.refuse_alike()
    names.refuse_joined()
    return {
        label: {folder: _value(of, label, label == names.spelt.get(_NORMAL)) for folder, of in values.items()}
        for label in names.spelt.values()
    }


def _value(named: dict[str, str] | None, label: str, of_normal: bool) -> str:
    """Return the cell of a class."""
    if named is None:
        return ""
    if of_normal and "1" not in named.values():
        # The cell names only uncertain findings. If they count as absent, the film is normal; if they count as
        # unknown, it is unknown whether it is normal.
        return "" if "" in named.values() else "1"
    return named.get(label, "0")


class _Place(NamedTuple):
    """A cell of a column of names."""

    table: Table
    line: int
    column: str
    cell: str

    @property
    def short(self) -> str:
        """Return the place for a message about another cell."""
        return f"line {self.line} holds {shown(self.cell)}"

    def wrong(self, problem: str) -> InputError:
        """Return the error that says what is wrong with the cell."""
        return InputError(
            f"line {self.line} of {self.table.path}: column {self.column!r} holds {shown(self.cell)}, {problem}",
            "dataset",
        )

    def is_no_finding(self, why: str, name: str) -> InputError:
        """Return the error that names the options which settle a meaning."""
        says_normal = option("normal-names", name)
        return self.wrong(f"{why}: write No finding or say {says_normal} if nothing is wrong, empty the cell "
                          f"or say {option('unknown-names', name)} if nothing is known; {MAP}")  # fmt: skip


class _Folder(NamedTuple):
    """Folder that is called after a class, in place of a cell."""

    root: Path
    cell: str

    @property
    def short(self) -> str:
        """Return the place for a message about another folder."""
        return f"another is {shown(self.cell)}"

    def wrong(self, problem: str) -> InputError:
        """Return the error that says what is wrong with the name."""
        return InputError(f"{self.root} has a folder {shown(self.cell)}, {problem}", "dataset")

    def is_no_finding(self, why: str, name: str) -> InputError:
        """Return the error that names the option which settles a meaning."""
        return self.wrong(f"{why}: call it Normal or say {option('normal-names', name)} if nothing is wrong on its "
                          f"films, move it elsewhere if nothing is known; {MAP}")  # fmt: skip


@dataclass
class _Names:
    """The names of findings in a column.

    Attributes:
        uncertain: see `spread`.
        normal: see `spread`.
        as_written: see `spread`.
        states_normal: whether a cell says in words that nothing is wrong; None is that of pandas for no value then.
        spelt: plain name, or `_NORMAL` -> the class.
        first: class -> the first cell that names it.
    """

    uncertain: str | None
    normal: Collection[str]
    as_written: Collection[str]
    states_normal: bool
    spelt: dict[str, str] = field(default_factory=dict)
    first: dict[str, _Place | _Folder] = field(default_factory=dict)

    def refuse_not_stated(self, place: _Place | _Folder) -> None:
        """Refuse a cell such as none, which may mean two things."""
        if place.cell.lower() in _NOT_STATED and not (place.cell == "None" and self.states_normal):
            raise place.is_no_finding("which may say that nothing is wrong, or that nothing is known", place.cell)

    def read(self, place: _Place | _Folder) -> dict[str, str] | None:
        """Return the findings that a cell names, and their values.

        Returns:
            Class -> "1" or what a doubt counts as; None if nothing is known.
        """
        if is_normal(place.cell, self.normal):
            return {self._class(_NORMAL, place.cell, place): "1"}
        self.refuse_not_stated(place)
        if is_unknown(place.cell):
            return None
        parts = [place.cell] if place.cell in self.as_written else re.split(r"[|;,\n]", _inner(place.cell))
        names = [name for name in map(_inner, parts) if name]
        if not names:
            raise place.is_no_finding("which names nothing", place.cell)
        values: dict[str, str] = {}
        for name in names:
            sure, doubted = self._without_doubt(name, place, len(names) > 1)
            if not sure:
                return None
            is_of_normal = is_normal(sure, self.normal)
            if not is_of_normal and sure not in self.as_written:
                self._refuse(sure, place)
            label = self._class(_NORMAL if is_of_normal else plain_name(sure), sure, place)
            values[label] = max(values.get(label, ""), UNCERTAIN[self.uncertain] if doubted and self.uncertain else "1")
        if list(map(str.lower, values)) == ["abnormal"]:
            raise place.wrong("which does not say what is wrong: name a finding, with Abnormal| before it or not")
        of_normal = self.spelt.get(_NORMAL)
        if len(values) > 1 and of_normal in values:
            others = listing(name for name in values if name != of_normal)
            raise place.wrong(f"which says that nothing is wrong, but names {others}, too: keep one of the two")
        return values

    def refuse_alike(self) -> None:
        """Refuse names of one finding that would become several classes.

        They differ in punctuation, or in words that say when a finding was there or that it is.
        """
        others = {label: place for label, place in self.first.items() if self._is_judged(label)}
        plain: dict[tuple[str, ...], str] = {}
        for label, place in others.items():
            if plain.setdefault(signs(label), label) != label:
                raise self._alike(place, plain[signs(label)])
        for label, place in others.items():
            if plain.get(signs(without_remarks(label)), label) != label:
                raise self._alike(place, plain[signs(without_remarks(label))])

    def refuse_joined(self) -> None:
        """Refuse a class that is two of the other classes in one."""
        terms = {signs(label) for labels in SETS.values() for label in labels}
        for label, place in self.first.items():
            if is_finding(label) or not self._is_judged(label):
                continue
            own = {signs(other) for other in self.first if other != label}
            parts = {plain_name(part.strip()) for part in _JOINED.split(label)}
            if (len(parts) > 1 and parts & set(self.spelt)) or len(parts_of(label, terms | own - {signs(label)})) > 1:
                raise place.wrong(f"which names more than one finding: write | between them; {MAP}")

    def _is_judged(self, label: str) -> bool:
        return label not in self.as_written and label != self.spelt.get(_NORMAL)

    def _alike(self, place: _Place | _Folder, other: str) -> InputError:
        return place.wrong(f"and {self.first[other].short}: write both alike if they are the same finding; {MAP}")

    def _class(self, key: str, name: str, place: _Place | _Folder) -> str:
        label = self.spelt.setdefault(key, name)
        self.first.setdefault(label, place)
        return label

    def _without_doubt(self, name: str, place: _Place | _Folder, beside_others: bool) -> tuple[str, bool]:
        """Return a name without a doubt, and whether there was one.

        The name is "" if nothing is known.
        """
        if name in self.as_written:
            return name, False
        sure = " ".join(_DOUBT.sub(" ", name).split())
        if sure == " ".join(name.split()) and not is_unsure(name):
            return sure, False
        if self.uncertain is None:
            raise place.wrong(
                "which is uncertain: say with --uncertain ignore, ones or zeros what such findings count as"
            )
        if not sure or is_unsure(sure) or is_normal(sure, self.normal):
            if self.uncertain != "ignore" or beside_others:
                raise place.wrong(
                    "which does not say what finding is uncertain: name it (Pneumonia?), or empty the cell"
                )
            return "", True
        return sure, True

    def _refuse(self, name: str, place: _Place | _Folder) -> None:
        """Refuse a name that is not that of a finding."""
        why = objection(name) or ("" if without_remarks(name) else "which names no finding")
        if why:
            raise place.is_no_finding(why, name)
        if isinstance(place, _Place) and (name.lower() in _YES or is_label_value(name)):
            raise place.wrong("which names no finding: write the names of findings, or only yes and no")


def _inner(text: str) -> str:
    """Return a text without quotation marks and the brackets of a list."""
    listed = re.fullmatch(r"\((['\"].*)\)", text)
    return (listed[1] if listed else text).strip(" []{}'\"")


def option(word: str, name: str) -> str:
    """Return an option with its value as typed in a shell."""
    return f"--{word} {shlex.quote(name)}" if not name.startswith("-") else f"--{word}={name}"


def _is_labels(cells: list[str]) -> bool:
    known_cells = [cell for cell in cells if not is_unknown(cell)]
    return bool(known_cells) and all(map(is_label_value, known_cells))

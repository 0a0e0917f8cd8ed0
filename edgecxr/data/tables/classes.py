"""Labels of class folders and of one column of names."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import NamedTuple

from edgecxr.data.tables.cells import NEGATIVE, POSITIVE, UNCERTAIN, UNSURE, is_unsure
from edgecxr.data.tables.labels import is_finding, plain_name
from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.films.signatures import SUFFIXES
from edgecxr.storage.settings import shown
from edgecxr.storage.walk import names_below

NORMAL = ("normal", "no finding", "no findings", "no_finding", "no_findings", "nofinding", "healthy")
"""Names of a class or column of films on which nothing is wrong, in lower case."""

_YES, _NO = (*POSITIVE, "1"), (*NEGATIVE, "0")

_DOUBT = re.compile(
    r"\( *\?+ *\)|\((?:likely|possible|probable|suspected|uncertain)\)|"
    r"\?+|\b(?:possibl[ey]|probabl[ey]|likely|suspected|suspicious (?:of|for)|suspicion of|questionable|query|rule out|"
    r"maybe|may be|cannot exclude|uncertain|equivocal|verdacht auf)\b|\br/o\b|\bv\.? ?a\.",
    re.IGNORECASE,
)
_NEGATED = re.compile(
    r"(?:no|not|without|negative for|absent|keine?n?|ohne|sin|sans|pas de|aucune?|senza|sem|geen)[ _-].*|"
    # "Non specific opacity" says what an opacity is like; "non pneumonia" says that there is none.
    r"non[ _-](?!(?:specific|calcified|calcific|displaced|obstructive|obstructing|occlusive|segmental|solid|"
    r"cardiogenic|tuberculous|infectious|inflammatory|traumatic|malignant|acute|united|healed|small|hodgkin)[ _-]).*",
    re.IGNORECASE,
)
_JOINED = re.compile(r"[/+&]|\b(?:and|und|et|with|mit|y)\b", re.IGNORECASE)


def class_folders(root: Path) -> Table | None:
    """Return the table that folders of images stand for.

    They are called after a class, CLASS/*.jpg, and may lie in folders called after a split, train/CLASS/*.jpg. Each
    image has the class of its folder and no other.

    Args:
        root: the folder that holds them.

    Returns:
        A table with "image" (paths below `root`), "split" if there are folders of splits, and a column for each class;
        None if there are no two classes.

    Raises:
        InputError: folders of splits lie beside folders of classes, or a class is the absence of something; reason
            "dataset".
    """
    inner = _folders(root)
    of_split = {name: SYNONYMS[name.lower()] for name in inner if name.lower() in SYNONYMS}
    places = [(split, root / name) for name, split in of_split.items()] or [("", root)]
    films: list[tuple[str, str, str]] = []
    spelt: dict[str, str] = {}  # Normal and NORMAL are one class
    for split, place in places:
        for name in _folders(place):
            images = _films(place / name)
            if images:
                label = spelt.setdefault(name.lower(), name)
                films += [(str(path.relative_to(root)), split, label) for path in images]
    classes = list(dict.fromkeys(label for _, _, label in films))
    if len(classes) < 2:
        return None
    beside = [name for name in inner if of_split and name not in of_split and _films(root / name)]
    if beside:
        raise InputError(
            f"{root} has folders of splits ({listing(of_split)}) and others with images ({listing(beside)}): keep one "
            "kind",
            "dataset",
        )
    denied = [name for name in classes if name.lower() not in NORMAL and _NEGATED.fullmatch(name)]
    if denied:
        raise InputError(
            f"{root} has folders that say what is absent ({listing(denied)}): call one Normal if nothing is wrong on "
            "its films, or list the films in a labels.csv",
            "dataset",
        )
    columns = {"image": [image for image, _, _ in films]}
    if of_split:
        columns["split"] = [split for _, split, _ in films]
    columns |= {name: ["1" if label == name else "0" for _, _, label in films] for name in classes}
    return Table(root, columns, list(range(1, len(films) + 1)))


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))


def _films(place: Path) -> list[Path]:
    return sorted(path for path in map(place.joinpath, names_below(place)) if path.suffix.lower() in SUFFIXES)


def spread(table: Table, column: str, others: list[str], uncertain: str | None = None) -> Table:
    """Return a table with a column for each finding.

    These columns of 0 and 1 replace the column that names the findings.

    A cell holds the names of all findings on an image, Pneumonia|Effusion (or with ; or , between them), or one of
    `NORMAL`; an empty one is not known. A column of yes and no becomes one finding with the column's name. Names that
    differ only in case, blanks and underscores are one.

    Args:
        table: the user's table.
        column: the column; it is replaced.
        others: columns that may be findings, too.
        uncertain: what a name with a doubt, such as "Pneumonia?", counts as: a key of `findings.UNCERTAIN`; None
            refuses it.

    Raises:
        InputError: another column holds labels, a cell contradicts itself, doubts, denies or joins findings, or a name
            is that of another column; reason "dataset".
    """
    both = [name for name in others if name != column and _is_labels(table.columns[name])]
    if both:
        raise InputError(
            f"{table.path} has findings in column {column!r}, and columns of 0 and 1 ({listing(both)}): leave the "
            "latter out with --ignore, or leave out --label-column to use only them",
            "dataset",
        )
    cells = table.columns[column]
    known = [cell.lower() for cell in cells if not is_unknown(cell)]
    rest = {name: values for name, values in table.columns.items() if name != column}
    if any(cell in (*_YES, *_NO) for cell in known) and all(cell in (*_YES, *_NO, *UNSURE) for cell in known):
        answers = ["1" if cell.lower() in _YES else "0" if cell.lower() in _NO else cell for cell in cells]
        return dataclasses.replace(table, columns=rest | {column: answers})
    spelt: dict[str, str] = {}
    read = [
        _read(_Place(table, line, column, cell), spelt, uncertain)
        for line, cell in zip(table.lines, cells, strict=True)
    ]
    labels = list(spelt.values())
    _refuse_joined(table, column, labels)
    taken = [name for name in labels if name in rest]
    if taken:
        raise InputError(
            f"column {column!r} of {table.path} names findings for which the table has columns, too "
            f"({listing(taken)}): rename these columns",
            "dataset",
        )
    columns = {label: [_value(of, label) for of in read] for label in labels}
    return dataclasses.replace(table, columns=rest | columns)


def _value(named: dict[str, str] | None, label: str) -> str:
    """Return the cell of a class."""
    if named is None:
        return ""
    if label.lower() in NORMAL and "1" not in named.values():
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

    def wrong(self, what: str) -> InputError:
        """Return the error that says what is wrong with the cell."""
        return InputError(
            f"line {self.line} of {self.table.path}: column {self.column!r} holds {shown(self.cell)}, {what}", "dataset"
        )


def _read(place: _Place, spelt: dict[str, str], uncertain: str | None) -> dict[str, str] | None:
    """Return the findings that a cell names, and their values.

    Args:
        place: the cell.
        spelt: plain name -> the class; new ones are added.
        uncertain: see `spread`.

    Returns:
        Class -> "1" or what a doubt counts as; None if nothing is known.
    """
    if is_unknown(place.cell):
        return None
    names = [name for name in (part.strip(" []'\"") for part in re.split(r"[|;,\n]", place.cell)) if name]
    values: dict[str, str] = {}
    for name in names:
        sure = " ".join(_DOUBT.sub(" ", name).split())
        doubted = sure != " ".join(name.split()) or is_unsure(name)
        if doubted and uncertain is None:
            raise place.wrong(
                "which is uncertain: say with --uncertain ignore, ones or zeros what such findings count as"
            )
        if doubted and (not sure or is_unsure(sure) or sure.lower() in NORMAL):
            if uncertain != "ignore" or len(names) > 1:
                raise place.wrong(
                    "which does not say what finding is uncertain: name it (Pneumonia?), or empty the cell"
                )
            return None
        if sure.lower() not in NORMAL and _NEGATED.fullmatch(sure):
            raise place.wrong("which says what is absent: name what is present, or write No finding")
        if sure.lower() in (*_YES, *_NO) or is_label_value(sure):
            raise place.wrong("which names no finding: write the names of findings, or only yes and no")
        label = spelt.setdefault(plain_name(sure), sure)
        values[label] = max(values.get(label, ""), UNCERTAIN[uncertain] if doubted and uncertain else "1")
    if len(values) > 1 and any(name.lower() in NORMAL for name in values):
        raise InputError(
            f"line {place.line} of {place.table.path}: column {place.column!r} says that nothing is wrong, but names "
            f"{listing(name for name in values if name.lower() not in NORMAL)}, too: keep one of the two",
            "dataset",
        )
    return values or None


def _refuse_joined(table: Table, column: str, labels: list[str]) -> None:
    """Refuse a class that is two of the other classes in one."""
    for label in labels:
        parts = [plain_name(part.strip()) for part in _JOINED.split(label)]
        if len(parts) > 1 and not is_finding(label) and any(part in map(plain_name, labels) for part in parts):
            raise InputError(
                f"column {column!r} of {table.path} holds {shown(label)}, and elsewhere a part of that alone: if it is "
                "more than one finding, write | between them",
                "dataset",
            )


def _is_labels(cells: list[str]) -> bool:
    known = [cell for cell in cells if not is_unknown(cell)]
    return bool(known) and all(map(is_label_value, known))

"""Labels of class folders and of one column of names."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.table import Table, is_label_value, is_unknown, listing
from edgecxr.errors import InputError
from edgecxr.films.signatures import SUFFIXES
from edgecxr.storage.walk import names_below

NORMAL = ("normal", "no finding", "no findings", "no_finding", "no_findings", "nofinding")
"""Names of a class or column of films on which nothing is wrong, in lower case."""

_YES = ("yes", "y", "true", "positive", "pos", "present", "1")
_NO = ("no", "n", "false", "negative", "neg", "absent", "0")


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
        InputError: folders of splits lie beside folders of classes; reason "dataset".
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
    columns = {"image": [image for image, _, _ in films]}
    if of_split:
        columns["split"] = [split for _, split, _ in films]
    columns |= {name: ["1" if label == name else "0" for _, _, label in films] for name in classes}
    return Table(root, columns, list(range(1, len(films) + 1)))


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))


def _films(place: Path) -> list[Path]:
    return sorted(path for path in map(place.joinpath, names_below(place)) if path.suffix.lower() in SUFFIXES)


def spread(table: Table, column: str, others: list[str]) -> Table:
    """Return a table with columns of 0 and 1.

    They replace its column of names.

    A cell holds the names of all findings on an image, Pneumonia|Effusion, or one of `NORMAL`; an empty one is not
    known. A column of yes and no becomes one finding with the column's name.

    Args:
        table: the user's table.
        column: the column; it is replaced.
        others: columns that may be findings, too.

    Raises:
        InputError: another column holds labels, a cell contradicts itself, or a name is that of another column; reason
            "dataset".
    """
    both = [name for name in others if name != column and _is_labels(table.columns[name])]
    if both:
        raise InputError(
            f"{table.path} has findings in column {column!r} and in columns of 0 and 1 ({listing(both)}): leave one "
            "kind out, by --ignore or without --label-column",
            "dataset",
        )
    cells = table.columns[column]
    known = [cell.lower() for cell in cells if not is_unknown(cell)]
    rest = {name: values for name, values in table.columns.items() if name != column}
    if known and all(cell in (*_YES, *_NO) for cell in known):
        answers = ["" if is_unknown(cell) else "1" if cell.lower() in _YES else "0" for cell in cells]
        return dataclasses.replace(table, columns=rest | {column: answers})
    named = [None if is_unknown(cell) else _names(cell) for cell in cells]
    for line, names in zip(table.lines, named, strict=True):
        if names and len(names) > 1 and any(name.lower() in NORMAL for name in names):
            raise InputError(
                f"line {line} of {table.path}: column {column!r} says that nothing is wrong, and names "
                f"{listing(name for name in names if name.lower() not in NORMAL)}: correct it",
                "dataset",
            )
    labels = list(dict.fromkeys(name for names in named for name in names or ()))
    taken = [name for name in labels if name in rest]
    if taken:
        raise InputError(
            f"column {column!r} of {table.path} names {listing(taken)}, which are columns, too: rename them", "dataset"
        )
    columns = {label: ["" if names is None else "1" if label in names else "0" for names in named] for label in labels}
    return dataclasses.replace(table, columns=rest | columns)


def _names(cell: str) -> list[str]:
    return [name.strip() for name in re.split(r"[|;]", cell) if name.strip()]


def _is_labels(cells: list[str]) -> bool:
    known = [cell for cell in cells if not is_unknown(cell)]
    return bool(known) and all(map(is_label_value, known))

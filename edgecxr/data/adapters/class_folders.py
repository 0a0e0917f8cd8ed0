"""Folders of films that are called after their class -> a table."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from edgecxr.data.tables.classes import MAP, option
from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.statements import is_normal, objection
from edgecxr.data.tables.table import Table, listing
from edgecxr.errors import InputError
from edgecxr.films.find import Search, films_below, is_hidden, leads_nowhere
from edgecxr.films.signatures import SUFFIXES


class ClassFolders(NamedTuple):
    """Films in folders that are called after their class.

    Attributes:
        table: "image" (paths below the root), "split" if there are folders of splits, and a column for each class.
        loose: films that are in no folder of a class.
        search: what was passed over.
    """

    table: Table
    loose: tuple[Path, ...]
    search: Search


def class_folders(root: Path, normal: Collection[str] = (), as_written: Collection[str] = ()) -> ClassFolders:
    """Return the table that folders of images stand for.

    They are called after a class, CLASS/*.jpg, and may lie in folders called after a split, train/CLASS/*.jpg, or hold
    such folders, CLASS/train/*.jpg. Each image has the class of its folder and no other.

    Args:
        root: the folder that holds them.
        normal: other names that mean that nothing is wrong. All such classes are one.
        as_written: names that are those of findings whatever they say.

    Raises:
        InputError: there are no two classes, folders of splits lie beside folders of classes or of films, a film lies
            in folders of two splits, a class may be that of films on which nothing is wrong, or of something absent,
            or its folder is a link that leads nowhere; reason "dataset".
    """
    inner = _folders(root)
    of_split = [name for name in inner if name.lower() in SYNONYMS]
    places = [root / name for name in of_split] or [root]
    tops = dict.fromkeys((root, *places))
    above = root.resolve().parents
    search = Search(leave_out=(*tops, *above))  # a link in a class may lead back to them
    loose = [film for top in tops for film in films_below(top, False, search)]
    _refuse_lost_folders(loose)
    films: list[tuple[str, str, str]] = []
    spelt: dict[str, str] = {}  # Normal and NORMAL are one class
    for place in places:
        for name in _folders(place):
            images = sorted(films_below(place / name, True, search))
            if images:
                label = spelt.setdefault("normal" if is_normal(name, normal) else name.lower(), name)
                films += [(str(path.relative_to(root)), _split(path, root), label) for path in images]
    classes = list(dict.fromkeys(label for _, _, label in films))
    if len(classes) < 2:
        held = listing(sorted(entry.name for entry in root.iterdir()), 8) or "nothing"
        raise InputError(
            f"{root / 'labels.csv'} does not exist ({root} holds: {held}), and there are folders with films of "
            f"{'one class' if classes else 'no class'} alone: check the path, or give a table of labels",
            "dataset",
        )
    beside = [
        name
        for name in inner
        if of_split and name not in of_split and films_below(root / name, True, Search(leave_out=search.leave_out))
    ]
    if beside:
        raise InputError(
            f"{root} has folders of splits ({listing(of_split)}) and others with images ({listing(beside)}): keep one "
            "kind",
            "dataset",
        )
    denied = [name for name in classes if not is_normal(name, normal) and name not in as_written and objection(name)]
    if denied:
        raise InputError(
            f"{root} has folders of images {objection(denied[0])} ({listing(denied)}): call one Normal if nothing is "
            f"wrong on its films, or say so with {option('normal-names', denied[0])}; {MAP}",
            "dataset",
        )
    columns = {"image": [image for image, _, _ in films]}
    if any(split for _, split, _ in films):
        undivided = [image for image, split, _ in films if not split]
        if undivided:
            raise InputError(
                f"{root} has films in folders of splits and {len(undivided)} in none ({listing(undivided, 3)}): move "
                "them into such folders, or give a table with a column split",
                "dataset",
            )
        columns["split"] = [split for _, split, _ in films]
    columns |= {name: ["1" if label == name else "0" for _, _, label in films] for name in classes}
    return ClassFolders(Table(root, columns, list(range(1, len(films) + 1))), tuple(sorted(loose)), search)


def _split(film: Path, root: Path) -> str:
    """Return the split that folders above a film are called after."""
    splits = {SYNONYMS[name.lower()] for name in film.relative_to(root).parts[:-1] if name.lower() in SYNONYMS}
    if len(splits) > 1:
        raise InputError(f"{film} lies in folders of two splits: keep it in one", "dataset")
    return splits.pop() if splits else ""


def _folders(place: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not is_hidden(entry.name))


def _refuse_lost_folders(loose: list[Path]) -> None:
    """Refuse links that lead nowhere and may be those of class folders."""
    for path in loose:
        if path.suffix.lower() not in SUFFIXES and leads_nowhere(path):
            raise InputError(
                f"{path} is a link to {path.readlink()}, which is not there: mount or fetch that, or remove the link",
                "dataset",
            )

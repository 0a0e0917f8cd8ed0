"""Folders of films that are called after their class -> a table."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from edgecxr.data.tables.classes import spread_folders
from edgecxr.data.tables.labels import plain_name
from edgecxr.data.tables.splits import split_of
from edgecxr.data.tables.statements import is_normal
from edgecxr.data.tables.table import Table, listing
from edgecxr.errors import InputError
from edgecxr.films.find import Search, films_below, is_hidden, leads_nowhere
from edgecxr.films.signatures import SUFFIXES

_MASKS = re.compile(r"(?:.*[\W_])?(?:mask|segmentation|heatmap)s?", re.IGNORECASE)
_PLAIN = re.compile(r"(?:images?|imgs?|films?|png|jpe?gs?|dicoms?|dcm)", re.IGNORECASE)
"""Names of folders that say nothing."""


class ClassFolders(NamedTuple):
    """Films in folders that are called after their class.

    Attributes:
        table: "image" (paths below the root), "split" if there are folders of splits, and a column for each class.
        loose: films that are in no folder of a class.
        search: what was passed over.
        warnings: about names of folders that are not used.
    """

    table: Table
    loose: tuple[Path, ...]
    search: Search
    warnings: list[str]


def class_folders(
    root: Path, normal: Collection[str] = (), as_written: Collection[str] = (), uncertain: str | None = None
) -> ClassFolders:
    """Return the table that folders of images stand for.

    They are called after a class, CLASS/*.jpg, and may lie in folders called after a split, train/CLASS/*.jpg, or hold
    these, CLASS/train/*.jpg. Each image has the class of its folder and no other.

    Args:
        root: the folder that holds them.
        normal: other names that mean that nothing is wrong. All such classes are one.
        as_written: names that are those of findings whatever they say.
        uncertain: see `edgecxr.data.tables.classes.spread`.

    Raises:
        InputError: there are no two classes, films lie in folders of splits and others do not, or in those of two
            classes, splits or of masks, a class's name is none, or its folder is a link that leads nowhere; reason
            "dataset".
    """
    places = {root: ""} | {root / name: split for name in _folders(root) if (split := split_of(name))}
    above = root.resolve().parents
    search = Search(leave_out=(*places, *above))  # a link in a class may lead back to them
    loose = [film for top in places for film in films_below(top, False, search)]
    _refuse_lost_folders(loose)
    films: list[_Film] = []
    for place, split in places.items():
        for name in _folders(place):
            if place / name not in places:
                films += [
                    _film(root, path, split, name, path.relative_to(place / name).parts[:-1])
                    for path in sorted(films_below(place / name, True, search))
                ]
    classes = list(dict.fromkeys(film.folder for film in films))
    _refuse_other_classes(root, films, normal)
    if len({"" if is_normal(name, normal) else plain_name(name) for name in classes}) < 2:
        held = listing(sorted(entry.name for entry in root.iterdir()), 8) or "nothing"
        raise InputError(
            f"{root / 'labels.csv'} does not exist ({root} holds: {held}), and there are folders with films of "
            f"{'one class' if classes else 'no class'} alone: check the path, or give a table of labels",
            "dataset",
        )
    splits = {film.split: film.path for film in reversed(films)}
    if "" in splits and len(splits) > 1:
        raise InputError(
            f"{root} has films in folders of splits ({splits[max(splits)]}) and others that are in none "
            f"({splits['']}): keep one kind",
            "dataset",
        )
    cells = spread_folders(root, classes, uncertain, normal, as_written)
    columns = {"image": [film.path for film in films]}
    if "" not in splits:
        columns["split"] = [film.split for film in films]
    columns |= {label: [of[film.folder] for film in films] for label, of in cells.items()}
    return ClassFolders(
        Table(root, columns, list(range(1, len(films) + 1))), tuple(sorted(loose)), search, _unused_names(films)
    )


class _Film(NamedTuple):
    """Film in a class folder.

    Attributes:
        path: below the root.
        split: "train", "val" or "test"; "" if no folder says so.
        folder: name of the class folder.
        inner: names of the folders between that and the film, without those of splits.
    """

    path: str
    split: str
    folder: str
    inner: tuple[str, ...]


def _film(root: Path, path: Path, split: str, folder: str, inner: tuple[str, ...]) -> _Film:
    splits = {split, *map(split_of, inner)} - {""}
    if len(splits) > 1:
        raise InputError(f"{path} lies in folders of two splits ({listing(sorted(splits))}): move it", "dataset")
    return _Film(
        str(path.relative_to(root)), "".join(splits), folder, tuple(name for name in inner if not split_of(name))
    )


def _refuse_other_classes(root: Path, films: Sequence[_Film], normal: Collection[str]) -> None:
    """Refuse folders below a class that say something else."""

    def kind(name: str) -> str:
        return "normal" if is_normal(name, normal) else plain_name(name)

    classes = {kind(film.folder) for film in films} | {"normal", "abnormal"}
    for film in films:
        for name in film.inner:
            if kind(name) in classes and kind(name) != kind(film.folder):
                raise InputError(
                    f"{root / film.path} lies in a folder {name} below {film.folder}, of which one alone can be its "
                    "class: give the folder that holds the folders of classes, or move it",
                    "dataset",
                )
        masks = next((name for name in (film.folder, *film.inner) if _MASKS.fullmatch(name)), None)
        if masks:
            raise InputError(
                f"{root / film.path} lies in a folder {masks}, whose images are no films: move that folder elsewhere",
                "dataset",
            )


def _unused_names(films: Sequence[_Film]) -> list[str]:
    """Return a warning about names of folders that say nothing here."""
    names = {
        f"{film.folder}/{film.inner[0]}": None for film in films if film.inner and not _PLAIN.fullmatch(film.inner[0])
    }
    if not names:
        return []
    return [
        f"folders below those of classes, whose names are not used: {len(names)} ({listing(names, 3)}); if they say "
        "who the patient is or what is wrong, give a table"
    ]


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

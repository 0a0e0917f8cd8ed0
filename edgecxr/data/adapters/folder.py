"""Collections of images with a CSV table of labels.

The table has one line per image and one column per finding.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.data.adapters.checks import divided
from edgecxr.data.adapters.class_folders import class_folders
from edgecxr.data.adapters.film_paths import FilmPaths
from edgecxr.data.adapters.keys import known_patients
from edgecxr.data.dataset import Dataset
from edgecxr.data.tables.boxes import KeptBoxes, listed_boxes
from edgecxr.data.tables.cells import is_unsure
from edgecxr.data.tables.classes import spread
from edgecxr.data.tables.findings import (
    check_columns,
    check_uncertain,
    contradictions,
    decided,
    finding_columns,
    finding_doubts,
    normal_differs,
    refuse_no_findings,
    refuse_none,
    require_named,
    unknown_words,
    wanted_labels,
    without,
)
from edgecxr.data.tables.labels import RESERVED, choose, merged, unknown_warnings
from edgecxr.data.tables.likely_columns import division, patients_hint, require_images
from edgecxr.data.tables.other_columns import derived_warnings, unused_warnings
from edgecxr.data.tables.splits import leak_warnings, path_warnings, refuse_unlearnable, split_of
from edgecxr.data.tables.statements import is_normal
from edgecxr.data.tables.table import Table, listing, read_table
from edgecxr.errors import InputError, UsageError, brief
from edgecxr.vocabulary import FloatArray

_ABNORMAL = ("abnormal",)


def folder(
    csv: Path,
    images: Path | None = None,
    labels: Sequence[str] | str | None = None,
    image_column: str = "image",
    patient_column: str = "patient",
    split_column: str = "split",
    normal_column: str | None = None,
    abnormal_column: str | None = None,
    ignore: Sequence[str] = (),
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str | None = None,
    boxes: Path | None = None,
    uncertain: str | None = None,
    label_column: str | None = None,
    normal_names: Sequence[str] = (),
    unknown_names: Sequence[str] = (),
) -> Dataset:
    """Open images (PNG, JPEG, DICOM ...) that a CSV table lists.

    A label cell is 1, 0, a number between (soft), or empty if it is not known. The abnormal task comes from a column
    that states it or its opposite. Without such a column, an image is abnormal if one of its findings is positive,
    normal if all are negative, and not known otherwise.

    Args:
        csv: the table, or the folder that holds it as labels.csv; or a folder of class folders, see `class_folders`.
        images: folder that holds the images, to which their paths are relative; by default the table's folder.
        labels: the columns of the findings, in order; by default all columns that hold only label values, except those
            named below. Or the path of a TOML file that says what findings are made of.
        image_column: paths of images, which are also their ids.
        patient_column: if it is missing, each image is its own patient.
        split_column: train, val or test, or a synonym. If it is missing, patients are divided at random. If it names no
            validation images, they are cut from the training patients.
        normal_column: 1 if nothing is wrong; by default all whose name says so ("normal", "No finding"): a film is
            normal if one of them says so.
        abnormal_column: the opposite; by default found by its name.
        ignore: columns that are not findings although they hold label values.
        val_fraction: share of the patients for "val".
        test_fraction: share of the patients for "test", if there is no split column.
        seed: seed of the division.
        name: name of the prepared data set; by default that of the folder, or of a table not called labels.csv.
        boxes: a CSV of boxes around findings, one per line. Its columns are that of images (paths as in the table, or
            relative to the table's folder), one called label, finding, class_name or "Finding Label", and x_min, y_min,
            x_max, y_max or x, y, w, h in pixels of the image. The four are empty if a line only says that there is no
            box. NIH's "Infiltrate" is "Infiltration" unless it is a label. Boxes of other images or findings are left
            out with a warning.
        uncertain: what a cell such as -1 or ? of a finding counts as: "ignore" (not known), "ones" or "zeros"; None
            refuses such cells.
        label_column: a column that names the findings of an image, Pneumonia|Effusion, or says yes or no, see `spread`.
        normal_names: other names of columns, classes and in `label_column` that mean that nothing is wrong.
        unknown_names: cells of labels that mean that nothing is known.

    Raises:
        InputError: a table is not as expected; reason "dataset" or "malformed".
        UsageError: the options contradict each other.
    """
    label_file, labels, as_written = wanted_labels(labels)
    path, table, unlisted, warnings = _opened(
        Path(csv), bool(images or label_column), normal_names, as_written, uncertain
    )
    # Default columns may be missing; columns that the user names may not.
    usual = [column for column in (patient_column, split_column) if column not in ("patient", "split")]
    typed_columns = [column for column in (normal_column, abnormal_column) if column]
    require_images(table, image_column)
    table.require((*usual, *typed_columns, *(() if label_column else labels or ()), *ignore))
    patient_column, split_column = (
        name if name in usual else table.called((name,), ignore) or name for name in (patient_column, split_column)
    )
    taken = {patient_column, normal_column, abnormal_column, label_column, *(labels or ()), *ignore}
    own_division = division(table, split_column, {image_column, *taken})

    films = {image_column, patient_column, own_division.column, *own_division.others}
    require_named(table, normal_names, unknown_names)
    table = without(table, [name for name in table.columns if name not in films], unknown_names)
    if label_column:
        table.require((label_column,))
        warnings += unknown_words(table, (label_column,), normal_names)
        special = {*films, normal_column, abnormal_column, *ignore}
        others = [name for name in table.columns if name not in special and name.lower() not in ("", *RESERVED)]
        if uncertain is not None:
            check_uncertain(uncertain)
        table = spread(table, label_column, others, uncertain, normal_names, as_written)
    table.require(labels or ())
    named = {*(labels or ()), *ignore}
    called_normal = [name for name in table.columns if is_normal(name, normal_names) and name not in named | films]
    normal_columns = [normal_column] if normal_column else called_normal
    abnormal_column = abnormal_column or table.called(_ABNORMAL, named)
    special = {*films, *normal_columns, abnormal_column, *ignore}
    candidates = [name for name in table.columns if name not in special and name.lower() not in ("", *RESERVED)]
    stated = [name for name in (abnormal_column, *(labels or ())) if name]
    doubted = [name for name in (*normal_columns, abnormal_column) if name]
    doubtful = np.array([any(is_unsure(table.columns[name][row]) for name in doubted) for row in range(len(table))])
    table = decided(table, {*candidates, *stated}, uncertain, normal_columns)
    findings = _findings(table, labels, special, candidates, as_written)
    refuse_none(table, [*findings, *doubted])
    if not label_column:
        warnings += unknown_words(table, [*findings, *doubted])
    warnings += normal_differs(table, normal_columns)
    ids = np.array(table.columns[image_column])
    files, notes = _files(table, image_column, Path(images) if images else path.parent)
    targets = np.stack([table.values(label) for label in findings], axis=1)
    abnormal = _abnormal(table, normal_columns, abnormal_column, targets)
    # An uncertain cell of "abnormal" that counts as 0 must not make a film normal that has a finding.
    abnormal = np.where(doubtful & (abnormal < 0.5) & (targets >= 0.5).any(axis=1), np.float32(1), abnormal)
    patients = ids
    if patient_column in table.columns:
        patients, unknown_patients = known_patients(table.columns[patient_column], ids.tolist())
        warnings += unknown_patients

    unused = [name for name in candidates if name not in findings]
    if not doubted:
        warnings += derived_warnings(table, unused, ignore, abnormal, labels is None)
    if patient_column not in table.columns:
        warnings.append(
            f"there is no column {patient_column!r}: each image counts as a patient of its own; {patients_hint(table)}"
        )
    warnings += [*own_division.warnings, *notes]
    splits = _named_splits(table, own_division.column) if own_division.column else None
    splits = divided(splits, patients, abnormal, val_fraction, seed, test_fraction)
    warnings += leak_warnings(patients, splits) + path_warnings(ids.tolist(), splits, bool(own_division.column))
    sources = choose(label_file, findings, str(path))
    warnings += unknown_warnings(sources, findings, str(path))
    targets, own, findings = merged(targets, findings, sources), findings, tuple(sources)
    refuse_unlearnable(path, findings, targets, abnormal, splits, *_no_normal_film(abnormal, findings))
    warnings += () if doubted else _no_normal_film(abnormal, findings)
    if labels is None and label_file is None:
        warnings += finding_doubts(table, findings)
    warnings += unused_warnings(table, unused)
    warnings += contradictions(findings, targets, abnormal)
    kept = KeptBoxes([], [], 0)
    if boxes is not None:
        kept = listed_boxes(read_table(Path(boxes)), table, image_column, files, own, sources, targets)
        warnings += kept.warnings
    chosen = {
        "images": str(Path(images).resolve()) if images and Path(images).resolve() != path.resolve().parent else None,
        "image_column": None if image_column == "image" else image_column,
        "patient_column": None if patient_column.lower() == "patient" else patient_column,
        "label_column": label_column,
        "ignore": ", ".join(sorted(set(ignore))) or None,
        "normal_names": ", ".join(sorted(set(normal_names))) or None,
        "unknown_names": ", ".join(sorted(set(unknown_names))) or None,
        "labels_from": {label: list(parts) for label, parts in sources.items()} if label_file else None,
        "uncertain": uncertain,
    }
    provenance: dict[str, Any] = {
        "kind": "folder",
        "source": str(path.resolve()),
        "abnormal": abnormal_column or (normal_columns and f"not {' or '.join(normal_columns)}") or "any finding",
        "split": own_division.column or "random, by patient",
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "seed": seed,
        "phantom": False,
        "warnings": warnings,
        # Defaults are left out, so that sets prepared when no option was recorded stay as they are.
        **{option: value for option, value in chosen.items() if value is not None},
    }
    name = name or _default_name(path)
    return Dataset(
        name, findings, ids, targets, abnormal, patients, splits, files, provenance, tuple(kept.boxes), unlisted,
        unused_boxes=kept.unused,
    )  # fmt: skip


def _opened(
    path: Path, of_tables: bool, normal: Sequence[str], as_written: Collection[str], uncertain: str | None
) -> tuple[Path, Table, tuple[Path, ...], list[str]]:
    """Open a table or class folders.

    Args:
        path: of the table, or of a folder.
        of_tables: whether there are options that class folders do not take.
        normal: see `class_folders`.
        as_written: see `class_folders`.
        uncertain: see `class_folders`.

    Returns:
        The path of the table, the table, images that are not in it, and warnings.
    """
    if not os.path.isdir(path) or (path / "labels.csv").exists():
        path = path / "labels.csv" if os.path.isdir(path) else path
        return path, read_table(path), (), []  # beside a table users may keep any images
    classes = class_folders(path, normal, as_written, uncertain)
    if of_tables:
        raise UsageError(
            f"{path} has class folders and no labels.csv, and --images and --label-column are for tables: "
            "leave them out, or give a table"
        )
    notes = [note for note in (classes.search.summary(), *classes.warnings) if note]
    return path / "labels.csv", classes.table, classes.loose, notes


def _default_name(path: Path) -> str:
    name = path.resolve().parent.name if path.name == "labels.csv" else path.stem
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.+") or "folder"


def _findings(
    table: Table,
    labels: Sequence[str] | None,
    special: Collection[str | None],
    candidates: Sequence[str],
    as_written: Collection[str],
) -> tuple[str, ...]:
    if labels is None:
        findings = finding_columns(table, candidates)
        refuse_no_findings(table, [name for name in findings if name not in as_written])
        return findings
    clash = [
        label for label in labels if label in special or label.lower() in (*RESERVED, *_ABNORMAL) or is_normal(label)
    ]
    if clash or not labels or len(set(labels)) < len(labels):
        raise UsageError(
            f"labels must be different findings (given: {', '.join(labels)})"
            + (f"; {clash[0]!r} already has another meaning or is in --ignore: leave it out" if clash else "")
        )
    check_columns(table, labels)
    return tuple(labels)


def _files(table: Table, column: str, root: Path) -> tuple[tuple[Path, ...], list[str]]:
    """Return the films' files, and warnings about their names."""
    paths = FilmPaths(root, table.path)
    files: dict[str, int] = {}
    for line, cell in zip(table.lines, table.columns[column], strict=True):
        if not cell:
            raise InputError(f"line {line} of {table.path} names no image in column {column!r}: fill it in", "dataset")
        path, problem = paths.path(cell)
        if problem and os.path.isdir(table.path):  # class folders take no --images
            raise InputError(f"{root / cell} {problem}: put the film itself there, or link its folder", "dataset")
        if problem:
            raise InputError(
                f"line {line} of {table.path}: {cell} {problem}: give a folder that holds all films with --images",
                "dataset",
            )
        if path in files:
            raise InputError(
                f"line {line} of {table.path} lists {cell} again, after line {files[path]}: remove one of them",
                "dataset",
            )
        files[path] = line
    # `prepare` rejects single missing images one by one.
    if not any(map(os.path.exists, files)):
        raise InputError(
            f"none of the {len(files)} images of {table.path} exists; expected files such as {next(iter(files))}: "
            "say with --images where they are",
            "dataset",
        )
    notes = [f"files whose names differ in case or accents: {paths.respelt}, such as {brief(paths.example, 80)}"]
    return tuple(map(Path, files)), notes if paths.respelt else []


def _no_normal_film(abnormal: FloatArray, findings: Sequence[str]) -> tuple[str, ...]:
    """Return what to do if each film is abnormal.

    A finding may mean that nothing is wrong.
    """
    if not (abnormal >= 0.5).all():
        return ()
    names = listing(findings, 6)
    return (f"no film counts as normal: if one of {names} means that nothing is wrong, name it with --normal-names",)


def _abnormal(
    table: Table, normal_columns: Sequence[str], abnormal_column: str | None, targets: FloatArray
) -> FloatArray:
    """Return (N,) in [0, 1], NaN if it is not known."""
    unknown = np.full(len(table), np.nan, np.float32)
    from_normal = 1 - np.fmax.reduce([table.values(name) for name in normal_columns]) if normal_columns else unknown
    stated = table.values(abnormal_column) if abnormal_column else unknown
    against = np.flatnonzero(np.abs(stated - from_normal) > 1e-3)
    if len(against):
        names = f"{listing(map(repr, normal_columns))} and {abnormal_column!r}"
        raise InputError(
            f"line {table.lines[against[0]]} of {table.path}: {names} contradict each other, on {len(against)} lines "
            "in all: correct them, or leave one column out with --ignore",
            "dataset",
        )
    if normal_columns or abnormal_column:
        return np.where(np.isnan(stated), from_normal, stated)
    highest = np.fmax.reduce(targets, axis=1)
    # If no finding is positive but one is unknown, the image may be abnormal or not.
    return np.where((highest < 0.5) & np.isnan(targets).any(axis=1), np.float32(np.nan), highest)


def _named_splits(table: Table, column: str) -> np.ndarray:
    splits = list(map(split_of, table.columns[column]))
    if "" in splits:
        row = splits.index("")
        raise InputError(
            f"line {table.lines[row]} of {table.path}: column {column!r} holds {table.columns[column][row]!r}, but a "
            "split is train, val or test: correct it, or name another column with --split-column"
            + ("" if column.lower() == "split" else f", or leave this one out with --ignore {shlex.quote(column)}"),
            "dataset",
        )
    return np.array(splits, "<U5")

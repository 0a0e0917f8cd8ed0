"""Packs: some labelled films of a prepared data set in one file.

A device can read a pack without the workstation's data. It is an .npz file with these arrays:

images     (N, 224, 224) uint8
large      (N, 448, 448) uint8, only if the data set has films at that size
targets    (N, L) float32, NaN if not known
abnormal   (N,) float32, NaN if not known
patients   (N,) whole numbers that only tell which films are of the same patient
info       a JSON text

Names of films and patients are not in it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import edgecxr
from edgecxr.data.dataset import SPLITS
from edgecxr.data.facts import LARGEST_FACTS, check_facts
from edgecxr.data.prepared import Prepared
from edgecxr.data.tables.boxes import Boxes
from edgecxr.errors import InputError, UsageError, brief
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE
from edgecxr.storage.archives import Archive, open_archive
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.json_values import format_of, parse_json
from edgecxr.storage.reading import BadFile, read_bytes

FORMAT = 1
SUFFIX = ".npz"
_ARRAYS = ("images", "targets", "abnormal", "patients", "info")
_MOST_ARRAYS = 100
_LARGEST = 32 << 30
_REMEDY = "pack it again with `edgecxr data pack`"


def pack(prepared: Prepared, split: str, count: int | None, path: Path, seed: int = 0) -> Prepared:
    """Write films of one split, drawn at random, to a file.

    Whole patients are drawn in random order until there are enough films, so that the pack is a sample of patients.

    Args:
        prepared: the data set.
        split: "train", "val" or "test".
        count: approximate number of films; None packs the whole split.
        path: the file, ending in .npz.
        seed: seed of the random draw.

    Returns:
        The pack, opened.

    Raises:
        UsageError: unknown split, a count below 1, another ending, a file that exists with other content, or a file
            that cannot be written.
        InputError: the split is empty; reason "dataset".
    """
    if split not in SPLITS:
        raise UsageError(f"--split {split}: there are {', '.join(SPLITS)}")
    if count is not None and count < 1:
        raise UsageError(f"--n {count}: 1 or more films")
    if path.suffix != SUFFIX:
        raise UsageError(f"--out {path}: give a name that ends in {SUFFIX}")
    rows = prepared.rows(split)
    if not len(rows):
        raise InputError(f"data set {prepared.name} has no images in its {split} split", "dataset")
    names, member = np.unique(prepared.patients[rows], return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    films = np.cumsum(np.bincount(member)[order])
    last = len(names) if count is None else int(np.searchsorted(films, count)) + 1
    chosen = np.isin(member, order[:last])
    rows = rows[chosen]
    info = {
        "format": FORMAT,
        "name": f"{prepared.name}-pack{len(rows)}",
        "labels": prepared.labels,
        "split": split,
        "phantom": prepared.phantom,
        "images": len(rows),
        "of": len(member),
        "seed": seed,
        "data_hash": prepared.hash,
        "duplicates": prepared.info.get("duplicates", {}),
        "origin": {key: prepared.summary()[key] for key in ("provenance", "train_hash")},
        "version": edgecxr.__version__,
        "notice": edgecxr.NOTICE,
    }
    content = io.BytesIO()
    arrays: dict[str, Any] = {
        "images": prepared.images[rows],
        "targets": prepared.targets[rows].astype(np.float32),
        "abnormal": prepared.abnormal[rows].astype(np.float32),
        "patients": np.unique(member[chosen], return_inverse=True)[1].astype(np.int32),
        "info": np.array(json.dumps(info)),
    }
    if prepared.large is not None:
        arrays["large"] = prepared.large[rows]
    np.savez(content, **arrays)
    if os.path.lexists(path):
        # An existing file with other content must not be lost.
        if not _holds(path, content.getvalue()):
            raise UsageError(f"{path} is there already: give another file with --out, or remove it")
        return open_pack(path)
    atomic_write(path, content.getbuffer(), "give another file with --out")
    return open_pack(path)


def open_pack(path: Path) -> Prepared:
    """Open a pack as a prepared data set.

    It can be used wherever a prepared data set is accepted. All its films are in the split that they were drawn from.

    Raises:
        InputError: the pack does not exist, is damaged, or has a newer format; reason "dataset".
    """
    with _refused(path), open_archive(path, _MOST_ARRAYS, _LARGEST) as archive:
        info = _info(path, archive)
        labels, count = tuple(info["labels"]), _check_arrays(archive, len(info["labels"]))
        arrays = {name: archive.array(name) for name in (*_ARRAYS[:-1], *({"large"} & archive.names))}
        for name in ("targets", "abnormal"):
            values = arrays[name] = arrays[name].astype(np.float32)
            if not (np.isnan(values) | ((values >= 0) & (values <= 1))).all():
                raise BadFile(f"a label in its {name} is not from 0 to 1")
        digest = hashlib.sha256(json.dumps([labels, info["split"], info["data_hash"]]).encode())
        for name in _ARRAYS[:-1]:
            digest.update(np.ascontiguousarray(arrays[name]).data)
        return Prepared(
            path,
            arrays["images"],
            labels,
            np.array([str(number) for number in range(count)]),
            arrays["patients"].astype(str),
            np.full(count, info["split"]),
            arrays["targets"],
            arrays["abnormal"],
            Boxes(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32)),
            info | {"hash": digest.hexdigest()},
            arrays.get("large"),
        )


def _info(path: Path, archive: Archive) -> dict[str, Any]:
    """Return the facts in a pack, completed for `Prepared`."""
    header = archive.header("info")
    if header.shape != () or header.dtype.kind != "U" or header.count > LARGEST_FACTS:
        raise BadFile("its info is no text")
    info = parse_json(str(archive.array("info")))
    if format_of(info) > FORMAT:
        raise InputError(
            f"{path} was packed by a newer edgecxr ({brief(info.get('version'), 40)}): upgrade edgecxr", "dataset"
        )
    own: dict[str, Any] = {"hash": "", "rejected": {}, "counts": {}, "provenance": {"kind": "pack"}}
    info = check_facts(info | own)
    if info.get("split") not in SPLITS or "data_hash" not in info:
        raise BadFile("its info gives no split or no hash of the data set")
    return info


def _check_arrays(archive: Archive, labels: int) -> int:
    """Return the number of films, without unpacking them.

    Raises:
        BadFile: arrays do not fit together.
    """
    count = archive.header("images").shape[0] if archive.header("images").shape else 0
    bytes_, floats, whole = ("|u1",), ("<f2", "<f4", "<f8"), ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
    expected = {
        "images": ((count, BASE_SIZE, BASE_SIZE), bytes_), "targets": ((count, labels), floats),
        "abnormal": ((count,), floats), "patients": ((count,), whole),
        "large": ((count, LARGE_SIZE, LARGE_SIZE), bytes_),
    }  # fmt: skip
    for name in (*_ARRAYS[:-1], *({"large"} & archive.names)):
        header, (shape, kinds) = archive.header(name), expected[name]
        if not count or header.shape != shape or header.dtype.str not in kinds:
            raise BadFile(f"its {name} are {header.dtype} of shape {header.shape}")
    return count


def packed_images(path: Path, side: int = BASE_SIZE) -> np.ndarray:
    """Return the images of a pack.

    Any other .npz file with an array "images" works, too.

    Args:
        path: the file.
        side: side of the images, in pixels.

    Returns:
        (N, side, side) uint8.

    Raises:
        InputError: the file has no such images; reason "dataset".
    """
    with _refused(path), open_archive(path, _MOST_ARRAYS, _LARGEST) as archive:
        header = archive.header("images")
        if header.dtype != np.uint8 or header.shape[1:] != (side, side) or not header.count:
            raise InputError(
                f"the images in {path} are {header.dtype} of shape {header.shape}, not uint8 of shape "
                f"(N, {side}, {side}): {_REMEDY}",
                "dataset",
            )
        return archive.array("images")


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path} is not there: `edgecxr data pack` makes such a file", "not-found") from error
    except (OSError, BadFile) as error:
        raise InputError(f"{path} holds no packed films ({brief(error)}): {_REMEDY}", "dataset") from error


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_bytes(path, len(content)) == content
    except (OSError, BadFile):
        return False

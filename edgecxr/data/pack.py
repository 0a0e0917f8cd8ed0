"""A few labelled films of a prepared data set in one file, for a device that has not the workstation's data.

An .npz with the arrays "images" (N, 224, 224) uint8, "targets" (N, L) and "abnormal" (N,) float32 with NaN where not
known, "patients" (N,) whole numbers that say only which films are of one patient, and "info", a JSON text; "large"
(N, 448, 448) uint8 where the data set has films at that size. Names of films and patients stay behind.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

import edgecxr
from edgecxr.data.dataset import SPLITS
from edgecxr.data.prepared import Prepared
from edgecxr.data.tables.boxes import Boxes
from edgecxr.errors import InputError, UsageError
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE
from edgecxr.storage.atomic import atomic_write

FORMAT = 1
SUFFIX = ".npz"
_ARRAYS = ("images", "targets", "abnormal", "patients", "info")
_REMEDY = "pack it again with `edgecxr data pack`"


def pack(prepared: Prepared, split: str, count: int | None, path: Path, seed: int = 0) -> Prepared:
    """Write films of one split, drawn at random, to a file.

    Whole patients are drawn, in random order until there are enough films, so that the pack stays a sample of patients.

    Args:
        prepared: the data set.
        split: "train", "val" or "test".
        count: of films, about; None takes the whole split.
        path: the file, ending in .npz.
        seed: of the draw.

    Returns:
        The pack, opened.

    Raises:
        UsageError: no such split, a count below 1, another ending, or the file is there with other content, or cannot
            be written.
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
        # The same films once more are no loss; anything else is.
        if not path.is_file() or path.read_bytes() != content.getvalue():
            raise UsageError(f"{path} is there already: give another file with --out, or remove it")
        return open_pack(path)
    atomic_write(path, content.getbuffer(), "give another file with --out")
    return open_pack(path)


def open_pack(path: Path) -> Prepared:
    """Open a pack; what takes a prepared data set takes it too. All of its films are in the split it was drawn from.

    Raises:
        InputError: there is none, it is damaged, or of a newer format; reason "dataset".
    """
    found = _read(path, _ARRAYS, ("large",))
    try:
        info = json.loads(str(found["info"]))
        if info["format"] > FORMAT:
            raise InputError(
                f"{path} was packed by a newer edgecxr ({info.get('version')}): upgrade edgecxr", "dataset"
            )
        labels, count = tuple(map(str, info["labels"])), len(found["images"])
        shapes = {name: found[name].shape for name in _ARRAYS[:-1]}
        wanted = {
            "images": (count, BASE_SIZE, BASE_SIZE), "targets": (count, len(labels)), "abnormal": (count,),
            "patients": (count,),
        }  # fmt: skip
        if not isinstance(info.get("origin", {}), dict):
            raise ValueError("an origin that is none")
        if shapes != wanted or not count or found["images"].dtype != np.uint8 or info["split"] not in SPLITS:
            raise ValueError(f"arrays of shapes {shapes}")
        large = found.get("large")
        if large is not None and (large.shape != (count, LARGE_SIZE, LARGE_SIZE) or large.dtype != np.uint8):
            raise ValueError(f"large images of shape {large.shape}")
        digest = hashlib.sha256(json.dumps([labels, info["split"], info["data_hash"]]).encode())
        for name in _ARRAYS[:-1]:
            digest.update(np.ascontiguousarray(found[name]).data)
        return Prepared(
            path,
            found["images"],
            labels,
            np.array([str(number) for number in range(count)]),
            found["patients"].astype(str),
            np.full(count, info["split"]),
            found["targets"].astype(np.float32),
            found["abnormal"].astype(np.float32),
            Boxes(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32)),
            info | {"hash": digest.hexdigest(), "rejected": {}, "counts": {}, "provenance": {"kind": "pack"}},
            large,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a pack of films ({error}): {_REMEDY}", "dataset") from error


def packed_images(path: Path, side: int = BASE_SIZE) -> np.ndarray:
    """Return the images of a pack, or of any .npz with an array "images".

    Args:
        path: the file.
        side: of the images, in pixels.

    Returns:
        (N, side, side) uint8.

    Raises:
        InputError: there are none; reason "dataset".
    """
    images: np.ndarray = _read(path, ("images",))["images"]
    if images.dtype != np.uint8 or images.shape[1:] != (side, side) or not len(images):
        raise InputError(
            f"the images in {path} are {images.dtype} of shape {images.shape}, not uint8 of shape "
            f"(N, {side}, {side}): {_REMEDY}",
            "dataset",
        )
    return images


def _read(path: Path, names: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    if not os.path.isfile(path):
        raise InputError(f"{path} is not there: `edgecxr data pack` makes such a file", "not-found")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (*names, *(name for name in optional if name in arrays.files))}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} holds no packed films ({error}): {_REMEDY}", "dataset") from error

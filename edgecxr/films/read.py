"""Read any film file into a Radiograph.

This is the only reader of films, for training and on the device.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import threading
import time
from pathlib import Path

import numpy as np

from edgecxr.errors import AGAIN, InputError, MissingPackage
from edgecxr.films.objections import of_image
from edgecxr.films.radiograph import FilmRead, Radiograph, StoredPixels
from edgecxr.films.resize import BASE_SIZE, to_base, upscale_warning
from edgecxr.storage.reading import open_file

MAX_BYTES = 1 << 30
"""Larger DICOM files are refused unread."""

_FIRST_VRS = (b"UL", b"UI", b"CS", b"OB", b"SH", b"LO", b"DA", b"TM", b"US", b"DT", b"UN")


# Only one thread reads at a time: readers silence Python's warnings for the whole process, and not every decoder is
# thread-safe. It costs little, since most decoders hold Python's interpreter lock anyway.
_ONE_AT_A_TIME = threading.Lock()


def _in_a_fork() -> None:
    """Give a forked process a new lock.

    A thread that held the old one does not exist there to release it.
    """
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.Lock()


os.register_at_fork(after_in_child=_in_a_fork)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """Read a DICOM, PNG, JPEG or other image file.

    The kind is recognised by the content, not by the name. Threads may call this at the same time; they read
    one after the other.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be used; the message is one line that names it, `reason` one of `errors.REASONS`.
        MissingPackage: the file is DICOM, and pydicom or one of its decoders does not load.
    """
    path = Path(path)
    try:
        if not path.is_file():
            if path.exists():
                raise InputError(f"{path} is not a file: give the path of an image", "not-an-image")
            if path.is_symlink():
                raise InputError(
                    f"{path} is a link to {path.readlink()}, which is not there: mount or fetch that", "not-found"
                )
            raise InputError(f"{path} does not exist: check the path", "not-found")
        with open_file(path) as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be opened ({error}): check the path and its permissions", "not-found"
        ) from error

    with _ONE_AT_A_TIME:
        try:
            return checked(_read_dicom(path) if is_dicom(head) else _read_image(path))
        except MemoryError as error:
            raise InputError(f"{path} needs more memory than there is: {AGAIN}", "too-large") from error


# Imported only when needed, so that a folder of PNGs is read without loading pydicom.
def _read_dicom(path: Path) -> Radiograph:
    try:
        from edgecxr.films.dicom import read_dicom
    except ImportError as error:  # pydicom loads all decoders that it finds
        raise MissingPackage("pydicom with its decoders", "", "reading DICOM") from error
    return read_dicom(path)


def _read_image(path: Path) -> Radiograph:
    from edgecxr.films.image_file import read_image

    return read_image(path)


def read_film(path: str | os.PathLike[str], size: int = BASE_SIZE, display: bool = False) -> FilmRead:
    """Read a file and keep what a model needs of it.

    Args:
        path: the file.
        size: side of the image, 224 or 448.
        display: keep a picture too.

    Raises:
        InputError: as `read_radiograph` does, and if the path is a folder.
        MissingPackage: as `read_radiograph` does.
    """
    if os.path.isdir(path):
        try:
            os.scandir(path).close()
        except OSError as error:
            raise InputError(
                f"{path} is a folder that cannot be searched ({error.strerror}): check its permissions", "not-found"
            ) from error
        raise InputError(
            f"{path} is a folder in which no DICOM file or image can be found: give one that holds films", "not-found"
        )
    start = time.perf_counter()
    radiograph = read_radiograph(path)
    return film_of(radiograph, size, display, {"read": 1000 * (time.perf_counter() - start)})


def film_of(
    radiograph: Radiograph, size: int = BASE_SIZE, display: bool = False, timings: dict[str, float] | None = None
) -> FilmRead:
    """Return what a model needs of a film.

    Args:
        radiograph: the film.
        size: side of the image, 224 or 448.
        display: keep a picture too.
        timings: milliseconds of earlier stages, such as "read".
    """
    start = time.perf_counter()
    image = to_base(radiograph.held, size)
    timings_ms = (timings or {}) | {"preprocess": 1000 * (time.perf_counter() - start)}
    picture = None
    if display:
        from edgecxr.films.display import displayed

        picture = np.asarray(displayed(radiograph.held, radiograph.aspect))
    return FilmRead(
        radiograph.source,
        image,
        radiograph.view,
        warnings_at(radiograph, size),
        timings_ms,
        picture,
        objections=(*radiograph.objections, *of_image(image, radiograph.shape)),
        rendering=radiograph.rendering,
    )


def checked(radiograph: Radiograph) -> Radiograph:
    """Refuse a blank film, and add a warning to a small one.

    Small means smaller than what models see.

    Raises:
        InputError: every pixel has the same value.
    """
    held = radiograph.held
    if held.is_blank() if isinstance(held, StoredPixels) else held.min() == held.max():
        raise InputError(f"{radiograph.source} is blank, every pixel has the same value: {AGAIN}", "blank")
    note = upscale_warning(radiograph.shape)
    return dataclasses.replace(radiograph, warnings=(*radiograph.warnings, note)) if note else radiograph


def warnings_at(radiograph: Radiograph, size: int) -> tuple[str, ...]:
    """Return a film's warnings for an image of side `size`.

    The warning about a small film is adapted to that size.

    Args:
        radiograph: the film.
        size: side of the image, 224 or 448 px.
    """
    if size == BASE_SIZE:
        return radiograph.warnings
    of_base, note = (upscale_warning(radiograph.shape, side) for side in (BASE_SIZE, size))
    others = tuple(warning for warning in radiograph.warnings if warning != of_base)
    return (*others, note) if note else others


def is_dicom(head: bytes) -> bool:
    """Return whether a file is DICOM, with or without the 128-byte preamble.

    Args:
        head: the first 512 bytes of the file.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 16:
        return False
    for order in "<>":
        first = struct.unpack_from(f"{order}HH", head)
        if first[0] not in (0x0002, 0x0008) or first[1] > 0x0100:
            continue
        if head[4:6] in _FIRST_VRS:
            return True
        # Implicit VR: a length alone is weak evidence of an element, so require a second element as well.
        (length,) = struct.unpack_from(f"{order}L", head, 4)
        if order == "<" and length % 2 == 0 and 8 + length + 4 <= len(head):
            second = struct.unpack_from("<HH", head, 8 + length)
            if second > first and second[0] in (0x0002, 0x0008, 0x0009, 0x0010):
                return True
    return False

"""Any file -> Radiograph: the one reader of films, for training and on the device."""

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
from edgecxr.films.radiograph import FilmRead, Radiograph
from edgecxr.films.resize import BASE_SIZE, to_base, upscale_warning

_FIRST_VRS = (b"UL", b"UI", b"CS", b"OB", b"SH", b"LO", b"DA", b"TM", b"US", b"DT", b"UN")


# Readers silence Python's warnings, which are the process's and not the thread's; and not every decoder is made for two
# threads. Little is lost: most decoders hold Python's interpreter lock all the while.
_ONE_AT_A_TIME = threading.Lock()


def _in_a_fork() -> None:
    """Let a forked process have a lock of its own: a thread that held it is not there to release it."""
    global _ONE_AT_A_TIME
    _ONE_AT_A_TIME = threading.Lock()


os.register_at_fork(after_in_child=_in_a_fork)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """Read a DICOM, PNG, JPEG or other image file; the kind is told by the content, not by the name.

    Threads may call this at the same time; they read one after the other.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be used; the message is one line that names it, `reason` one of `errors.REASONS`.
        MissingPackage: it is a DICOM file, and pydicom or one of its decoders does not load.
    """
    path = Path(path)
    try:
        if not path.is_file():
            if path.exists():
                raise InputError(f"{path} is not a file: give the path of an image", "not-an-image")
            raise InputError(f"{path} does not exist: check the path", "not-found")
        with path.open("rb") as file:
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


# Imported where they are needed, so that a folder of PNGs is read without loading pydicom.
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
        size: of the image, 224 or 448.
        display: keep a picture too.

    Raises:
        InputError: as `read_radiograph` does, and where the path is a folder.
        MissingPackage: as `read_radiograph` does.
    """
    if os.path.isdir(path):
        raise InputError(
            f"{path} is a folder in which no DICOM file or image can be found: give one that holds films", "not-found"
        )
    start = time.perf_counter()
    radiograph = read_radiograph(path)
    return film_of(radiograph, size, display, {"read": 1000 * (time.perf_counter() - start)})


def film_of(
    radiograph: Radiograph, size: int = BASE_SIZE, display: bool = False, timings: dict[str, float] | None = None
) -> FilmRead:
    """Return what a model needs of a film; arguments are those of `read_film`, and how long was taken before."""
    start = time.perf_counter()
    image = to_base(radiograph.pixels, size)
    taken = (timings or {}) | {"preprocess": 1000 * (time.perf_counter() - start)}
    shown = None
    if display:
        from edgecxr.films.display import displayed

        shown = np.asarray(displayed(radiograph.pixels))
    return FilmRead(
        radiograph.source,
        image,
        radiograph.view,
        warnings_at(radiograph, size),
        taken,
        shown,
        objections=(*radiograph.objections, *of_image(image, radiograph.shape)),
    )


def checked(radiograph: Radiograph) -> Radiograph:
    """Refuse a blank film, and warn of one that is smaller than what models see.

    Raises:
        InputError: every pixel has the same value.
    """
    pixels = radiograph.pixels
    if pixels.min() == pixels.max():
        raise InputError(f"{radiograph.source} is blank, every pixel has the same value: {AGAIN}", "blank")
    note = upscale_warning(radiograph.shape)
    return dataclasses.replace(radiograph, warnings=(*radiograph.warnings, note)) if note else radiograph


def warnings_at(radiograph: Radiograph, size: int) -> tuple[str, ...]:
    """Return a film's warnings, with that of a small film as it is for an image of side `size`, 224 or 448 px."""
    if size == BASE_SIZE:
        return radiograph.warnings
    of_base, note = (upscale_warning(radiograph.shape, side) for side in (BASE_SIZE, size))
    others = tuple(warning for warning in radiograph.warnings if warning != of_base)
    return (*others, note) if note else others


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head` (its first 512 bytes) is DICOM, with or without the 128-byte preamble."""
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
        # Implicit VR: only a length says that an element follows, so the second element must be there as well.
        (length,) = struct.unpack_from(f"{order}L", head, 4)
        if order == "<" and length % 2 == 0 and 8 + length + 4 <= len(head):
            second = struct.unpack_from("<HH", head, 8 + length)
            if second > first and second[0] in (0x0002, 0x0008, 0x0009, 0x0010):
                return True
    return False

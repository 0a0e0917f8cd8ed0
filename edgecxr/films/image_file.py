"""PNG, JPEG and similar files -> Radiograph.

Their polarity is assumed to be that of a display: air black.
"""

from __future__ import annotations

import contextlib
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError

from edgecxr.errors import AGAIN, InputError, brief
from edgecxr.films.codestreams import jpeg, jpeg2000, tiff
from edgecxr.films.codestreams.standard_error import captured
from edgecxr.films.codestreams.tail import tail
from edgecxr.films.grayscale import luminance, stretch, thin
from edgecxr.films.radiograph import Radiograph
from edgecxr.films.signatures import FORMATS, JPEG_2000
from edgecxr.storage.reading import open_file
from edgecxr.vocabulary import FloatArray

MAX_PIXELS = 100_000_000
"""No film has more; an image that claims more is refused before decoding."""

MAX_BYTES = 1 << 30
"""Compressed files that are larger are not checked for damage, since no film is."""

_SIGNATURES = (b"\x89PNG", jpeg.START, *tiff.STARTS, b"GIF8")
_BITS, _PHOTOMETRIC = 258, 262
_AS_PNG = "save it as PNG, with 8 or 16 bits"

_MALFORMED = (
    *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, AttributeError),
    *(OverflowError, RecursionError, NotImplementedError, struct.error, zlib.error),
)

_FLAT = 0.05
"""Largest distance of an equalised picture's cumulative histogram from a straight line.

Of 600 real films of two data sets as they were published, none has less than 0.051, and half have more than 0.2. Of the
same films equalised, then framed, made smaller or saved as JPEG, 95 of 100 have less, and half less than 0.015.
"""

_FRAME, _AROUND = 0.08, 5
"""Share of the film in a few neighbouring levels that is its border, and how far JPEG spreads it, in levels."""

_BLACK = 8  # levels of a black frame in a JPEG file
_LEAST_SEEN = 0.2  # of the film, that is neither border nor frame
_DARKEST = 0.002  # share of the pixels below the level from which on levels are counted

_HALF = 0.5  # of white
_WHITE_RANK = 0.999
"""Share of the pixels below the level by which the bits in use are judged: a few hot pixels do not count."""


def read_image(path: Path) -> Radiograph:
    """Read an image file as a grey film.

    Grey of 8 or 16 bits is used as it is, and colour as its luminance. Alpha is ignored. The EXIF orientation is
    applied.

    Raises:
        InputError: not an image, truncated, too large, or without integer pixels.
    """
    messages: list[str] = []
    try:
        with warnings.catch_warnings(), open_file(path) as file:
            warnings.simplefilter("ignore")
            kind = file.read(12)
            file.seek(0)
            source = _checked(path, kind, file)
            # By file object: by path, Pillow turns compressed TIFF files wrongly.
            with Image.open(source, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path)
                frames = getattr(image, "n_frames", 1)
                notes = [f"the first of {frames} frames was taken"] if frames > 1 else []
                tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
                if why := tiff.unsupported(tags) if tags else None:
                    raise InputError(f"{path} {why}: {_AS_PNG}", "unsupported")
                wrong = tiff.fault(tags, file) if tags else None
                white_is_zero = image.mode.startswith("I") and tags.get(_PHOTOMETRIC) == 0
                with captured() if tags else contextlib.nullcontext(messages) as messages:
                    pixels, more = _decoded(path, image, tags, file)
                if white_is_zero:  # Pillow inverts 8 bits only
                    pixels = 1 - pixels
                wrong = wrong or (source.fault() if isinstance(source, jpeg.Watched) else None)
                if wrong or messages:
                    raise ValueError(wrong or messages[0])
    except InputError:
        raise
    except UnidentifiedImageError as error:
        if kind.startswith(tiff.BIG_ENDIAN_BIG) or (kind.startswith(tiff.STARTS) and _unknown_tiff(path)):
            raise InputError(f"{path} has TIFF pixels of a kind that is not read: {_AS_PNG}", "unsupported") from error
        if kind.startswith(b"RIFF") and kind.endswith(b"WEBP"):
            raise InputError(
                f"{path} is a WebP image, in which damage is not found: {_AS_PNG}", "unsupported"
            ) from error
        if kind.startswith(_SIGNATURES):
            raise InputError(f"{path} is cut off in its header: {AGAIN}", "malformed") from error
        raise InputError(
            f"{path} is neither DICOM nor an image: give a DICOM, PNG or JPEG file", "not-an-image"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except _MALFORMED as error:
        raise InputError(
            f"{path} is malformed ({type(error).__name__}: {brief(error)}): {AGAIN}", "malformed"
        ) from error
    return Radiograph(pixels, str(path), None, (*notes, *more), rendering=_rendering(pixels))


def sides_of(path: Path) -> tuple[int, int] | None:
    """Return an image's width and height; None if it is no image."""
    try:
        with warnings.catch_warnings(), open_file(path) as file, Image.open(file, formats=FORMATS) as image:
            warnings.simplefilter("ignore")
            return image.width, image.height
    except (*_MALFORMED, Image.DecompressionBombError):
        return None


def from_array(pixels: np.ndarray) -> Radiograph:
    """Return an array as a film.

    Floats are used as they are, integers as if they were read from an image file.

    Args:
        pixels: (H, W), air black; floats in [0, 1], or uint8 or uint16.

    Raises:
        InputError: another shape or type, or floats outside [0, 1].
    """
    description = f"an array of {pixels.dtype} of shape {pixels.shape}"
    if pixels.ndim != 2 or not pixels.size:
        raise InputError(f"{description} is no film: give grey pixels (H, W)", "unsupported")
    notes: list[str] = []
    if np.issubdtype(pixels.dtype, np.uint8):
        grey = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    elif np.issubdtype(pixels.dtype, np.uint16):
        grey, notes = _sixteen_bits(pixels)
    elif np.issubdtype(pixels.dtype, np.floating):
        # NaN fails both comparisons.
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(
                f"{description} has values outside [0, 1]: divide them by full white, or give uint8 or uint16",
                "unsupported",
            )
        grey = pixels.astype(np.float32)
    else:
        raise InputError(f"{description} is no film: give floats in [0, 1], uint8 or uint16", "unsupported")
    return Radiograph(grey, "array", None, tuple(notes), rendering=_rendering(grey))


def _rendering(pixels: FloatArray) -> str:
    """Return whether a picture's histogram was equalised, as its pixels show.

    Then all grey levels from some level to white occur equally often (Gonzalez and Woods, "Digital Image Processing",
    section 3.3), but for those of a border, which has one level.
    """
    sample = thin(pixels)
    counts = np.bincount(np.rint(sample * 255).astype(np.intp).ravel(), minlength=256)
    share = counts / sample.size
    used = np.ones(256, bool)
    used[: _BLACK + 1] = False
    for level in np.flatnonzero(np.convolve(share, np.ones(5), "same") > _FRAME).tolist():
        used[max(level - _AROUND, 0) : level + _AROUND + 1] = False
    share *= used
    if share.sum() < _LEAST_SEEN:
        return "picture"
    cumulative = share.cumsum() / share.sum()
    used[: int((cumulative > _DARKEST).argmax())] = False
    even = used.cumsum() / used.sum()
    return "equalised" if np.abs(cumulative - even)[share > 0].max() < _FLAT else "picture"


def _checked(path: Path, kind: bytes, file: BinaryIO) -> BinaryIO:
    """Return the file, or a JPEG file as one that is watched.

    Raises:
        ValueError: a JPEG 2000 file is damaged.
    """
    if not kind.startswith((jpeg.START, *JPEG_2000)) or path.stat().st_size > MAX_BYTES:
        return file
    stream = file.read()
    if kind.startswith(jpeg.START):
        return jpeg.Watched(stream)
    file.seek(0)
    if wrong := jpeg2000.fault(stream):
        raise ValueError(wrong)
    return file


def _too_large(path: Path) -> InputError:
    return InputError(f"{path} claims more than {MAX_PIXELS} pixels: no radiograph has that size", "unsupported")


def _decoded(path: Path, image: Image.Image, tags: Any, file: BinaryIO) -> tuple[FloatArray, list[str]]:
    """Return what `_grey` does, of the image upright.

    Raises:
        InputError: its values would be lost, since Pillow cuts them to 8 bits.
    """
    deep = _is_deep(image, tags, file)
    cut = tail(np.asarray(image))
    pixels, notes = _grey(path, ImageOps.exif_transpose(image))
    if deep and _white_of(pixels) < _HALF:
        raise InputError(
            f"{path} has colours of 16 bits and uses few of them: save it as grey, with 8 or 16 bits", "unsupported"
        )
    return pixels, [*notes, cut] if cut else notes


def _grey(path: Path, image: Image.Image) -> tuple[FloatArray, list[str]]:
    """Return the film's grey levels, and the assumptions made.

    The levels are (H, W) float32 in [0, 1].
    """
    if image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    if image.mode == "L":
        return np.multiply(np.asarray(image), np.float32(1 / 255), dtype=np.float32), []
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has 32-bit or negative pixels: save it with 8 or 16 bits", "unsupported")
        return _sixteen_bits(values)
    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels: save it with 8 or 16 bits", "unsupported")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    pixels, coloured = luminance(np.asarray(image.convert("RGB")), 255)
    return pixels, ["the image is in colour; its luminance was taken"] if coloured else []


def _is_deep(image: Image.Image, tags: Any, file: BinaryIO) -> bool:
    """Return whether Pillow cuts an image to 8 bits.

    It does so with colour, and with grey with alpha.
    """
    if image.mode == "L" or image.mode.startswith(("I", "F")):
        return False
    if image.format == "TIFF":
        return bool(max(tags.get(_BITS, (8,))) > 8)
    if image.format == "JPEG2000":
        position = file.tell()
        file.seek(0)
        head = file.read(1 << 16)
        file.seek(position)
        place = head.find(JPEG_2000[0]) + 42  # of the first component's precision
        return place < 42 or place >= len(head) or (head[place] & 127) + 1 > 8
    # Pillow's names of raw modes end with the bits: RGB;16B. Those of PPM are a number, the largest value.
    kinds = [
        kind for tile in getattr(image, "tile", ()) for kind in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))
    ]
    return any(kind > 255 if image.format == "PPM" and isinstance(kind, int) else ";16" in str(kind) for kind in kinds)


def _white_of(pixels: np.ndarray) -> float:
    """Return the grey level that nearly all pixels are below."""
    sample = thin(pixels)
    rank = round(_WHITE_RANK * (sample.size - 1))
    return float(np.partition(sample, rank, axis=None)[rank])


def _unknown_tiff(path: Path) -> bool:
    """Return whether Pillow does not know a TIFF file's kind of pixels."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TiffImagePlugin.TiffImageFile(path)
    except SyntaxError as error:
        return "unknown" in str(error)
    except Exception:  # a damaged file may raise nearly anything
        return False
    return False


def _sixteen_bits(values: np.ndarray) -> tuple[FloatArray, list[str]]:
    sample = thin(values)
    if _white_of(values) >= 1 << 15:
        return np.multiply(values, np.float32(1 / 65535), dtype=np.float32), []
    # Values of a detector with 10 to 15 bits would be nearly black if scaled as 16 bits.
    levels = np.arange(1 << 16, dtype=np.float64)
    table = stretch(levels, levels[sample]).astype(np.float32)
    return table[values], ["the image uses few of its 16 bits; contrast was set by percentiles"]

"""PNG, JPEG and the like -> Radiograph. Their polarity is taken to be that of a display: air black."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from edgecxr.errors import AGAIN, InputError, brief
from edgecxr.films.grayscale import luminance, stretch, thin
from edgecxr.films.radiograph import Radiograph
from edgecxr.vocabulary import FloatArray

MAX_PIXELS = 100_000_000
"""More than any film has; an image that claims more is refused before anything is decoded."""

# Not all that Pillow knows: among the rest are formats that run other programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "GIF", "WEBP", "JPEG2000")
_SIGNATURES = (b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"GIF8")


def read_image(path: Path) -> Radiograph:
    """Read an image file; grey of 8 or 16 bits as it is, colour as its luminance, alpha ignored, EXIF turns honoured.

    Raises:
        InputError: not an image, truncated, too large, or without integer pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path)
                frames = getattr(image, "n_frames", 1)
                notes = [f"the first of {frames} frames was taken"] if frames > 1 else []
                pixels, more = _grey(path, ImageOps.exif_transpose(image))
    except InputError:
        raise
    except UnidentifiedImageError as error:
        with path.open("rb") as file:
            if file.read(4).startswith(_SIGNATURES):
                raise InputError(f"{path} is cut off in its header: {AGAIN}", "malformed") from error
        raise InputError(
            f"{path} is neither DICOM nor an image: give a DICOM, PNG or JPEG file", "not-an-image"
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path) from error
    except (
        *(OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError, AttributeError),
        *(OverflowError, RecursionError, NotImplementedError, struct.error, zlib.error),
    ) as error:
        raise InputError(
            f"{path} is malformed ({type(error).__name__}: {brief(error)}): {AGAIN}", "malformed"
        ) from error
    return Radiograph(pixels, str(path), None, (*notes, *more))


def from_array(pixels: np.ndarray) -> Radiograph:
    """Take an array as a film: floats as they are, integers as an image file that holds them would be read.

    Args:
        pixels: (H, W), air black; floats in [0, 1], or uint8 or uint16.

    Raises:
        InputError: another shape or type, or floats outside [0, 1].
    """
    given = f"an array of {pixels.dtype} of shape {pixels.shape}"
    if pixels.ndim != 2 or not pixels.size:
        raise InputError(f"{given} is no film: give grey pixels (H, W)", "unsupported")
    notes: list[str] = []
    if np.issubdtype(pixels.dtype, np.uint8):
        grey = np.multiply(pixels, np.float32(1 / 255), dtype=np.float32)
    elif np.issubdtype(pixels.dtype, np.uint16):
        grey, notes = _sixteen_bits(pixels)
    elif np.issubdtype(pixels.dtype, np.floating):
        # NaN fails both comparisons.
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise InputError(
                f"{given} has values outside [0, 1]: divide them by full white, or give uint8 or uint16", "unsupported"
            )
        grey = pixels.astype(np.float32)
    else:
        raise InputError(f"{given} is no film: give floats in [0, 1], uint8 or uint16", "unsupported")
    return Radiograph(grey, "array", None, tuple(notes))


def _too_large(path: Path) -> InputError:
    return InputError(f"{path} claims more than {MAX_PIXELS} pixels: no radiograph has that size", "unsupported")


def _grey(path: Path, image: Image.Image) -> tuple[FloatArray, list[str]]:
    """Return (H, W) float32 in [0, 1] and what had to be assumed."""
    if image.mode in ("1", "LA", "La"):
        image = image.convert("L")
    if image.mode == "L":
        return np.multiply(np.asarray(image), np.float32(1 / 255), dtype=np.float32), []
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"{path} has 32-bit pixels: save it with 8 or 16 bits", "unsupported")
        return _sixteen_bits(values)
    if image.mode == "F":
        raise InputError(f"{path} has floating-point pixels: save it with 8 or 16 bits", "unsupported")
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")
    pixels, coloured = luminance(np.asarray(image.convert("RGB")), 255)
    return pixels, ["the image is in colour; its luminance was taken"] if coloured else []


def _sixteen_bits(values: np.ndarray) -> tuple[FloatArray, list[str]]:
    if values.max() >= 1 << 14:
        return np.multiply(values, np.float32(1 / 65535), dtype=np.float32), []
    # Detectors of 10 to 14 bits saved as they are: shown as 16 bits they would be nearly black.
    levels = np.arange(1 << 14, dtype=np.float64)
    table = stretch(levels, levels[thin(values)]).astype(np.float32)
    return table[values], ["the image uses few of its 16 bits; contrast was set by percentiles"]

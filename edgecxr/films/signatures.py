"""Kinds of image files that are read, and what tells them.

One list for the reader and for the search of folders, so that a file that is read when it is named is found in its
folder, too.
"""

from __future__ import annotations

import re

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "PPM", "GIF", "JPEG2000")
"""Those of Pillow's formats that are read: others run external programs."""

SUFFIXES = frozenset({
    *(".webp", ".avif", ".heic", ".heif", ".jxl"),  # not read: each is rejected by name
    *(".dcm", ".dicom", ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif"),
    *(".pgm", ".ppm", ".pnm", ".pbm", ".pfm", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
})  # fmt: skip
"""Endings of films in a folder; files with other endings are recognised by their first bytes."""

JPEG_2000 = (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")
"""Starts of a JPEG 2000 codestream, and of a file that holds one."""

# BMP and the portable formats begin with two letters, which text may begin with, too.
_START = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|II[*+]\0|MM\0[*+]|GIF8[79]a|\xff\x4f\xff\x51|\0\0\0\x0cjP  "
    rb"|BM.{4}\0{4}.{4}[\x0c(4@l|8]\0\0\0|P[1-6f]\s+[#0-9]"
    rb"|RIFF.{4}WEBP|.{4}ftyp(?:avi[fs]|hei[cmsx]|hev[cx]|mi[af]f|msf1|mif1)|\0\0\0\x0cJXL ",
    re.DOTALL,
)


def is_picture(head: bytes) -> bool:
    """Return whether a file's first bytes are those of an image.

    Kinds that are not read count, too: their reader says so.

    Args:
        head: 32 bytes or more.
    """
    return _START.match(head) is not None

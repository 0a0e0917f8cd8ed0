"""TIFF files of any kind, written byte by byte."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

UNCOMPRESSED, LZW, JPEG, DEFLATE, PACKBITS = 1, 5, 7, 8, 32773


def packed(pixels: np.ndarray, bits: int, order: str) -> bytes:
    """Return (H, W) or (H, W, 3) values as the words of a TIFF file."""
    if bits == 12:
        high = np.repeat(pixels.reshape(len(pixels), -1), 1, axis=1).astype(np.uint16)
        pairs = high.reshape(len(pixels), -1, 2).astype(np.uint32)
        words = (pairs[..., 0] << 12) | pairs[..., 1]
        return np.stack([words >> 16, words >> 8 & 255, words & 255], axis=-1).astype(np.uint8).tobytes()
    kind = {"f": "f4", "d": "f8"}.get(pixels.dtype.kind) or f"{pixels.dtype.kind}{max(1, bits // 8)}"
    return pixels.astype(order + kind).tobytes()


def predicted(pixels: np.ndarray) -> np.ndarray:
    """Return differences to the left neighbour, TIFF's predictor 2."""
    return np.concatenate([pixels[:, :1], np.diff(pixels, axis=1)], axis=1)


def packbits(row: bytes) -> bytes:
    """Return a row as literal runs and repeats."""
    out, place = b"", 0
    while place < len(row):
        run = 1
        while run < 128 and row[place : place + run + 1] == row[place : place + 1] * (run + 1):
            run += 1
        if run > 2:
            out += bytes([257 - run]) + row[place : place + 1]
        else:
            run = min(2, len(row) - place)
            out += bytes([run - 1]) + row[place : place + run]
        place += run
    return out


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    *,
    bits: int = 8,
    order: str = "<",
    compression: int = UNCOMPRESSED,
    photometric: int = 1,
    planar: int = 1,
    predictor: int = 1,
    tile: int = 0,
    rows_per_strip: int = 32,
    big: bool = False,
) -> Path:
    """Write (H, W) or (H, W, 3) pixels as a TIFF file of one page."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    planes = [pixels[..., i] for i in range(samples)] if planar == 2 and samples > 1 else [pixels]
    pieces = []
    for plane in planes:
        if tile:
            for top in range(0, height, tile):
                for left in range(0, width, tile):
                    piece = plane[top : top + tile, left : left + tile]
                    padding = [(0, tile - piece.shape[0]), (0, tile - piece.shape[1])] + [(0, 0)] * (plane.ndim - 2)
                    pieces.append(np.pad(piece, padding))
        else:
            pieces += [plane[top : top + rows_per_strip] for top in range(0, height, rows_per_strip)]
    chunks = []
    for piece in pieces:
        words = [packed(row[None], bits, order) for row in (predicted(piece) if predictor == 2 else piece)]
        if compression == DEFLATE:
            chunks.append(zlib.compress(b"".join(words)))
        elif compression == PACKBITS:
            chunks.append(b"".join(map(packbits, words)))
        else:
            chunks.append(b"".join(words))
    start = 16 if big else 8
    offsets = [start + sum(map(len, chunks[:i])) for i in range(len(chunks))]
    form = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    tags: dict[int, list[int]] = {
        256: [width], 257: [height], 258: [bits] * samples, 259: [compression], 262: [photometric], 277: [samples],
        284: [planar], 317: [predictor], 339: [form] * samples,
    }  # fmt: skip
    counts = [len(chunk) for chunk in chunks]
    more = {322: [tile], 323: [tile], 324: offsets, 325: counts}
    tags |= more if tile else {273: offsets, 278: [rows_per_strip], 279: counts}
    return finish(path, tags, b"".join(chunks), order, big)


def finish(path: Path, tags: dict[int, list[int]], data: bytes, order: str, big: bool) -> Path:
    """Write the header, the data and the directory of a TIFF file."""
    start = (16 if big else 8) + len(data)
    place = struct.Struct(order + ("Q" if big else "L"))
    entry = place.size * 2 + 4
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    outside = start + len(count) + entry * len(tags) + place.size
    entries, values = b"", b""
    for tag, numbers in sorted(tags.items()):
        wide = tag in (273, 279, 324, 325)
        content = struct.pack(f"{order}{len(numbers)}{'L' if wide else 'H'}", *numbers)
        if len(content) > place.size:
            value, values = place.pack(outside + len(values)), values + content
        else:
            value = content.ljust(place.size, b"\0")
        entries += struct.pack(order + "HH", tag, 4 if wide else 3) + place.pack(len(numbers)) + value
    mark = (b"II" if order == "<" else b"MM") + struct.pack(order + "H", 43 if big else 42)
    head = mark + (struct.pack(order + "HH", 8, 0) if big else b"") + place.pack(start)
    path.write_bytes(head + data + count + entries + place.pack(0) + values)
    return path

"""Contact sheets: sample images of a prepared data set with labels."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgecxr.data.prepared import Prepared
from edgecxr.films.resize import BASE_SIZE
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import printable
from edgecxr.vocabulary import FloatArray

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_COLUMNS = 6
_MARGIN = 8
_LINE = 15
_LINES = 4
_LONGEST = 1000  # letters of a text, of which few have room


def contact_sheet(prepared: Prepared, path: Path, n: int = 24) -> None:
    """Write a PNG of sample images and their findings.

    Up to `n` images are drawn evenly from the data set, normal ones first.
    """
    order = np.argsort(prepared.abnormal, kind="stable")
    rows = order[np.unique(np.linspace(0, len(order) - 1, min(n, len(order))).astype(int))]
    kind = "synthetic films, " if prepared.phantom else ""
    title = f"{prepared.name}: {kind}{len(prepared)} images, {len(prepared.labels)} findings"
    captions = [_caption(prepared.labels, prepared.targets[row], prepared.abnormal[row]) for row in rows]
    _draw(path, title, prepared.images[rows], prepared.ids[rows].tolist(), captions)


def montage(prepared: Prepared, path: Path) -> None:
    """Write a PNG with one row of images per finding.

    The first row shows normal images. Each finding with positive images has a row of up to `_COLUMNS` of them.
    """
    columns = {"normal": 1 - prepared.abnormal} | dict(zip(prepared.labels, prepared.targets.T, strict=True))
    rows: list[int] = []
    captions: list[str] = []
    for label, values in columns.items():
        positive = np.flatnonzero(values >= 0.5)
        if not len(positive):
            continue
        chosen = positive[np.unique(np.linspace(0, len(positive) - 1, min(_COLUMNS, len(positive))).astype(int))]
        # Pad the row, since each finding starts a new one.
        rows += [*chosen.tolist(), *[-1] * (_COLUMNS - len(chosen))]
        captions += [label] * _COLUMNS
    shown = np.array(rows, np.intp)
    images = np.where((shown >= 0)[:, None, None], prepared.images[np.maximum(shown, 0)], np.uint8(255))
    names = ["" if row < 0 else str(prepared.ids[row]) for row in rows]
    captions = [caption if row >= 0 else "" for caption, row in zip(captions, rows, strict=True)]
    kind = "synthetic films, " if prepared.phantom else ""
    _draw(path, f"{prepared.name}: {kind}a few films of each finding", images, names, captions)


def _draw(path: Path, title: str, images: np.ndarray, names: list[str], captions: list[str]) -> None:
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    cell = BASE_SIZE + _MARGIN
    height = cell + _LINES * _LINE
    rows = math.ceil(len(images) / _COLUMNS)
    sheet = Image.new("L", (_COLUMNS * cell + _MARGIN, rows * height + 4 * _MARGIN), 255)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), _latin(title), 0, font)
    for i, (image, name, caption) in enumerate(zip(images, names, captions, strict=True)):
        x, y = _MARGIN + i % _COLUMNS * cell, 4 * _MARGIN + i // _COLUMNS * height
        sheet.paste(Image.fromarray(image), (x, y))
        lines = [_shorten(name, small, draw), *_wrapped(caption, small, draw)][:_LINES]
        for k, line in enumerate(lines):
            draw.text((x, y + BASE_SIZE + k * _LINE), line, 110 if k == 0 else 0, small)
    png = io.BytesIO()
    sheet.save(png, "PNG", optimize=True)
    atomic_write(path, png.getvalue())


def _caption(labels: tuple[str, ...], targets: FloatArray, abnormal: float) -> str:
    """Return the positive findings of an image, or its overall state."""
    findings = []
    for label, value in zip(labels, targets.tolist(), strict=True):
        if value > 0:
            findings.append(label if value == 1 else f"{label} {value:.2f}")
    state = "abnormal" if abnormal >= 0.5 else "normal" if abnormal < 0.5 else "not stated"
    return ", ".join(findings) or state


def _wrapped(text: str, font: _Font, draw: ImageDraw.ImageDraw) -> list[str]:
    lines = [""]
    for part in _latin(text).split(", "):
        longer = f"{lines[-1]}, {part}" if lines[-1] else part
        if draw.textlength(longer, font) <= BASE_SIZE:
            lines[-1] = longer
        else:
            lines.append(part)
    return [_shorten(line, font, draw) for line in lines if line]


def _shorten(text: str, font: _Font, draw: ImageDraw.ImageDraw) -> str:
    """Shorten a text to the width of an image.

    The beginning is cut off, since names differ at their ends.
    """
    text = _latin(text)
    if draw.textlength(text, font) <= BASE_SIZE:
        return text
    while text and draw.textlength(f"...{text}", font) > BASE_SIZE:
        text = text[1:]
    return f"...{text}"


def _latin(text: str) -> str:
    # Pillow's default font has only Latin-1 letters, and cannot measure line breaks.
    return printable(text[-_LONGEST:]).encode("latin-1", "replace").decode("latin-1")

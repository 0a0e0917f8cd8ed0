"""Attention of several models side by side.

`edgecxr explain` shows teacher, undistilled and distilled student as in Figure 3 of the paper.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from edgecxr import NOTICE, metrics
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError
from edgecxr.evaluate.by_size import TOLERANCE, cases_of, hit_rate, hits, strongest
from edgecxr.evaluate.evaluation import ModelOutputs
from edgecxr.films.resize import BASE_SIZE
from edgecxr.infer.overlay import attention_over
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import joined, printable
from edgecxr.vocabulary import FEW_CASES

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

SCALE = 1.25
"""Factor by which the 224 px image of a film is enlarged."""

_SIDE = round(BASE_SIZE * SCALE)
_GAP = 10
_HEAD = 56
_LINE = 20
_BOX = (88, 196, 255)
_POINT = (255, 255, 255)


def hit_table(models: Sequence[ModelOutputs], split: str, replicates: int = 1000) -> str:
    """Return each model's pointing game hit rate as a text table.

    The rate is over all boxed findings of the split. If there are none, the text says so.
    """
    prepared = models[0].prepared
    if not _has_boxes(prepared, split):
        return joined([f"data set {prepared.name} has no boxes in its {split} split: no hit rate"])
    cases = cases_of(prepared, split)
    weights = metrics.patient_weights(prepared.patients[prepared.rows(split)], replicates)[:, cases.image]
    width = max(len(model.card.name) for model in models) + 8
    lines = [
        f"Pointing game on {prepared.name} {split}: {len(cases.image)} boxed findings, within {TOLERANCE} px (of 224)"
    ]
    if len(cases.image) < FEW_CASES:
        lines.append(f"! fewer than {FEW_CASES}: their intervals say little")
    for model in models:
        rate = hit_rate(hits(cases, model.outputs.attention), weights)
        lines.append(f"{f'{model.card.name} {model.card.size} px':{width}}  {rate}")
    lines.append(f"{'a point anywhere':{width}}  {cases.chance.mean():.3f}")
    return joined(lines)


def draw(models: Sequence[ModelOutputs], split: str, films: int, seed: int, path: Path) -> Path:
    """Draw films with their boxes, and each model's attention over them.

    For each lower resolution, the very pixels that its models see stand beside the film.

    Args:
        models: models on the same split of the same data set.
        split: name of the split.
        films: number of films. They are abnormal, have boxes if the split has any, and show as many findings as
            possible.
        seed: random seed of the choice of films.
        path: path of the PNG.

    Returns:
        The path.

    Raises:
        InputError: no film of the split is abnormal; reason "dataset".
    """
    prepared = models[0].prepared
    chosen = _choose(prepared, split, films, seed)
    heading, small = ImageFont.load_default(15), ImageFont.load_default(12)
    sizes = sorted({model.card.size for model in models if model.card.size < BASE_SIZE}, reverse=True)
    columns = 1 + len(sizes) + len(models)
    size = (columns * (_SIDE + _GAP) + _GAP, _HEAD + len(chosen) * (_SIDE + _LINE + _GAP) + 3 * _LINE)
    sheet = Image.new("RGB", size, (16, 18, 22))
    pen = ImageDraw.Draw(sheet)
    titles = [("film", f"{prepared.name}, {split}")]
    titles += [(f"{size} x {size} px", "what a student sees of it") for size in sizes]
    titles += [
        (_kind(model), f"{model.card.name}, {model.card.size} px, {model.card.tokens} tokens") for model in models
    ]
    for column, (title, subtitle) in enumerate(titles):
        x = _GAP + column * (_SIDE + _GAP)
        pen.text((x, 10), title, (232, 234, 238), heading)
        pen.text((x, 32), _fit(pen, printable(subtitle), small), (150, 156, 166), small)
    points = [strongest(model.outputs.attention) for model in models]
    for row, position in enumerate(chosen.tolist()):
        y = _HEAD + row * (_SIDE + _LINE + _GAP)
        image = int(prepared.rows(split)[position])
        film = Image.fromarray(prepared.images[image]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        views = [_enlarged(prepared, image, size) for size in sizes]
        tiles = [film.convert("RGB"), *views]
        tiles += [attention_over(film, model.outputs.attention[position]) for model in models]
        for column, tile in enumerate(tiles):
            _mark_boxes(tile, prepared, image, small if column == 0 else None)
            if column > len(sizes):
                _mark_point(tile, *(float(axis[position]) for axis in points[column - len(sizes) - 1]))
            sheet.paste(tile, (_GAP + column * (_SIDE + _GAP), y))
        pen.text((_GAP, y + _SIDE + 3), _findings(prepared, image), (232, 234, 238), small)
    pen.text((_GAP, size[1] - 3 * _LINE), _fit(pen, NOTICE, small, size[0] - _GAP), (249, 176, 44), small)
    legend = "box: marked finding; cross: strongest patch; colours: more than an even share of attention"
    pen.text((_GAP, size[1] - 2 * _LINE), _fit(pen, legend, small, size[0] - _GAP), (150, 156, 166), small)
    picture = io.BytesIO()
    sheet.save(picture, "PNG", optimize=True)
    atomic_write(path, picture.getvalue())
    return path


def _has_boxes(prepared: Prepared, split: str) -> bool:
    return bool(np.isin(prepared.boxes.image, prepared.rows(split)).any())


def _choose(prepared: Prepared, split: str, films: int, seed: int) -> np.ndarray:
    """Return indices of films in the split, alternating between findings."""
    rows = prepared.rows(split)
    rng = np.random.default_rng(seed)
    if _has_boxes(prepared, split):
        cases = cases_of(prepared, split)
        order = rng.permutation(len(cases.image))
        # The n-th case of every label comes before the (n + 1)-th of any.
        turn = np.zeros(len(order), int)
        counts: dict[int, int] = {}
        for position, case in enumerate(order.tolist()):
            label = int(cases.label[case])
            turn[position] = counts[label] = counts.get(label, -1) + 1
        images = cases.image[order[np.argsort(turn, kind="stable")]]
    else:
        images = rng.permutation(np.flatnonzero(prepared.abnormal[rows] >= 0.5))
    if len(images) == 0:
        raise InputError(
            f"no film in the {split} split of data set {prepared.name} is abnormal: name another --split", "dataset"
        )
    return np.array(list(dict.fromkeys(images.tolist()))[:films])


def _kind(model: ModelOutputs) -> str:
    method = model.card.method
    return {"teacher": "teacher", "none": "undistilled", "mlcak": "MLCAK"}.get(method, method)


def _findings(prepared: Prepared, image: int) -> str:
    present = [label for label, value in zip(prepared.labels, prepared.targets[image], strict=True) if value >= 0.5]
    return printable(", ".join(present) or "abnormal, none of the findings")


def _enlarged(prepared: Prepared, image: int, size: int) -> Image.Image:
    """Return what a model of `size` px sees, in squares."""
    pixels = prepared.inputs(np.array([image]), size)[0, 0]
    small = Image.fromarray((255 * pixels).round().astype(np.uint8))
    return small.resize((_SIDE, _SIDE), Image.Resampling.NEAREST).convert("RGB")


def _mark_boxes(tile: Image.Image, prepared: Prepared, image: int, font: Font | None) -> None:
    """Draw the boxes of an image, named if there is a font."""
    pen = ImageDraw.Draw(tile)
    for case in np.flatnonzero(prepared.boxes.image == image).tolist():
        left, top, right, bottom = (float(corner) * SCALE for corner in prepared.boxes.corners[case])
        pen.rectangle((left, top, right, bottom), outline=_BOX)
        if font is not None:
            name = printable(prepared.labels[int(prepared.boxes.label[case])])
            width = pen.textlength(name, font)
            x = max(0.0, min(left, _SIDE - width - 4))
            y = top - 16 if top >= 16 else min(bottom, _SIDE - 16)
            pen.rectangle((x, y, x + width + 4, y + 15), (16, 18, 22))
            pen.text((x + 2, y), name, _BOX, font)


def _mark_point(tile: Image.Image, x: float, y: float) -> None:
    pen = ImageDraw.Draw(tile)
    x, y = x * SCALE, y * SCALE
    pen.line((x - 6, y, x + 6, y), _POINT)
    pen.line((x, y - 6, x, y + 6), _POINT)


def _fit(pen: ImageDraw.ImageDraw, text: str, font: Font, width: int = _SIDE) -> str:
    while pen.textlength(text, font) > width:
        text = text[:-1]
    return text

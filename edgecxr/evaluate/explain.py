"""`edgecxr explain`: where teacher, undistilled and distilled student look, side by side (Figure 3 of the paper)."""

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
from edgecxr.evaluate.evaluation import Answered
from edgecxr.films.resize import BASE_SIZE
from edgecxr.infer.overlay import attention_over
from edgecxr.storage.atomic import atomic_write
from edgecxr.terminal import printable
from edgecxr.vocabulary import FEW_CASES

SCALE = 1.25
"""Of a film in the picture, in the pixels of its 224 px image."""

_SIDE = round(BASE_SIZE * SCALE)
_GAP = 10
_HEAD = 56
_LINE = 20
_BOX = (88, 196, 255)
_POINT = (255, 255, 255)


def hit_table(models: Sequence[Answered], split: str, replicates: int = 1000) -> str:
    """Return the pointing game's hit rate of each model over all boxes of a split, or why there is none."""
    prepared = models[0].prepared
    if not _has_boxes(prepared, split):
        return f"data set {prepared.name} has no boxes in its {split} split: no hit rate"
    cases = cases_of(prepared, split)
    weights = metrics.patient_weights(prepared.patients[prepared.rows(split)], replicates)[:, cases.image]
    width = max(len(model.card.name) for model in models) + 8
    lines = [
        f"Pointing game on {prepared.name} {split}: {len(cases.image)} boxed findings, within {TOLERANCE} px (of 224)"
    ]
    if len(cases.image) < FEW_CASES:
        lines.append(f"! fewer than {FEW_CASES}: their intervals say little")
    for model in models:
        found = hit_rate(hits(cases, model.outputs.attention), weights)
        lines.append(f"{f'{model.card.name} {model.card.size} px':{width}}  {found}")
    lines.append(f"{'a point anywhere':{width}}  {cases.chance.mean():.3f}")
    return "\n".join(lines)


def draw(models: Sequence[Answered], split: str, films: int, seed: int, path: Path) -> Path:
    """Draw films with their boxes, and each model's attention over them.

    Args:
        models: on the same split of the same data set.
        split: its name.
        films: number of films: abnormal ones, with boxes where there are any, of as many findings as possible.
        seed: of their choice.
        path: of the PNG.

    Raises:
        InputError: no film of the split is abnormal; reason "dataset".
    """
    prepared = models[0].prepared
    chosen = _choose(prepared, split, films, seed)
    heading, small = ImageFont.load_default(15), ImageFont.load_default(12)
    columns = 1 + len(models)
    size = (columns * (_SIDE + _GAP) + _GAP, _HEAD + len(chosen) * (_SIDE + _LINE + _GAP) + 3 * _LINE)
    sheet = Image.new("RGB", size, (16, 18, 22))
    pen = ImageDraw.Draw(sheet)
    titles = [("film", f"{prepared.name}, {split}")]
    titles += [
        (_kind(model), f"{model.card.name}, {model.card.size} px, {model.card.tokens} tokens") for model in models
    ]
    for column, (title, below) in enumerate(titles):
        x = _GAP + column * (_SIDE + _GAP)
        pen.text((x, 10), title, (232, 234, 238), heading)
        pen.text((x, 32), _fit(pen, printable(below), small), (150, 156, 166), small)
    points = [strongest(model.outputs.attention) for model in models]
    for row, place in enumerate(chosen.tolist()):
        y = _HEAD + row * (_SIDE + _LINE + _GAP)
        image = int(prepared.rows(split)[place])
        film = Image.fromarray(prepared.images[image]).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        tiles = [film.convert("RGB"), *(attention_over(film, model.outputs.attention[place]) for model in models)]
        for column, tile in enumerate(tiles):
            _mark_boxes(tile, prepared, image)
            if column:
                _mark_point(tile, *(float(axis[place]) for axis in points[column - 1]))
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
    """Return places in the split, of one finding after the other."""
    rows = prepared.rows(split)
    rng = np.random.default_rng(seed)
    if _has_boxes(prepared, split):
        cases = cases_of(prepared, split)
        order = rng.permutation(len(cases.image))
        # The n-th case of every label comes before the (n + 1)-th of any.
        turn = np.zeros(len(order), int)
        seen: dict[int, int] = {}
        for position, case in enumerate(order.tolist()):
            label = int(cases.label[case])
            turn[position] = seen[label] = seen.get(label, -1) + 1
        images = cases.image[order[np.argsort(turn, kind="stable")]]
    else:
        images = rng.permutation(np.flatnonzero(prepared.abnormal[rows] >= 0.5))
    if len(images) == 0:
        raise InputError(
            f"no film in the {split} split of data set {prepared.name} is abnormal: name another --split", "dataset"
        )
    return np.array(list(dict.fromkeys(images.tolist()))[:films])


def _kind(model: Answered) -> str:
    method = model.card.method
    return {"teacher": "teacher", "none": "undistilled", "mlcak": "MLCAK"}.get(method, method)


def _findings(prepared: Prepared, image: int) -> str:
    present = [label for label, value in zip(prepared.labels, prepared.targets[image], strict=True) if value >= 0.5]
    return printable(", ".join(present) or "abnormal, none of the findings")


def _mark_boxes(tile: Image.Image, prepared: Prepared, image: int) -> None:
    pen = ImageDraw.Draw(tile)
    for corners in prepared.boxes.corners[prepared.boxes.image == image]:
        pen.rectangle([float(corner) * SCALE for corner in corners], outline=_BOX)


def _mark_point(tile: Image.Image, x: float, y: float) -> None:
    pen = ImageDraw.Draw(tile)
    x, y = x * SCALE, y * SCALE
    pen.line((x - 6, y, x + 6, y), _POINT)
    pen.line((x, y - 6, x, y + 6), _POINT)


def _fit(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int = _SIDE
) -> str:
    while pen.textlength(text, font) > width:
        text = text[:-1]
    return text

"""A film with the model's attention and findings drawn on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgecxr import NOTICE
from edgecxr.films.display import SHORT_SIDE
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.results import LEGEND, MARK, top_findings
from edgecxr.terminal import printable
from edgecxr.vocabulary import FloatArray

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

RESEARCH_USE = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"

_BACKGROUND = (16, 18, 22)
_TEXT = (232, 234, 238)
_FAINT = (150, 156, 166)
_TRACK = (48, 52, 60)
_POSITIVE = (249, 176, 44)

# Colours of rising lightness, so that the order survives colour blindness and a grey print (after matplotlib's
# "inferno", CC0; without its near-black start, which would darken the film where attention is low).
_ANCHORS = np.array(
    [(85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)],
    dtype=np.float32,
)
_STRONGEST_ALPHA = 0.58
_MARGIN = 18
_BAND = 34
_FINDINGS = 5
_WARNINGS = 3


def overlay(film: Image.Image, prediction: Prediction) -> Image.Image:
    """Draw where the model looked and what it says.

    The attention is shown relative to an even spread over the patches: what gets no more than its even share stays
    grey, and the colours reach from there to the strongest patch of this film (but at least to twice the even share,
    so that a nearly even map stays nearly grey).

    Args:
        film: what `edgecxr.films.display.displayed` returned.
        prediction: of that film.

    Returns:
        An RGB image: the film, its long side at most 1024 pixels, above a caption.
    """
    strongest = _strength(prediction.attention)[1]
    film = attention_over(film, prediction.attention)
    caption = _caption(prediction, max(film.width, SHORT_SIDE), strongest)
    canvas = Image.new("RGB", (caption.width, film.height + caption.height), _BACKGROUND)
    canvas.paste(film, ((canvas.width - film.width) // 2, 0))
    canvas.paste(caption, (0, film.height))
    return canvas


def research_band(picture: Image.Image) -> Image.Image:
    """Return an RGB picture below a band that says in capitals what it is for, as viewers may show its top alone."""
    canvas = Image.new("RGB", (picture.width, picture.height + _BAND), _POSITIVE)
    canvas.paste(picture, (0, _BAND))
    at = (picture.width // 2, _BAND // 2)
    ImageDraw.Draw(canvas).text(at, RESEARCH_USE, _BACKGROUND, ImageFont.load_default(20), anchor="mm")
    return canvas


def attention_over(film: Image.Image, attention: FloatArray) -> Image.Image:
    """Draw attention (g, g), which sums to 1, over a grey film in the colours that `overlay` explains; returns RGB."""
    return _blend(film, _strength(attention)[0])


def _strength(attention: FloatArray) -> tuple[FloatArray, float]:
    """Return (g, g) in [0, 1], and the multiple of the even share that 1 stands for."""
    multiples = attention * attention.size
    strongest = max(2.0, float(multiples.max()))
    return np.clip((multiples - 1) / (strongest - 1), 0, 1).astype(np.float32), strongest


def _blend(film: Image.Image, strength: FloatArray) -> Image.Image:
    # The model saw the film squeezed into a square, so its grid covers the whole film.
    # Bilinear enlargement would draw a bright cross into each strong patch; bicubic can overshoot, hence the clip.
    smooth = np.asarray(Image.fromarray(strength).resize(film.size, Image.Resampling.BICUBIC)).clip(0, 1)
    grey = np.repeat(np.asarray(film, dtype=np.float32)[..., None], 3, axis=2)
    alpha = (_STRONGEST_ALPHA * smooth**0.75)[..., None]
    return Image.fromarray((grey * (1 - alpha) + _colours(smooth) * alpha).round().astype(np.uint8))


def _colours(values: FloatArray) -> NDArray[np.float32]:
    """Return (..., 3) RGB in [0, 255] for values in [0, 1]."""
    stops = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(values, stops, channel) for channel in _ANCHORS.T], axis=-1).astype(np.float32)


def _caption(prediction: Prediction, width: int, strongest: float) -> Image.Image:
    title, body, small = (ImageFont.load_default(size) for size in (20, 16, 13))
    rows = [("abnormal", prediction.abnormal, prediction.decisions["abnormal"])]
    rows += top_findings(prediction, _FINDINGS)
    notes = [LEGEND, *prediction.warnings[:_WARNINGS]]
    height = _MARGIN + 34 + 25 * len(rows) + 8 + 18 * len(notes) + _MARGIN + _BAND
    image = Image.new("RGB", (width, height), _BACKGROUND)
    draw = ImageDraw.Draw(image)

    y = _MARGIN
    draw.text((_MARGIN, y), _fit(draw, prediction.model, title, width - 2 * _MARGIN), _TEXT, title)
    y += 34
    left = round(width * 0.62)
    for label, probability, positive in rows:
        _row(draw, (_MARGIN, y), left - 2 * _MARGIN, (label, probability, positive), body)
        y += 25
    for number, note in enumerate(notes):
        draw.text((_MARGIN, y + 8 + 18 * number), _fit(draw, note, small, width - 2 * _MARGIN), _FAINT, small)

    _colour_bar(image, draw, (left, _MARGIN + 34), width - left - _MARGIN, strongest, small)

    draw.rectangle((0, height - _BAND, width, height), fill=_POSITIVE)
    draw.text(
        (width // 2, height - _BAND // 2), _fit(draw, NOTICE, body, width - 2 * _MARGIN), _BACKGROUND, body, anchor="mm"
    )
    return image


def _row(
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    width: int,
    row: tuple[str, float, bool],
    font: Font,
) -> None:
    """Draw one line: label, bar, probability."""
    label, probability, positive = row
    x, y = at
    colour = _POSITIVE if positive else _TEXT
    bar, number = round(width * 0.34), 56
    start = x + width - bar - number
    draw.text((x, y), _fit(draw, label, font, start - x - 10), colour, font)
    draw.rectangle((start, y + 6, start + bar, y + 13), fill=_TRACK)
    draw.rectangle((start, y + 6, start + round(bar * probability), y + 13), fill=colour)
    draw.text((start + bar + 10, y), f"{probability:.2f}{' ' + MARK if positive else ''}", colour, font)


def _colour_bar(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    at: tuple[int, int],
    width: int,
    strongest: float,
    font: Font,
) -> None:
    """Draw what the colours mean, as they look over mid-grey film."""
    x, y = at
    draw.text((x, y), "attention (1: even spread)", _FAINT, font)
    ramp = np.tile(np.linspace(0, 1, width, dtype=np.float32), (14, 1))
    image.paste(_blend(Image.new("L", (width, 14), 90), ramp), (x, y + 22))
    draw.text((x, y + 40), "1", _FAINT, font)
    draw.text((x + width, y + 40), f"{strongest:.1f}", _FAINT, font, anchor="ra")


def _fit(draw: ImageDraw.ImageDraw, text: str, font: Font, width: int) -> str:
    """Return `text`, shortened with dots where it is wider than `width` pixels."""
    text = printable(text)
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."

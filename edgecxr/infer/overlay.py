"""Draw a model's attention and findings on a film."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgecxr import NOTICE
from edgecxr.bundle.tested import marked
from edgecxr.films.display import SHORT_SIDE
from edgecxr.infer.prediction import Prediction
from edgecxr.infer.predictor import PHANTOM_WARNING
from edgecxr.infer.results import compared, notes_of, refusal_of
from edgecxr.terminal import printable
from edgecxr.vocabulary import ABNORMAL, FloatArray

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Colour = tuple[int, int, int]

THRESHOLD_TICK = "tick in a bar: the threshold; yellow: at or above it"

RESEARCH_USE = "RESEARCH USE ONLY - NOT FOR DIAGNOSIS"

_BACKGROUND = (16, 18, 22)
_TEXT = (232, 234, 238)
_FAINT = (150, 156, 166)
_TRACK = (48, 52, 60)
_POSITIVE = (249, 176, 44)
_REFUSED = (176, 30, 38)

# Colours of rising lightness, so that the order survives colour blindness and a grey print (after matplotlib's
# "inferno", CC0; without its near-black start, which would darken the film where attention is low).
_ANCHORS = np.array(
    [(85, 15, 109), (136, 34, 106), (186, 54, 85), (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)],
    dtype=np.float32,
)
_STRONGEST_ALPHA = 0.58
_MARGIN = 18
_BAND = 34
_ROW, _LINE = 25, 18
_MOST_ROWS = 20
_WARNINGS = 8


def overlay(film: Image.Image, prediction: Prediction, name: str | None = None) -> Image.Image:
    """Draw the model's attention over a film, and its results below.

    The attention is shown relative to an even spread over the patches. A patch with no more than its even share stays
    grey. The colours range from there to the strongest patch of this film, but at least to twice the even share, so
    that a nearly even map stays nearly grey.

    Args:
        film: what `edgecxr.films.display.displayed` returned.
        prediction: the prediction for that film.
        name: of the film's file; None where it must not be shown.

    Returns:
        An RGB image: the film, its long side at most 1024 pixels, above a caption.
    """
    strongest = _strength(prediction.attention)[1]
    film = attention_over(film, prediction.attention)
    caption = _caption(prediction, max(film.width, SHORT_SIDE), strongest, name)
    canvas = Image.new("RGB", (caption.width, film.height + caption.height), _BACKGROUND)
    canvas.paste(film, ((canvas.width - film.width) // 2, 0))
    canvas.paste(caption, (0, film.height))
    return canvas


def research_band(picture: Image.Image) -> Image.Image:
    """Return an RGB picture below a band with `RESEARCH_USE`.

    The band is at the top because viewers may show only the top of a picture.
    """
    band = _band(RESEARCH_USE, _font(20), _POSITIVE, _BACKGROUND, picture.width)
    canvas = Image.new("RGB", (picture.width, picture.height + band.height))
    canvas.paste(band)
    canvas.paste(picture, (0, band.height))
    return canvas


def attention_over(film: Image.Image, attention: FloatArray) -> Image.Image:
    """Draw attention over a grey film in the colours of `overlay`.

    Args:
        film: the grey film.
        attention: (g, g), sums to 1.

    Returns:
        An RGB image of the film's size.
    """
    return _blend(film, _strength(attention)[0])


def attention_layer(attention: FloatArray, side: int = 128) -> Image.Image:
    """Return the colours of `attention_over`, to lay over a film.

    Args:
        attention: (g, g), sums to 1.
        side: of the picture in pixels; it is to be stretched over the film.

    Returns:
        An RGBA image, transparent where attention is low.
    """
    colours, opacity = _layer(_strength(attention)[0], (side, side))
    colours.putalpha(opacity)
    return colours


def _strength(attention: FloatArray) -> tuple[FloatArray, float]:
    """Return the strength of each patch's colour, and its scale.

    The strength is (g, g) in [0, 1]; the scale is the multiple of the even share that 1 stands for.
    """
    multiples = attention * attention.size
    strongest = max(2.0, float(multiples.max()))
    return np.clip((multiples - 1) / (strongest - 1), 0, 1).astype(np.float32), strongest


def _blend(film: Image.Image, strength: FloatArray) -> Image.Image:
    # The model saw the film squeezed into a square, so its grid covers the whole film.
    colours, opacity = _layer(strength, film.size)
    return Image.composite(colours, film.convert("RGB"), opacity)


def _layer(strength: FloatArray, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Return the colours and opacity of strengths (g, g), enlarged."""
    # Bilinear enlargement would draw a bright cross into each strong patch. Pillow clips what bicubic overshoots.
    index = Image.fromarray(np.rint(255 * strength).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    opacity = index.point(_OPACITY)
    index.putpalette(_COLOURS)
    return index.convert("RGB"), opacity


def _colours(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., 3) RGB in [0, 255] for values in [0, 1]."""
    stops = np.linspace(0, 1, len(_ANCHORS))
    return np.stack([np.interp(values, stops, channel) for channel in _ANCHORS.T], axis=-1)


_OPACITY: list[int] = np.rint(255 * _STRONGEST_ALPHA * np.linspace(0, 1, 256) ** 0.75).astype(int).tolist()
_COLOURS = np.rint(_colours(np.linspace(0, 1, 256))).astype(np.uint8).tobytes()
"""Opacity and colour of each of 256 strengths."""


class _Caption:
    """Texts, bands and drawings below each other."""

    def __init__(self, width: int) -> None:
        self._width, self.inner = width, width - 2 * _MARGIN
        self._parts: list[tuple[int, Callable[[Image.Image, ImageDraw.ImageDraw, int], None]]] = []

    def add(self, height: int, draw: Callable[[Image.Image, ImageDraw.ImageDraw, int], None]) -> None:
        """Add a part of a height in pixels.

        `draw` is called with the picture, its pen and the part's upper end.
        """
        self._parts.append((height, draw))

    def space(self, height: int) -> None:
        self.add(height, lambda *_: None)

    def text(self, text: str, font: Font, line: int, colour: Colour) -> None:
        """Add a text in as many lines as it takes."""
        self._picture(_lines(text, font, line, colour, self._width))

    def band(self, text: str, font: Font, background: Colour, colour: Colour) -> None:
        """Add a band across the picture, with a text in its middle."""
        self._picture(_band(text, font, background, colour, self._width))

    def _picture(self, picture: Image.Image) -> None:
        self.add(picture.height, lambda image, _, y: image.paste(picture, (0, y)))

    def drawn(self) -> Image.Image:
        image = Image.new("RGB", (self._width, sum(height for height, _ in self._parts)), _BACKGROUND)
        pen, y = ImageDraw.Draw(image), 0
        for height, draw in self._parts:
            draw(image, pen, y)
            y += height
        return image


# Most texts are the same for all films of a model, and drawing them takes longer than all else.
@lru_cache(32)
def _lines(text: str, font: Font, line: int, colour: Colour, width: int) -> Image.Image:
    lines = _wrapped(text, font, width - 2 * _MARGIN)
    picture = Image.new("RGB", (width, line * len(lines)), _BACKGROUND)
    for number, part in enumerate(lines):
        ImageDraw.Draw(picture).text((_MARGIN, line * number), part, colour, font)
    return picture


@lru_cache(8)
def _band(text: str, font: Font, background: Colour, colour: Colour, width: int) -> Image.Image:
    lines = _wrapped(text, font, width - 2 * _MARGIN)
    picture = Image.new("RGB", (width, _BAND + 20 * (len(lines) - 1)), background)
    for number, part in enumerate(lines):
        at = (width // 2, _BAND // 2 + 20 * number)
        ImageDraw.Draw(picture).text(at, part, colour, font, anchor="mm")
    return picture


def _caption(prediction: Prediction, width: int, strongest: float, name: str | None) -> Image.Image:
    title, body, small = map(_font, (20, 16, 13))
    caption = _Caption(width)
    if refusal := refusal_of(prediction):
        caption.band(refusal, body, _REFUSED, (255, 255, 255))
    caption.space(_MARGIN)
    if name is not None:
        caption.text(name, title, 26, _TEXT)
    caption.text(notes_of(prediction)[0], small, _LINE, _FAINT)
    caption.space(10)
    rows = _rows(prediction)
    for output in rows:
        caption.add(_ROW, partial(_row, prediction, output, caption.inner, body))
    if left := len(prediction.outputs) - len(rows):
        caption.text(f"and {left} more, below their thresholds", body, _ROW, _FAINT)
    caption.space(6)
    caption.add(_ROW, partial(_colour_bar, caption.inner, strongest, small))
    # What the model learnt from matters most; of the others there may be very many.
    warnings = sorted(prediction.warnings, key=lambda warning: warning != PHANTOM_WARNING)
    more = len(warnings) - _WARNINGS
    notes = [f"| {THRESHOLD_TICK}", *notes_of(prediction)[1:]]
    notes += [f"warning: {warning}" for warning in warnings[:_WARNINGS]]
    notes += [f"and {more} more warnings, in the JSON line and the DICOM report"] if more > 0 else []
    for note in notes:
        caption.text(note, small, _LINE, _FAINT)
    caption.space(_MARGIN)
    caption.band(NOTICE, body, _POSITIVE, _BACKGROUND)
    return caption.drawn()


def _rows(prediction: Prediction) -> list[str]:
    """Return the outputs that are drawn, in the order of the card.

    All are, or those at or above their thresholds and as many others as there is room for.
    """
    positive = [name for name in prediction.outputs if prediction.decisions[name]]
    others = [name for name in prediction.outputs if not prediction.decisions[name]]
    drawn = {ABNORMAL, *positive, *others[: max(0, _MOST_ROWS - len(positive))]}
    return [name for name in prediction.outputs if name in drawn]


def _row(
    prediction: Prediction,
    name: str,
    width: int,
    font: Font,
    _: Image.Image,
    pen: ImageDraw.ImageDraw,
    y: int,
) -> None:
    """Draw one output: name, bar, tick at the threshold, numbers."""
    colour = _POSITIVE if prediction.decisions[name] else _TEXT
    number = compared(prediction, name)
    text = 140
    bar = round((width - text) * 0.36)
    start = _MARGIN + width - bar - text
    label = marked(_fit(name, font, start - _MARGIN - 20), prediction.unreliable(name))
    pen.text((_MARGIN, y), label, colour, font)
    pen.rectangle((start, y + 6, start + bar, y + 13), fill=_TRACK)
    pen.rectangle((start, y + 6, start + round(bar * prediction.outputs[name]), y + 13), fill=colour)
    tick = start + round(bar * prediction.thresholds[name])
    pen.rectangle((tick - 2, y + 1, tick + 2, y + 18), fill=_BACKGROUND)  # apart from a bar of the same lightness
    pen.rectangle((tick - 1, y + 2, tick, y + 17), fill=_TEXT)
    pen.text((start + bar + 12, y), number, colour, font)


def _colour_bar(width: int, strongest: float, font: Font, image: Image.Image, pen: ImageDraw.ImageDraw, y: int) -> None:
    """Draw the legend of the colours, as they look over mid-grey film."""
    label = "attention, as a multiple of an even spread:  1"
    left = _MARGIN + round(pen.textlength(label, font)) + 8
    right = _MARGIN + width - 40
    pen.text((_MARGIN, y + 2), label, _FAINT, font)
    ramp = np.tile(np.linspace(0, 1, right - left, dtype=np.float32), (12, 1))
    image.paste(_blend(Image.new("L", (right - left, 12), 90), ramp), (left, y + 5))
    pen.text((right + 8, y + 2), f"{strongest:.1f}", _FAINT, font)


@lru_cache(8)
def _font(size: int) -> Font:
    return ImageFont.load_default(size)


def _wrapped(text: str, font: Font, width: int) -> list[str]:
    """Return a text in lines of at most `width` pixels.

    A word that is longer is cut into several.
    """
    lines = [""]
    for word in printable(text).split(" "):
        longer = f"{lines[-1]} {word}".lstrip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
            continue
        lines += [""] * bool(lines[-1])
        for character in word:
            if font.getlength(lines[-1] + character) > width:
                lines.append("")
            lines[-1] += character
    return lines


def _fit(text: str, font: Font, width: int) -> str:
    """Return `text`, shortened with dots if it is wider than `width` pixels."""
    text = printable(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."

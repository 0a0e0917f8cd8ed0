"""Water-equivalent thickness of a phantom's normal body along each ray.

The canvas on which bones and vessels are drawn is here too. Everything is computed on one fixed grid of `PIXEL` cm in
the coordinates of `edgecxr.phantom.anatomy`; borders that depend on only one coordinate are vectors, not images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from edgecxr.phantom.anatomy import LEFT, RIGHT, Geometry
from edgecxr.phantom.lesions import AERATION, PIXEL, Lung
from edgecxr.vocabulary import FloatArray

X = (np.arange(-300, 300, dtype=np.float32) + 0.5) * np.float32(PIXEL)
Y = (np.arange(-150, 450, dtype=np.float32) + 0.5) * np.float32(PIXEL)
_ROW, _COLUMN = Y[:, None], X[None, :]
_HALF = len(X) // 2

_ORIGIN = np.array([X[0], Y[0]], np.float64)
_LEVELS = 255 / 4.0  # grey levels per cm on a Shadows canvas


def half(image: FloatArray, side: int) -> FloatArray:
    """Return a view of the left or right half of a grid.

    Columns are counted from the midline.
    """
    return image[:, _HALF:] if side == LEFT else image[:, _HALF - 1 :: -1]


class Shadows:
    """A canvas for thin structures.

    Later shapes cover earlier ones.
    """

    def __init__(self) -> None:
        self._image = Image.new("L", (len(X), len(Y)))
        self._draw = ImageDraw.Draw(self._image)

    def polygon(self, points: NDArray[Any], value: float) -> None:
        """Fill the polygon of (K, 2) points, cm, with a thickness, cm."""
        self._draw.polygon(_pixels(points), fill=int(value * _LEVELS))

    def line(self, points: NDArray[Any], value: float, width: float) -> None:
        """Draw a line of `width` cm through (K, 2) points, cm."""
        self._draw.line(_pixels(points), fill=int(value * _LEVELS), width=max(1, round(width / PIXEL)), joint="curve")

    def lines(self, points: NDArray[Any], values: NDArray[Any], widths: NDArray[Any]) -> None:
        """Draw N lines of (N,) thicknesses and widths.

        They go through (N, K, 2) points; all values are in cm.
        """
        flat = ((points - _ORIGIN) * (1 / PIXEL)).reshape(len(points), -1).tolist()
        fills = (values * _LEVELS).astype(int).tolist()
        broad = np.maximum(1, np.rint(widths / PIXEL)).astype(int).tolist()
        draw = self._draw.draw.draw_lines
        for line, fill, width in zip(flat, fills, broad, strict=True):
            draw(line, fill, width)

    def disc(self, x: float, y: float, radius: float, value: float) -> None:
        """Fill a disc with a thickness, all values in cm."""
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        self.polygon(np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], 1), value)

    def thickness(self) -> FloatArray:
        """Return the thickness drawn so far, (600, 600) cm."""
        smooth = self._image.filter(ImageFilter.BoxBlur(0.6))
        return np.asarray(smooth, dtype=np.float32) * np.float32(1 / _LEVELS)


def _pixels(points: NDArray[Any]) -> list[float]:
    grid = (np.asarray(points) - _ORIGIN) * (1 / PIXEL)
    flat: list[float] = grid.ravel().tolist()
    return flat


def soft_body(geometry: Geometry, portable: bool) -> FloatArray:
    """Return the chord through trunk, arms and breasts.

    They count as water.

    Returns:
        (600, 600) cm.
    """
    anatomy = geometry.anatomy
    thorax = np.maximum(geometry.lateral(LEFT, Y), 0.8 * anatomy.width) + anatomy.wall + 0.8
    thorax = thorax + np.interp(Y, (3, 6, 14, 18), (0.0, 1.6, 0.8, 0.0))
    neck = 5.0 + 0.25 * anatomy.wall
    shoulder = anatomy.width + anatomy.wall + 3.0
    slope = (neck, neck, neck + 1.8, 0.62 * shoulder, 0.85 * shoulder, shoulder, shoulder, 0)
    contour = np.interp(Y, (-10, -5.5, -4.2, -2.6, -1, 1.0, 5, 10), slope)
    outer = np.maximum(contour, np.where(Y > 3, thorax, 0)).astype(np.float32)
    outer = np.convolve(np.pad(outer, 12, mode="edge"), np.full(25, 1 / 25, np.float32), "valid")
    full = 0.62 * anatomy.depth + anatomy.fat + 4.5
    depth = np.interp(Y, (-6, -3, 0, 4, 9, geometry.height, 40), (15, 15, 16.5, 0.95 * full, full, full, 1.12 * full))
    u = _COLUMN / outer[:, None]
    u *= u
    body = depth[:, None].astype(np.float32) * np.sqrt(np.clip(1 - u * u, 0, 1))

    arm = (anatomy.width + anatomy.wall, 3.5), (anatomy.width + anatomy.wall + (5.0 if portable else 8.0), 26.0)
    radius = 4.6 + 0.4 * anatomy.wall
    chord = 1.3 * _capsule(half(_COLUMN, LEFT), _ROW, *arm, radius)
    for side in (LEFT, RIGHT):
        part = half(body, side)
        np.maximum(part, chord, out=part)

    radius, thick, y, v = anatomy.breast
    if radius:
        dv, dy = (half(_COLUMN, LEFT) - v) / radius, (_ROW - y) / radius
        dy = np.where(dy < 0, 0.55 * dy, dy)  # a breast tapers upwards and has a fold below
        breast = thick * np.clip(1 - dv * dv - dy * dy, 0, 1) ** np.float32(0.7)
        for side in (LEFT, RIGHT):
            half(body, side)[:] += breast
    return body


def mediastinum(geometry: Geometry, yaw: float) -> FloatArray:
    """Return the chord through heart, great vessels and spine, (600, 600) cm."""
    anatomy, height = geometry.anatomy, geometry.height
    left, right = geometry.heart_extent
    squares = np.zeros((len(Y), len(X)), np.float32)

    def ball(x: float, y: float, rx: float, ry: float, depth: float, angle: float = 0.0) -> None:
        reach = max(rx, ry) + PIXEL
        rows = slice(*np.searchsorted(Y, (y - reach, y + reach)))
        columns = slice(*np.searchsorted(X, (x - reach, x + reach)))
        dx, dy = X[None, columns] - np.float32(x), Y[rows, None] - np.float32(y)
        along = (np.cos(angle) * dx + np.sin(angle) * dy) / rx
        aside = (np.cos(angle) * dy - np.sin(angle) * dx) / ry
        squares[rows, columns] += depth * depth * np.clip(1 - along * along - aside * aside, 0, 1)

    def tube(x: FloatArray, radius: FloatArray, depth: float, top: float, bottom: float) -> None:
        rows = slice(*np.searchsorted(Y, (top, bottom)))
        u = (_COLUMN - x[rows, None]) / radius[rows, None]
        ends = np.clip((Y[rows, None] - top) / 1.5, 0, 1) * np.clip((bottom - Y[rows, None]) / 1.5, 0, 1)
        squares[rows] += depth * depth * np.clip(1 - u * u, 0, 1) * ends

    # The silhouette: left and right borders, from the neck to the diaphragm.
    knob_y, base = 0.25 * height, geometry.dome(LEFT)
    waist = 0.36 * left + 0.9
    levels = (
        -9,
        -3,
        0.1 * height,
        knob_y,
        knob_y + 2.6,
        0.46 * height,
        0.6 * height,
        0.8 * base,
        0.93 * base,
        base + 4,
    )
    half_top = anatomy.mediastinum
    to_left = (
        1.8,
        1.6,
        0.85 * half_top,
        half_top,
        half_top,
        waist + 0.3,
        0.7 * left,
        0.97 * left,
        0.99 * left,
        0.6 * left,
    )
    to_right = (
        1.8,
        1.7,
        half_top,
        half_top,
        0.95 * half_top,
        half_top + 0.2,
        0.8 * right,
        0.99 * right,
        0.93 * right,
        0.6 * right,
    )
    edges = [
        np.convolve(np.pad(np.interp(Y, levels, e), 15, mode="edge"), np.full(31, 1 / 31), "valid")
        for e in (to_left, to_right)
    ]
    middle, wide = (edges[0] - edges[1]) / 2 + yaw, (edges[0] + edges[1]) / 2
    u = ((_COLUMN - middle[:, None]) / wide[:, None]).astype(np.float32)
    u *= u
    thick = np.interp(Y, (-9, 0, 0.4 * height, 0.75 * height, base), (6.5, 9.5, 11.0, 12.8, 12.0)).astype(np.float32)
    squares += (thick * thick)[:, None] * np.clip(1 - u * u, 0, 1)

    # The left ventricle's long axis points to the apex; its extent along x must end at the heart's left border.
    tilt = anatomy.heart_tilt
    semi = 0.5 * (left + right)
    across = semi * float(np.hypot(np.cos(tilt), 0.68 * np.sin(tilt)))
    down = semi * float(np.hypot(np.sin(tilt), 0.68 * np.cos(tilt)))
    centre = base + 0.8 - 0.9 * down
    ball(left - across + yaw, centre, semi, 0.68 * semi, 0.95 * semi, tilt)
    atrium = 0.62 * semi
    ball(-right + atrium + yaw, centre - 0.3, atrium, 1.25 * atrium, 1.0 * atrium)
    ball(1.15 + 0.6 * yaw + 0.35 * anatomy.knob, knob_y, anatomy.knob + 0.35, anatomy.knob + 0.25, 6.0)
    level = np.asarray(Y, np.float32)
    curve = anatomy.scoliosis[0] * np.sin(0.2 * level + anatomy.scoliosis[1])
    aorta = np.interp(level, (knob_y, knob_y + 6, height + 4), (1.6, 1.4, 0.3)).astype(np.float32)
    tube(aorta + curve, np.full_like(level, 1.25 + 0.1 * anatomy.knob), 2.4, knob_y - 0.5, height + 6)
    tube(curve - 0.4 * yaw, np.full_like(level, 2.1), 4.0, -9, 40)  # spine and the muscle beside it
    return np.sqrt(squares)


def lung(geometry: Geometry, side: int, mediastinal: FloatArray) -> Lung:
    """Return the rays through one lung, without vessels."""
    anatomy = geometry.anatomy
    v = X[None, _HALF:]
    medial, lateral = geometry.medial(side, Y)[:, None], geometry.lateral(side, Y)[:, None]
    across = (v - medial) / np.maximum(lateral - medial, 0.01)
    depth = anatomy.depth * np.sqrt(np.clip(Y / (0.55 * geometry.height), 0, 1) * 0.8 + 0.2) * (Y > 0)
    inside = np.clip(across, 0, 1)
    chord = depth[:, None].astype(np.float32) * np.sqrt(1 - inside * inside * inside)
    chord *= np.clip((v - medial) / 4.5 + 0.45, 0, 1)
    below = _ROW - geometry.diaphragm(side, v)
    above = np.clip(0.5 - below / 0.18, 0, 1)
    # Behind the dome the lung reaches further down.
    sulcus = np.clip(1 - below / 5.5, 0, 1)
    sulcus = 0.22 * sulcus * sulcus * np.clip((geometry.angle(side) - _ROW) / 1.5, 0, 1)
    chord *= above + (1 - above) * sulcus
    thickness = np.clip(chord - half(mediastinal, side), 0, None)
    return Lung(side, v, _ROW, across, thickness, AERATION * thickness, np.zeros_like(thickness))


def gas(geometry: Geometry, rng: np.random.Generator) -> FloatArray:
    """Return the air in airways, stomach and colon, (600, 600) cm."""
    anatomy = geometry.anatomy
    air = np.zeros((len(Y), len(X)), np.float32)
    carina = 0.34 * geometry.height
    radius = 0.85 if anatomy.male else 0.75
    rows = slice(0, int(np.searchsorted(Y, carina)))
    bend = 0.12 * anatomy.knob * np.clip(Y[rows] / carina, 0, 1) ** 3
    near = slice(_HALF - 20, _HALF + 20)
    u = (_COLUMN[:, near] + bend[:, None]) / radius
    air[rows, near] = 1.9 * radius * np.sqrt(np.clip(1 - u * u, 0, 1))
    if rng.random() < 0.75:
        width, depth = rng.uniform(1.5, 4.0), rng.uniform(2.0, 7.0)
        x, top = rng.uniform(4.0, 8.0), geometry.diaphragm(LEFT, np.array([6.0]))[0] + 0.9
        tall = rng.uniform(1.2, 2.6)
        _bubble(air, x, float(top) + 0.9 * tall, width, tall, depth, float(top) + rng.uniform(1.4, 4.0))
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(3, 12), geometry.angle(LEFT) + rng.uniform(-1.5, 6)
        rx, ry = rng.uniform(0.7, 2.0, 2)
        _bubble(air, x, float(y), rx, ry, rng.uniform(0.8, 2.5), 99.0)
    return air


def _bubble(air: FloatArray, x: float, y: float, rx: float, ry: float, depth: float, fluid: float) -> None:
    """Add a bubble of gas that ends below at the level `fluid`."""
    rows, columns = slice(*np.searchsorted(Y, (y - ry, y + ry))), slice(*np.searchsorted(X, (x - rx, x + rx)))
    dx, dy = (X[None, columns] - x) / rx, (Y[rows, None] - y) / ry
    chord = depth * np.sqrt(np.clip(1 - dx * dx - dy * dy, 0, 1))
    air[rows, columns] += chord * np.clip((fluid - Y[rows, None]) / 0.2, 0, 1)


def _capsule(
    x: FloatArray, y: FloatArray, start: tuple[float, float], end: tuple[float, float], radius: float
) -> FloatArray:
    """Return the chord through a round bar with round ends."""
    ax, ay = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * ax + (y - start[1]) * ay) / (ax * ax + ay * ay), 0, 1)
    dx, dy = x - start[0] - along * ax, y - start[1] - along * ay
    return 2 * np.sqrt(np.clip(radius * radius - dx * dx - dy * dy, 0, None))

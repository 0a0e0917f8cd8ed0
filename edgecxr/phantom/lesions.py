"""Effect of each finding on the rays through a phantom's lung.

Lengths are centimetres, in the coordinates of `edgecxr.phantom.anatomy`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from edgecxr.phantom.anatomy import Geometry
from edgecxr.vocabulary import FloatArray

AERATION = 0.74
"""Fraction of a lung's volume that is air."""

PIXEL = 0.08
"""Side of a pixel of the grid in which thicknesses are computed, cm."""


@dataclass
class Lung:
    """Rays through one lung.

    Every array is (H, n); n counts away from the midline.

    Attributes:
        side: LEFT or RIGHT.
        v: (1, n) distance from the midline, cm.
        y: (H, 1) level, cm.
        across: position between the borders, 0 at the medial and 1 at the lateral one.
        thickness: thickness of the lung along the ray, cm.
        missing: water equivalent that the air replaces, cm.
        tissue: water equivalent of vessels and lesions in the lung, cm.
    """

    side: int
    v: FloatArray
    y: FloatArray
    across: FloatArray
    thickness: FloatArray
    missing: FloatArray
    tissue: FloatArray


@dataclass(frozen=True)
class Effusion:
    """Pleural fluid: a meniscus if the patient stands, a veil if lying."""

    side: int
    height: float
    rise: float
    softness: float
    veil: float

    def apply(self, lung: Lung, geometry: Geometry) -> None:
        """Replace air with fluid."""
        bottom = geometry.angle(self.side)
        reach = np.clip(lung.v / geometry.anatomy.width, 0, 1)
        surface = bottom - self.height + self.rise * (1 - reach**3 - 0.25 * (1 - reach) ** 4)
        fluid = np.clip((lung.y - surface) / self.softness + 0.5, 0, 0.96)
        if self.veil:
            top = bottom - 2.2 * self.height
            fluid = np.maximum(0.4 * fluid, self.veil * np.clip((lung.y - top) / (bottom - top), 0, 1))
        keep = (1 - fluid).astype(np.float32)
        lung.missing *= keep
        lung.tissue *= keep

    def box(self, geometry: Geometry) -> tuple[float, float, float, float]:
        """Return (v_min, y_min, v_max, y_max)."""
        width, bottom = geometry.anatomy.width, geometry.angle(self.side)
        # Below the dome, only lateral fluid is visible.
        inner = np.interp(self.height, (2, geometry.anatomy.doming + 3), (0.6, 0.15))
        return float(inner * width), bottom - self.height * (1.6 if self.veil else 1), width, bottom + 0.3


@dataclass(frozen=True)
class Pneumothorax:
    """Air around a lung that has come away from the chest wall.

    `extent` is the fraction of the lung's height that has come away.
    """

    side: int
    apical: float
    lateral: float
    extent: float

    def edge(self, geometry: Geometry, y: FloatArray) -> FloatArray:
        """Return the visceral pleura's distance from the midline at level `y`."""
        gap = np.clip(1 - y / (self.extent * geometry.height), 0, 1)
        lowered = geometry.lateral(self.side, y - self.apical * gap) - self.lateral * gap**0.7
        return np.where(y > self.apical, lowered, 0).astype(np.float32)

    def apply(self, lung: Lung, geometry: Geometry) -> None:
        """Leave only air in the rim, and draw the pleural line."""
        edge = self.edge(geometry, lung.y[:, 0])[:, None]
        outside = np.clip((lung.v - edge) / 0.12, 0, 1)
        # The lung also retracts in front and behind, so the rim's edge is soft except for the line.
        lung.missing += (0.97 - AERATION) * lung.thickness * outside
        lung.tissue *= 1 - outside
        loose = np.clip((1 - lung.y / (self.extent * geometry.height)) * 4, 0, 1)
        distance = (lung.v - edge) / 0.11
        line = np.exp(-0.5 * distance * distance) * loose
        top = (lung.y - self.apical) / 0.11
        line = np.maximum(line, np.exp(-0.5 * top * top) * (np.abs(lung.v - edge) < 0.3))
        lung.tissue += 0.38 * line * np.clip(lung.thickness / 4, 0, 1)

    def box(self, geometry: Geometry) -> tuple[float, float, float, float]:
        """Return (v_min, y_min, v_max, y_max)."""
        bottom = 0.85 * self.extent * geometry.height
        levels = np.array([self.apical + 0.4], np.float32)
        inner = float(self.edge(geometry, levels)[0])
        outer = float(geometry.lateral(self.side, np.array([bottom]))[0])
        return min(inner, outer - self.lateral) - 0.4, 0.1, outer, max(bottom, self.apical + 2)


@dataclass(frozen=True)
class Opacity:
    """Patch of consolidated or hazy lung."""

    side: int
    v: float
    y: float
    radius_v: float
    radius_y: float
    density: float
    seed: int

    def apply(self, lung: Lung, geometry: Geometry) -> None:
        """Fill air spaces unevenly."""
        rows, columns = _part(lung, self.v, self.y, 1.25 * self.radius_v, 1.25 * self.radius_y)
        dv, dy = (lung.v[:, columns] - self.v) / self.radius_v, (lung.y[rows] - self.y) / self.radius_y
        shape = (dy.shape[0], dv.shape[1])
        if 0 in shape:
            return
        rng = np.random.default_rng(self.seed)
        near = 0.8 + 0.4 * texture(rng, shape, 1.5) + 0.12 * texture(rng, shape, 0.4) - (dv * dv + dy * dy)
        fade = np.clip(3 - 2 * (dv * dv + dy * dy), 0, 1)
        lung.tissue[rows, columns] += self.density * fade * np.clip(near, 0, 1.2) ** 1.3

    def box(self, geometry: Geometry) -> tuple[float, float, float, float]:
        """Return (v_min, y_min, v_max, y_max)."""
        return self.v - self.radius_v, self.y - self.radius_y, self.v + self.radius_v, self.y + self.radius_y


@dataclass(frozen=True)
class Nodule:
    """A round lesion, lobulated if it is large."""

    side: int
    v: float
    y: float
    radius: float
    density: float
    lobes: tuple[float, float]

    def apply(self, lung: Lung, geometry: Geometry) -> None:
        """Add the chord of a ball."""
        rows, columns = _part(lung, self.v, self.y, 1.4 * self.radius, 1.4 * self.radius)
        dv, dy = lung.v[:, columns] - self.v, lung.y[rows] - self.y
        strength, phase = self.lobes
        radius = self.radius * (1 + strength * np.sin(3 * np.arctan2(dy, dv) + phase))
        chord = 2 * np.sqrt(np.clip(radius**2 - dv * dv - dy * dy, 0, None))
        lung.tissue[rows, columns] += self.density * chord

    def box(self, geometry: Geometry) -> tuple[float, float, float, float]:
        """Return (v_min, y_min, v_max, y_max)."""
        radius = self.radius * (1 + self.lobes[0])
        return self.v - radius, self.y - radius, self.v + radius, self.y + radius


@dataclass(frozen=True)
class Fibrosis:
    """Fine reticulation of both bases and of the periphery."""

    side: int
    strength: float
    top: float
    mesh: float
    seed: int

    def apply(self, lung: Lung, geometry: Geometry) -> None:
        """Add a net of fine lines over a faint haze."""
        begin, end = self.top * geometry.height, geometry.dome(self.side)
        rows = slice(int(np.searchsorted(lung.y[:, 0], begin)), int(np.searchsorted(lung.y[:, 0], end + 3)))
        across = lung.across[rows]
        weight = np.clip((lung.y[rows] - begin) / (end - begin), 0, 1) * (0.35 + 0.65 * np.clip(across, 0, 1) ** 2)
        rng = np.random.default_rng(self.seed)
        shape = across.shape
        net = np.clip(1 - 1.7 * np.abs(texture(rng, shape, self.mesh)), 0, None)
        net += 0.7 * np.clip(1 - 1.7 * np.abs(texture(rng, shape, 0.6 * self.mesh)), 0, None)
        patchy = np.clip(0.9 + 0.5 * texture(rng, shape, 3.0), 0.1, 1.6)
        lung.tissue[rows] += self.strength * weight * patchy * (2.5 * net + 0.45)

    def box(self, geometry: Geometry) -> tuple[float, float, float, float]:
        """Return (v_min, y_min, v_max, y_max)."""
        return 3.0, (self.top + 0.12) * geometry.height, geometry.anatomy.width, geometry.angle(self.side)


Lesion = Effusion | Pneumothorax | Opacity | Nodule | Fibrosis


def _part(lung: Lung, v: float, y: float, dv: float, dy: float) -> tuple[slice, slice]:
    rows = np.searchsorted(lung.y[:, 0], (y - dy, y + dy))
    columns = np.searchsorted(lung.v[0], (v - dv, v + dv))
    return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))


def texture(rng: np.random.Generator, shape: tuple[int, int], cell: float) -> FloatArray:
    """Return smooth noise with details of about `cell` cm.

    Its variance is roughly 1.
    """
    size = (max(2, int(shape[0] * PIXEL / cell) + 2), max(2, int(shape[1] * PIXEL / cell) + 2))
    coarse = Image.fromarray(1.3 * rng.standard_normal(size, dtype=np.float32))
    return np.asarray(coarse.resize((shape[1], shape[0]), Image.Resampling.BICUBIC))

"""Simulate the detector: from a phantom's thickness per ray to a film."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from edgecxr.phantom import body
from edgecxr.phantom.anatomy import (
    LEFT,
    RIGHT,
    Anatomy,
    Exposure,
    Geometry,
    patient_of,
    sample_anatomy,
    sample_exposure,
    stream,
)
from edgecxr.phantom.disease import LABELS, Disease, sample_disease, sample_presence
from edgecxr.phantom.lesions import AERATION, PIXEL, texture
from edgecxr.phantom.structures import bones, leads, vessels
from edgecxr.vocabulary import FloatArray

Box = tuple[str, float, float, float, float]
"""Label, x_min, y_min, x_max and y_max."""

_ATTENUATION = np.float32(0.19)  # attenuation of water at the mean energy of a chest film, 1/cm


@dataclass(frozen=True)
class FilmPlan:
    """Random draws of one film, made before any pixel; cheap.

    Attributes:
        index: number of the film.
        patient: number of the patient.
        anatomy: the patient's body.
        exposure: how the film is taken.
        disease: the findings and their form.
    """

    index: int
    patient: int
    anatomy: Anatomy
    exposure: Exposure
    disease: Disease

    @property
    def geometry(self) -> Geometry:
        """Borders of lungs, heart and diaphragm on this film."""
        height = self.anatomy.height * self.exposure.inspiration
        return Geometry(self.anatomy, height, self.disease.heart_ratio)

    def boxes(self) -> list[Box]:
        """Return the boxes of all findings, in pixels, clipped to the film."""
        geometry = self.geometry
        boxes = []
        if "Cardiomegaly" in self.disease.present:
            left, right = geometry.heart_extent
            bottom = geometry.dome(LEFT) + 0.8
            shift = self.exposure.yaw
            boxes.append(("Cardiomegaly", -right + shift, bottom - 0.72 * (left + right), left + shift, bottom))
        for label, lesion in self.disease.lesions:
            v0, y0, v1, y1 = lesion.box(geometry)
            x0, x1 = (v0, v1) if lesion.side == LEFT else (-v1, -v0)
            boxes.append((label, x0, y0, x1, y1))
        return [(label, *self._to_pixels(*corners)) for label, *corners in boxes]

    def _to_pixels(self, x0: float, y0: float, x1: float, y1: float) -> tuple[float, float, float, float]:
        shot = self.exposure
        cos, sin = np.cos(shot.roll), np.sin(shot.roll)
        dx = np.array([x0, x1, x0, x1]) - shot.centre[0]
        dy = np.array([y0, y0, y1, y1]) - shot.centre[1]
        columns = np.clip((cos * dx + sin * dy) / shot.spacing + shot.columns / 2, 0, shot.columns - 1)
        rows = np.clip((cos * dy - sin * dx) / shot.spacing + shot.rows / 2, 0, shot.rows - 1)
        # The corners of a rotated box reach beyond the finding; their means do not.
        (a, b), (c, d) = np.sort(columns).reshape(2, 2).mean(1), np.sort(rows).reshape(2, 2).mean(1)
        return round(float(a), 1), round(float(c), 1), round(float(b), 1), round(float(d), 1)


def plan(seed: int, index: int, findings: Collection[str] | None = None) -> FilmPlan:
    """Draw the plan of film `index`.

    Args:
        seed: seed of the data set.
        index: number of the film, from 0.
        findings: labels to use instead of the drawn ones; everything else stays the same.

    Raises:
        ValueError: an unknown label.
    """
    if findings is not None and (unknown := set(findings) - set(LABELS)):
        raise ValueError(f"not findings of the phantom: {sorted(unknown)}")
    patient = patient_of(index)
    anatomy = sample_anatomy(seed, patient)
    drawn = sample_presence(seed, index)
    exposure = sample_exposure(seed, index, anatomy, bedridden=bool(drawn))
    geometry = Geometry(anatomy, anatomy.height * exposure.inspiration, anatomy.heart_ratio)
    disease = sample_disease(seed, index, drawn if findings is None else findings, geometry)
    return FilmPlan(index, patient, anatomy, exposure, disease)


@dataclass(frozen=True)
class PhantomFilm:
    """A synthetic film and its findings.

    Attributes:
        pixels: (H, W) float32 in [0, 1]; air is black.
        findings: whether each of `LABELS` is present.
        boxes: label, x_min, y_min, x_max, y_max in pixels.
        view: "PA" or "AP".
        plan: the random draws from which it was made.
    """

    pixels: FloatArray
    findings: dict[str, bool]
    boxes: list[Box]
    view: str
    plan: FilmPlan


def render(seed: int, index: int, findings: Collection[str] | None = None) -> PhantomFilm:
    """Make film `index` of the data set `seed`.

    The film is the same on every run.

    Args:
        seed: seed of the data set, not negative.
        index: number of the film, from 0.
        findings: labels to use instead of the drawn ones; patient, exposure and noise stay the same.

    Raises:
        ValueError: an unknown label.
    """
    film = plan(seed, index, findings)
    present = {label: label in film.disease.present for label in LABELS}
    return PhantomFilm(expose(film, seed), present, film.boxes(), film.exposure.view, film)


def expose(film: FilmPlan, seed: int) -> FloatArray:
    """Return the film's pixels, (rows, columns) float32 in [0, 1], air black."""
    shot = film.exposure
    rng = stream(seed, film.index, 5)
    water, lungs = _thickness(film, rng)
    # Rotate and scale to the film: each output pixel (column, row) is looked up in the grid.
    scale = shot.spacing / PIXEL
    a, b = scale * np.cos(shot.roll), scale * np.sin(shot.roll)
    x0 = (shot.centre[0] - body.X[0]) / PIXEL + 0.5 - a * shot.columns / 2 + b * shot.rows / 2
    y0 = (shot.centre[1] - body.Y[0]) / PIXEL + 0.5 - b * shot.columns / 2 - a * shot.rows / 2
    size, how = (shot.columns, shot.rows), Image.Resampling.BILINEAR
    grid = Image.fromarray(np.exp(-_ATTENUATION * water))
    primary = np.array(grid.transform(size, Image.Transform.AFFINE, (a, -b, x0, b, a, y0), how))
    primary[primary == 0] = 1
    # A quarter of the size is enough to find the lungs.
    coarse = ((shot.columns + 3) // 4, (shot.rows + 3) // 4)
    sparse = (4 * a, -4 * b, x0, 4 * b, 4 * a, y0)
    field = np.asarray(Image.fromarray(lungs).transform(coarse, Image.Transform.AFFINE, sparse))

    window = _exposed(shot)
    dose = np.zeros_like(primary)
    dose[window] = _blur(primary, shot.blur)[window]
    scattered = shot.scatter * 0.09 * _spread(np.sqrt(np.minimum(dose, 0.3)) / 0.3, 3.2 / shot.spacing)
    signal = dose + scattered + np.float32(1e-4)
    quanta = _blur(rng.standard_normal(signal.shape, dtype=np.float32), 0.45)
    signal *= 1 + shot.noise * np.sqrt(0.14 / (signal + 0.004)) * quanta
    density = -np.log(np.maximum(signal, np.float32(2e-4)))
    return _develop(density, field > 4, window, shot)


def _thickness(film: FilmPlan, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return water equivalent and lung thickness per ray, (600, 600) cm."""
    shot, geometry = film.exposure, film.geometry
    water = body.soft_body(geometry, shot.view == "AP")
    inner = body.mediastinum(geometry, shot.yaw)
    tree = vessels(geometry, shot.yaw)
    field = np.zeros_like(water)
    mottle = texture(rng, water.shape, 0.35)
    mottle = mottle + 1.2 * texture(rng, water.shape, 1.6)
    tilt = 0.02 * shot.yaw
    for side in (LEFT, RIGHT):
        lung = body.lung(geometry, side, inner)
        lung.tissue += body.half(tree, side) + 0.014 * lung.thickness * body.half(mottle, side)
        for _, lesion in film.disease.lesions:
            if lesion.side == side:
                lesion.apply(lung, geometry)
        room = np.minimum(lung.thickness * (1 / 2.5), 1)
        tissue = np.minimum(lung.tissue * room, 0.92 * AERATION * lung.thickness)
        body.half(water, side)[:] += (tissue - lung.missing) * (1 + side * tilt)
        body.half(field, side)[:] = lung.thickness
    water -= body.gas(geometry, rng)
    abdomen = np.clip((body.Y - geometry.height) / 4, 0, 1)[:, None]
    water += 0.12 * abdomen * mottle * (water > 3)
    np.maximum(water, 0, out=water)
    water += bones(geometry, shot, rng) * np.minimum(water, 1)
    if shot.leads:
        water += leads(rng, geometry)
    return water, field


def _exposed(shot: Exposure) -> tuple[slice, slice]:
    left, top, right, bottom = shot.borders
    return (
        slice(int(top * shot.rows), int((1 - bottom) * shot.rows)),
        slice(int(left * shot.columns), int((1 - right) * shot.columns)),
    )


def _develop(density: FloatArray, lung: NDArray[np.bool_], window: tuple[slice, slice], shot: Exposure) -> FloatArray:
    """Turn log exposure into grey as a digital system does.

    The grey range spans from the lungs to the mediastinum; a display curve follows.
    """
    if shot.sharpening:
        density = density + shot.sharpening * (density - _spread(density, 2.0 / shot.spacing))
    step = (slice(None, None, 4), slice(None, None, 4))
    exposed = density[window][step]
    dark = float(np.median(density[step][lung]))
    bright = float(np.percentile(exposed[exposed > 0.8], 96))
    grey = 0.31 + shot.brightness + shot.contrast * 0.58 * (density - dark) / max(bright - dark, 0.4)
    # A sigmoid: film has a toe and a shoulder, not hard ends.
    grey = 1 / (1 + np.exp(-4.6 * (grey - 0.5)))
    grey = np.clip((grey - 0.085) / 0.86, 0, 1)
    film = np.full_like(grey, 0.97 if shot.border_white else 0.0)
    film[window] = grey[window]
    if shot.marker or shot.view == "AP":
        _burn_in(film, shot)
    return film


def _burn_in(film: FloatArray, shot: Exposure) -> None:
    ink = Image.new("L", (shot.columns, shot.rows))
    draw = ImageDraw.Draw(ink)
    side = 0.07 if shot.marker == "R" else 0.9
    if shot.marker:
        place = (side * shot.columns, (0.06 + abs(shot.centre[0]) * 0.06) * shot.rows)
        draw.text(place, shot.marker, fill=255, font=_font(int(1.9 / shot.spacing)))
    if shot.view == "AP" and shot.leads:
        draw.text((0.08 * shot.columns, 0.93 * shot.rows), "PORTABLE", fill=240, font=_font(int(0.8 / shot.spacing)))
    film[:] = np.maximum(film, np.asarray(ink, dtype=np.float32) / 255)


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _blur(image: FloatArray, sigma: float) -> FloatArray:
    """Blur by a few pixels, repeating the border."""
    radius = max(1, int(2.5 * sigma + 0.5))
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2).astype(np.float32)
    kernel /= kernel.sum()
    for axis in (0, 1):
        pad = [(radius, radius) if axis == a else (0, 0) for a in (0, 1)]
        wide = np.pad(image, pad, mode="edge")
        length = image.shape[axis]
        image = kernel[0] * wide.take(range(length), axis)
        for offset in range(1, 2 * radius + 1):
            part = (
                (slice(offset, offset + length), slice(None))
                if axis == 0
                else (slice(None), slice(offset, offset + length))
            )
            image += kernel[offset] * wide[part]
    return image


def _spread(image: FloatArray, sigma: float) -> FloatArray:
    """Blur by many pixels, on a coarse copy for speed."""
    rows, columns = image.shape
    step = max(2, int(sigma / 2.5))
    small = Image.fromarray(image).resize((columns // step + 1, rows // step + 1), Image.Resampling.BOX)
    coarse = _blur(np.asarray(small), sigma / step)
    return np.asarray(Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC))

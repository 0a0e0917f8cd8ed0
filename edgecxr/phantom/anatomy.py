"""Synthetic patients and their position in front of the detector.

Lengths are centimetres in the detector plane. x grows to the right of the film (the patient's left) from the midline, y
grows downwards from the level of the lung apices. `v` is the distance from the midline on either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecxr.vocabulary import FloatArray

FILMS_PER_BLOCK = 8
_PATIENT_OF_FILM = (0, 0, 1, 2, 3, 3, 4, 5)  # two of six patients have two films
PATIENTS_PER_BLOCK = 6

LEFT, RIGHT = 1, -1

# A lung's lateral and medial borders, as fractions of its height and of its greatest half width.
_LEVELS = (0.0, 0.012, 0.04, 0.09, 0.16, 0.25, 0.38, 0.52, 0.68, 0.85, 1.0, 1.2)
_LATERAL = (0.34, 0.425, 0.515, 0.63, 0.745, 0.835, 0.91, 0.96, 0.99, 1.0, 1.0, 0.97)
_MEDIAL = (0.34, 0.28, 0.235, 0.19, 0.16, 0.14, 0.12, 0.11, 0.11, 0.11, 0.11, 0.11)


def patient_of(index: int) -> int:
    """Return the number of the patient on film `index`."""
    block, place = divmod(index, FILMS_PER_BLOCK)
    return PATIENTS_PER_BLOCK * block + _PATIENT_OF_FILM[place]


def stream(seed: int, number: int, purpose: int) -> np.random.Generator:
    """Return a random generator for one purpose of one patient or film.

    Its numbers are independent of those of all other purposes, patients and films.
    """
    return np.random.default_rng([purpose, number, seed])


@dataclass(frozen=True)
class Anatomy:
    """A patient's body, the same on all films of the patient.

    Attributes:
        male: sex.
        age: years.
        height: height of the lungs from apex to the right dome at full inspiration, cm.
        width: greatest half width of the thoracic cavity, cm.
        depth: greatest depth of the lungs, cm.
        wall: thickness of the lateral body wall, cm.
        fat: depth of the body in front of and behind the lungs, cm.
        heart_ratio: cardiothoracic ratio without disease, below 0.5.
        heart_tilt: angle of the heart's long axis below the horizontal, radians.
        heart_right: fraction of the heart's width right of the midline.
        knob: radius of the aortic knob, cm.
        mediastinum: half width of the upper mediastinum, cm.
        left_lower: distance of the left dome below the right one, cm.
        doming: drop of the diaphragm from dome to lateral angle, cm.
        rib_drop: drop of the ribs from back to front, cm.
        rib_thickness: water equivalent of a rib, cm.
        bone: relative density of all bones.
        breast: (radius, thickness, y of the centre, v of the centre), cm; radius 0 if none is visible.
        scoliosis: amplitude and phase of the spine's curve, cm and radians.
        trees: seed of the vessel trees.
    """

    male: bool
    age: int
    height: float
    width: float
    depth: float
    wall: float
    fat: float
    heart_ratio: float
    heart_tilt: float
    heart_right: float
    knob: float
    mediastinum: float
    left_lower: float
    doming: float
    rib_drop: float
    rib_thickness: float
    bone: float
    breast: tuple[float, float, float, float]
    scoliosis: tuple[float, float]
    trees: int


def sample_anatomy(seed: int, patient: int) -> Anatomy:
    """Draw patient number `patient`."""
    rng = stream(seed, patient, 1)
    male = bool(rng.random() < 0.52)
    age = int(np.clip(rng.normal(54, 17), 18, 92))
    size = float(np.clip(rng.normal(1.0 if male else 0.94, 0.045), 0.84, 1.12))
    stout = float(rng.gamma(2.2, 0.45))  # 1 is typical, 3 is obese
    height = 20.3 * size * rng.uniform(0.92, 1.08)
    radius = 0.0 if male else rng.uniform(4.5, 6.5) + 0.7 * stout
    return Anatomy(
        male=male,
        age=age,
        height=height,
        width=13.2 * size * rng.uniform(0.93, 1.07),
        depth=15.0 * size * rng.uniform(0.88, 1.1),
        wall=float(np.clip(1.3 + 1.1 * stout, 1.4, 5.5)),
        fat=5.0 + 2.2 * stout,
        heart_ratio=float(np.clip(rng.normal(0.447, 0.03), 0.37, 0.494)),
        heart_tilt=rng.uniform(0.5, 0.95),
        heart_right=rng.uniform(0.28, 0.37),
        knob=float(np.clip(rng.normal(1.55 + 0.007 * (age - 50), 0.16), 1.2, 2.2)),
        mediastinum=rng.uniform(2.0, 2.8) + 0.1 * stout,
        left_lower=float(np.clip(rng.normal(1.2, 0.5), -0.2, 2.4)),
        doming=rng.uniform(3.2, 5.2),
        rib_drop=rng.uniform(7.5, 10.5) * size,
        rib_thickness=rng.uniform(0.75, 1.2),
        bone=float(np.clip(rng.normal(1.0 - 0.004 * (age - 50), 0.12), 0.6, 1.3)),
        breast=(radius, rng.uniform(0.25, 0.42) * radius, height * rng.uniform(0.72, 0.86), rng.uniform(7.0, 8.6)),
        scoliosis=(rng.normal(0, 0.25) if rng.random() < 0.8 else rng.normal(0, 0.9), rng.uniform(0, 6.3)),
        trees=int(rng.integers(1 << 31)),
    )


@dataclass(frozen=True)
class Exposure:
    """Acquisition settings of one film.

    Attributes:
        view: "PA" or "AP"; "AP" means a portable film of a patient in bed.
        inspiration: lung height as a fraction of that at full inspiration.
        rows, columns: size of the film in pixels.
        spacing: side of a pixel, cm.
        roll: rotation in the plane of the film, radians.
        yaw: rotation about the patient's long axis, as the shift of anterior against posterior structures, cm.
        centre: (x, y) of the film's centre, cm.
        scatter: scattered fraction of the radiation behind an average body.
        noise: relative quantum noise behind the lungs.
        blur: standard deviation of the unsharpness, pixels.
        contrast, brightness: parameters of the display curve; 1 and 0 are typical.
        sharpening: strength of the processing that raises local contrast.
        borders: unexposed fractions of the film at (left, top, right, bottom).
        border_white: whether these borders stay white instead of being blackened.
        marker: burnt-in letter: "L", "R" or "".
        leads: whether ECG leads lie on the patient.
    """

    view: str
    inspiration: float
    rows: int
    columns: int
    spacing: float
    roll: float
    yaw: float
    centre: tuple[float, float]
    scatter: float
    noise: float
    blur: float
    contrast: float
    brightness: float
    sharpening: float
    borders: tuple[float, float, float, float]
    border_white: bool
    marker: str
    leads: bool


def sample_exposure(seed: int, index: int, anatomy: Anatomy, bedridden: bool) -> Exposure:
    """Draw the acquisition settings of film `index`.

    Bedridden patients have portable films more often.
    """
    rng = stream(seed, index, 2)
    portable = bool(rng.random() < (0.42 if bedridden else 0.12))
    inspiration = rng.uniform(0.8, 0.97) if portable else float(np.clip(rng.normal(0.97, 0.035), 0.84, 1.04))
    long = int(rng.integers(560, 641))
    short = int(np.clip(long * rng.choice([0.814, 0.814, 0.9, 1.0]), 480, 640))
    landscape = rng.random() < (0.7 if portable else 0.3)
    rows, columns = (short, long) if landscape else (long, short)
    # The film must show the whole thorax, whose size therefore sets the size of the field.
    need = max((2 * anatomy.width + 4) / columns, (anatomy.height * inspiration + 8.5) / rows)
    spacing = min(round(float(need * rng.uniform(1.03, 1.18)), 5), 44 / rows)
    roll = float(np.clip(rng.normal(0, 0.035 if portable else 0.016), -0.09, 0.09))
    # Neck and belly must extend beyond the film's edges; the body is computed from y = -12 to 36.
    reach = spacing * (rows + abs(np.sin(roll)) * columns) / 2
    level = float(np.clip(anatomy.height * inspiration * rng.uniform(0.5, 0.6), reach - 11.8, 35.8 - reach))
    borders = rng.uniform(0, 0.05, 4) * (rng.random(4) < 0.25)
    return Exposure(
        view="AP" if portable else "PA",
        inspiration=inspiration,
        rows=rows,
        columns=columns,
        spacing=spacing,
        roll=roll,
        yaw=float(np.clip(rng.normal(0, 0.8 if portable else 0.35), -2, 2)),
        centre=(rng.normal(0, 0.6), level),
        scatter=rng.uniform(0.25, 0.5) if portable else rng.uniform(0.12, 0.3),
        noise=rng.uniform(0.012, 0.035) if portable else rng.uniform(0.006, 0.02),
        blur=rng.uniform(0.75, 1.3) if portable else rng.uniform(0.55, 0.9),
        contrast=rng.uniform(0.82, 1.15),
        brightness=float(np.clip(rng.normal(0, 0.045), -0.09, 0.12)),
        sharpening=rng.choice([0.0, 0.0, 0.25, 0.5]),
        borders=(float(borders[0]), float(borders[1]), float(borders[2]), float(borders[3])),
        border_white=bool(rng.random() < 0.4),
        marker=str(rng.choice(["", "L", "R"], p=[0.35, 0.35, 0.3])),
        leads=bool(portable and rng.random() < 0.6),
    )


@dataclass(frozen=True)
class Geometry:
    """Borders of lungs, heart and diaphragm on one film, cm."""

    anatomy: Anatomy
    height: float
    heart_ratio: float

    @property
    def heart_extent(self) -> tuple[float, float]:
        """Extent of the heart to the (left, right) of the midline."""
        width = self.heart_ratio * 2 * self.anatomy.width
        right = width * self.anatomy.heart_right
        return width - right, right

    def dome(self, side: int) -> float:
        """Return the level of the diaphragm's dome."""
        return self.height + (self.anatomy.left_lower if side == LEFT else 0.0)

    def angle(self, side: int) -> float:
        """Return the level of the lateral costophrenic angle."""
        return self.dome(side) + self.anatomy.doming

    def lateral(self, side: int, y: NDArray[np.floating]) -> FloatArray:
        """Return the distance of the lung's lateral border from the midline.

        Args:
            side: LEFT or RIGHT.
            y: levels; above the lung, the distance is 0.
        """
        return self._border(_LATERAL, side, y)

    def medial(self, side: int, y: NDArray[np.floating]) -> FloatArray:
        """Return the distance of the lung's medial border from the midline.

        The heart is left out. Above the lung, the distance is 0.
        """
        return self._border(_MEDIAL, side, y)

    def diaphragm(self, side: int, v: NDArray[np.floating]) -> FloatArray:
        """Return the level of the diaphragm at distance `v` from the midline."""
        middle = 0.47 * self.anatomy.width
        lateral = np.clip((v - middle) / (self.anatomy.width - middle), 0, None)
        medial = np.clip((middle - v) / middle, 0, None)
        fall = self.anatomy.doming * (0.35 * lateral**2 + 0.65 * lateral**4) + 1.8 * medial**2
        return (self.dome(side) + fall).astype(np.float32)

    def _border(self, curve: tuple[float, ...], side: int, y: NDArray[np.floating]) -> FloatArray:
        # The square root gives the apex its round shape.
        levels = np.sqrt(_LEVELS)
        fraction = np.sqrt(np.clip(y / self.angle(side), 0, None))
        border = self.anatomy.width * np.interp(fraction, levels, curve)
        return np.where(y < 0, 0, border).astype(np.float32)

"""Bones, pulmonary vessels and ECG leads of a phantom.

They are drawn on the grid of `edgecxr.phantom.body`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecxr.phantom.anatomy import LEFT, RIGHT, Exposure, Geometry
from edgecxr.phantom.body import Shadows, X, Y
from edgecxr.vocabulary import FloatArray

Points = NDArray[Any]


def bones(geometry: Geometry, exposure: Exposure, rng: np.random.Generator) -> FloatArray:
    """Return the excess water equivalent of all bones.

    Excess means beyond that of the soft tissue they replace.

    Returns:
        (600, 600) cm.
    """
    back, front = Shadows(), Shadows()
    _ribs(geometry, exposure, back, front, rng)
    rest = Shadows()  # one canvas is enough: spine and shoulders hardly overlap
    _spine(geometry, exposure, rest, rng)
    _shoulder_girdle(geometry, exposure, rest, rng)
    ribs = geometry.anatomy.rib_thickness * (back.thickness() + 0.8 * front.thickness())
    # At the sides, where ribs turn, rays run along them.
    turn = np.clip((np.abs(X) - 0.72 * geometry.anatomy.width) / (0.3 * geometry.anatomy.width), 0, 1)
    ribs *= 1 + 0.5 * turn * turn
    total: FloatArray = np.float32(geometry.anatomy.bone) * (ribs + rest.thickness())
    return total


def _band(points: Points, width: Points | float) -> tuple[Points, Points]:
    """Return the two edges of a band `width` cm wide."""
    tangent = np.gradient(points, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], 1) / np.hypot(tangent[:, 0], tangent[:, 1])[:, None]
    offset = 0.5 * np.reshape(width, (-1, 1)) * normal
    return points + offset, points - offset


def _bone(canvas: Shadows, points: Points, width: Points | float, value: float, cortex: float) -> None:
    edge, opposite = _band(points, width)
    canvas.polygon(np.concatenate([edge, opposite[::-1]]), value)
    canvas.line(edge, cortex, 0.16)
    canvas.line(opposite, cortex, 0.16)


def _ribs(geometry: Geometry, exposure: Exposure, back: Shadows, front: Shadows, rng: np.random.Generator) -> None:
    anatomy = geometry.anatomy
    # Ribs scale with the patient, lungs with the inspiration: a shallow breath shows fewer ribs.
    spacing = anatomy.height / 9.2
    arch = rng.uniform(0.6, 1.8)
    steep = rng.uniform(0.9, 1.1)
    for side in (LEFT, RIGHT):
        for number in range(11):
            first = (-0.7 + spacing * number if number else 0.6) + rng.normal(0, 0.08)
            drop = anatomy.rib_drop * float(np.interp(number, (0, 1, 3, 7, 10), (0.38, 0.6, 0.9, 1.1, 1.0))) * steep
            level = np.array([max(first + 0.5 * drop - arch, 0.5)])
            bow = arch if number else 0.7 * arch
            reach = float(geometry.lateral(side, level)[0]) + 0.25
            width = rng.uniform(0.95, 1.2) * float(np.interp(number, (0, 2, 9), (1.1, 1.0, 1.05)))
            for canvas, begin, end, depth in (
                (back, 0.16, 1.57, -0.35),
                (front, 1.57, np.interp(number, (0, 6, 7, 10), (2.35, 2.3, 2.1, 1.7)), 0.35),
            ):
                phi = np.linspace(begin, float(end), 16)
                v = reach * np.sin(phi) ** 0.9
                y = first + 0.5 * drop * (1 - np.cos(phi)) - bow * np.sin(phi) ** 2 + 0.15 * np.sin(3 * phi + number)
                points = np.stack([side * v + depth * exposure.yaw, y], 1)
                broad = width * (np.linspace(0.95, 0.7, 16) if canvas is back else np.linspace(0.7, 1.3, 16))
                _bone(canvas, points, broad, 0.95, 1.5)


def _shoulder_girdle(geometry: Geometry, exposure: Exposure, canvas: Shadows, rng: np.random.Generator) -> None:
    width = geometry.anatomy.width
    portable = exposure.view == "AP"
    outward = rng.uniform(-2.2, -0.6) if portable else rng.uniform(-1.0, 0.5)
    raised = rng.uniform(-1.6, 0.4) if portable else rng.uniform(-0.6, 1.0)
    for side in (LEFT, RIGHT):
        lift = raised + rng.normal(0, 0.25)

        def place(v: Points, y: Points, side: int = side, lift: float = lift) -> Points:
            return np.stack([side * np.asarray(v) * width / 13.2, np.asarray(y) + lift], 1)

        # Scapula: a thin plate with a thick lateral border, a spine, and the glenoid.
        plate = place(
            outward + np.array([10.6, 11.6, 14.0, 15.2, 15.6, 14.2, 12.6, 11.5, 10.9]),
            np.array([4.0, 1.4, 1.6, 2.4, 4.2, 7.5, 12.5, 14.6, 10.0]),
        )
        canvas.polygon(plate, 0.35)
        canvas.line(plate[[4, 5, 6, 7]], 1.1, 0.45)
        canvas.line(plate[[7, 8, 0, 1]], 0.7, 0.18)
        _bone(canvas, place(outward + np.array([11.4, 14.0, 16.8]), np.array([3.6, 1.6, 0.2])), 1.2, 0.75, 1.1)
        head = place(np.array([outward + 17.4]), np.array([3.1]))[0]
        shaft = place(outward + np.array([17.7, 18.5, 19.8, 21.5]), np.array([3.8, 7.0, 13.0, 22.0]))
        _bone(canvas, shaft, 2.1, 1.1, 1.9)
        canvas.disc(float(head[0]), float(head[1]), 2.25, 1.7)
        t = np.linspace(0, 1, 14)
        clavicle = place(
            1.9 + 14.2 * t, 3.0 - 2.6 * t + 0.75 * np.sin(2 * np.pi * (t - 0.08)) + (0.0 if portable else 0.3)
        )
        clavicle[:, 0] += 0.45 * exposure.yaw
        _bone(canvas, clavicle, 1.0 + 0.6 * (1 - t) ** 4 + 0.35 * t**3, 1.2, 1.8)


def _spine(geometry: Geometry, exposure: Exposure, canvas: Shadows, rng: np.random.Generator) -> None:
    amplitude, phase = geometry.anatomy.scoliosis
    shift = -0.4 * exposure.yaw
    spacing = geometry.anatomy.height / 9.2
    level = -9.5
    edge = np.interp(Y, (-9, 0, 10, 30), (0.9, 1.25, 1.35, 1.9))
    middle = shift + amplitude * np.sin(0.2 * Y + phase)
    outline = np.concatenate([np.stack([middle - edge, Y], 1), np.stack([middle + edge, Y], 1)[::-1]])
    canvas.polygon(outline[::6], 1.05)  # between the vertebral bodies: discs, joints, processes
    while level < 38:
        tall = spacing * float(np.interp(level, (-9, 0, 10, 30), (0.72, 0.88, 1.0, 1.35)))
        half = float(np.interp(level, (-9, 0, 10, 30), (1.1, 1.45, 1.5, 2.2)))
        x = shift + amplitude * float(np.sin(0.2 * level + phase))
        corners = np.array([[-half, 0.12], [half, 0.12], [0.9 * half, 0.5 * tall], [half, 0.86 * tall]])
        place = np.array([x, level])
        corners = place + np.concatenate([corners, [[-half, 0.86 * tall], [-0.9 * half, 0.5 * tall]]])
        canvas.polygon(corners, 1.5)
        canvas.line(np.concatenate([corners, corners[:1]]), 1.8, 0.16)
        for side in (LEFT, RIGHT):
            canvas.disc(x + side * 0.62 * half, level + 0.32 * tall, 0.28, 2.2)
            wing = place + np.array([[side * 0.8 * half, 0.35 * tall], [side * (half + 1.3), 0.2 * tall]])
            canvas.line(wing, 0.45 if 0 < level < 25 else 0.3, 0.6)
        canvas.disc(x + rng.normal(0, 0.08), level + 0.75 * tall, 0.26, 2.3)
        level += tall


def vessels(geometry: Geometry, yaw: float) -> FloatArray:
    """Return the water equivalent of the pulmonary vessels.

    They are drawn as if there were lung everywhere.

    Returns:
        (600, 600) cm.
    """
    rng = np.random.default_rng(geometry.anatomy.trees)
    canvas = Shadows()
    for side in (LEFT, RIGHT):
        hilum = np.array([side * 3.3 + 0.7 * yaw, geometry.height * (0.40 if side == LEFT else 0.45)])
        stems = 13
        # A heading of -pi/2 is straight up; the lower lobe's arteries are the widest.
        heading = np.linspace(-1.35, 1.45, stems) + rng.normal(0, 0.09, stems)
        radius = np.interp(heading, (-1.4, 0.3, 1.1, 1.5), (0.34, 0.3, 0.5, 0.42)) * rng.uniform(0.8, 1.15, stems)
        start = np.repeat(hilum[None], stems, 0) + rng.normal(0, 0.5, (stems, 2)) + np.outer(heading, (0, 0.9))
        segments = []
        for depth in range(6):
            heading = heading + rng.normal(0, 0.16, heading.shape)
            length = rng.uniform(0.65, 1.2, heading.shape) * (2.4 - 0.16 * depth) * geometry.height / 20
            length *= 1 - 0.3 * np.cos(heading) * (depth == 0)
            end = start + np.stack([side * np.cos(heading), np.sin(heading)], 1) * length[:, None]
            middle = (start + end) / 2 + rng.normal(0, 0.13, end.shape)
            segments.append((start, middle, end, radius))
            split = rng.uniform(0.28, 0.5, heading.shape)
            start = np.concatenate([end, end])
            heading = np.concatenate([heading + split, heading - split * rng.uniform(0.3, 1.0, heading.shape)])
            radius = np.concatenate([radius * rng.uniform(0.55, 0.8, radius.shape), radius * 0.8])
            keep = radius > 0.035
            start, heading, radius = start[keep], heading[keep], radius[keep]
        for begin, middle, end, radius in reversed(segments):
            _draw_vessels(canvas, np.stack([begin, middle, end], 1), radius)
        for _ in range(5):  # the hilum itself
            offset = rng.normal(0, (0.45, 1.1))
            x, y = (hilum + offset).tolist()
            canvas.disc(x, y, rng.uniform(0.4, 0.8), rng.uniform(1.6, 3.0))
    return canvas.thickness()


def _draw_vessels(canvas: Shadows, lines: Points, radius: Points) -> None:
    # A vessel thinner than a pixel is drawn fainter. A wide one gets a second line: artery and vein often overlap.
    canvas.lines(lines, 4.2 * radius * np.minimum(1, 2 * radius / 0.08), 2 * radius)
    wide = radius > 0.1
    canvas.lines(lines[wide], 5.6 * radius[wide], 1.1 * radius[wide])


def leads(rng: np.random.Generator, geometry: Geometry) -> FloatArray:
    """Return ECG electrodes and wires, (600, 600) cm of water equivalent."""
    canvas = Shadows()
    for _ in range(int(rng.integers(2, 5))):
        x, y = rng.uniform(-11, 11), rng.uniform(2, geometry.height)
        edge = np.array([np.sign(x) * rng.uniform(8, 20), rng.choice([Y[0], Y[-1]])])
        t = np.linspace(0, 1, 12)[:, None]
        sag = rng.normal(0, 3, 2) * np.sin(np.pi * t) + rng.normal(0, 1, 2) * np.sin(2 * np.pi * t)
        canvas.line(np.array([x, y]) * (1 - t) + edge * t + sag, 2.6, 0.14)
        canvas.disc(x, y, 1.0, 0.5)
        canvas.disc(x, y, 0.28, 3.9)
    return canvas.thickness()

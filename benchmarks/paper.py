"""What the paper reports on VinDr-CXR: AUROC of findings and of normal/abnormal, at 112, 56 and 28 px.

Akhter, Ranjan, Singh, Vatsa: "Low-resolution chest X-ray classification via knowledge distillation and multi-task
learning", Tables 1 (teacher and "none") and 2. Small's last-block and one-to-one agree at 56 and 28 px there.
"""

from __future__ import annotations

RESOLUTIONS = (112, 56, 28)
METHODS = ("none", "vanilla", "last-block", "one-to-one", "mlcak")
TASKS = ("findings", "abnormal")

TEACHER = {
    ("tiny", "findings"): 0.8343,
    ("tiny", "abnormal"): 0.8696,
    ("small", "findings"): 0.8563,
    ("small", "abnormal"): 0.9010,
    ("base", "findings"): 0.8600,
    ("base", "abnormal"): 0.9064,
}

_STUDENTS = {
    ("tiny", "findings"): (
        (0.8309, 0.8057, 0.7977),
        (0.8347, 0.8154, 0.8068),
        (0.8219, 0.8127, 0.7854),
        (0.8249, 0.8113, 0.8016),
        (0.8492, 0.8354, 0.8202),
    ),
    ("tiny", "abnormal"): (
        (0.8534, 0.8505, 0.8350),
        (0.8684, 0.8546, 0.8536),
        (0.8654, 0.8543, 0.8445),
        (0.8640, 0.8571, 0.8512),
        (0.8836, 0.8746, 0.8654),
    ),
    ("small", "findings"): (
        (0.8426, 0.8342, 0.8186),
        (0.8562, 0.8437, 0.8164),
        (0.8549, 0.8437, 0.8319),
        (0.8533, 0.8437, 0.8319),
        (0.8717, 0.8509, 0.8415),
    ),
    ("small", "abnormal"): (
        (0.8667, 0.8588, 0.8476),
        (0.8822, 0.8727, 0.8661),
        (0.8978, 0.8891, 0.8703),
        (0.8951, 0.8891, 0.8703),
        (0.9077, 0.8904, 0.8751),
    ),
    ("base", "findings"): (
        (0.8724, 0.8260, 0.7941),
        (0.8704, 0.8657, 0.8238),
        (0.8494, 0.8371, 0.8032),
        (0.8509, 0.8317, 0.8161),
        (0.8746, 0.8714, 0.8387),
    ),
    ("base", "abnormal"): (
        (0.8897, 0.8795, 0.8269),
        (0.8963, 0.8858, 0.8651),
        (0.8892, 0.8853, 0.8653),
        (0.8878, 0.8760, 0.8612),
        (0.8987, 0.8901, 0.8766),
    ),
}


def student(arch: str, task: str, method: str, resolution: int) -> float | None:
    """Return the paper's AUROC of a student, None where it has none."""
    if (arch, task) not in _STUDENTS or method not in METHODS or resolution not in RESOLUTIONS:
        return None
    return _STUDENTS[arch, task][METHODS.index(method)][RESOLUTIONS.index(resolution)]


def share(arch: str, task: str, method: str, resolution: int) -> float | None:
    """Return the share of the gap between teacher and undistilled student that a method closes in the paper."""
    plain, taught = (student(arch, task, name, resolution) for name in ("none", method))
    if plain is None or taught is None or TEACHER[arch, task] <= plain:
        return None
    return (taught - plain) / (TEACHER[arch, task] - plain)

"""SOP classes that are received, and statuses of what is not."""

from __future__ import annotations

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

CLASSES = (ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage)
"""SOP classes that are received."""

STATUSES = {
    "no-space": 0xA700, "queue-full": 0xA700, "too-large": 0xA700, "disagrees": 0xA900, "unreadable": 0xC000,
    "class": 0x0122, "syntax": 0xC122,
}  # fmt: skip
"""Reason of `edgecxr.node.intake.REASONS` -> status of the answer (PS3.4, B.2.3; PS3.18, I.2.2)."""

FAILED = 0x0110
"""Status of an answer where the fault is the node's: processing failure (PS3.7, C)."""


class BadRequest(Exception):
    """A request that is wrong, or cannot be answered now.

    Attributes:
        status: of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status

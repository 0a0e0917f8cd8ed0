"""Elements that multi-frame files state for each frame (PS3.3 C.7.6.16).

An enhanced file has them in items of two sequences, of which one is for all frames and the other has an item for each.
"""

from __future__ import annotations

from pydicom import Dataset

from edgecxr.films.statements.coded_terms import items

SEQUENCES = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
"""The sequences that hold them, in the order in which they are believed."""

_MACROS = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    "PixelMeasuresSequence": ("PixelSpacing",),
    "FramePixelDataPropertiesSequence": ("ImagerPixelSpacing",),
    "FrameAnatomySequence": ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"),
    "PatientOrientationInFrameSequence": ("PatientOrientation",),
    "FrameDisplayShutterSequence": (
        *("ShutterShape", "ShutterLeftVerticalEdge", "ShutterRightVerticalEdge", "ShutterUpperHorizontalEdge"),
        *("ShutterLowerHorizontalEdge", "CenterOfCircularShutter", "RadiusOfCircularShutter"),
        "VerticesOfThePolygonalShutter",
    ),
}
"""Sequence of a functional group -> its elements that are read; they belong together."""


def take_from_first_frame(dataset: Dataset) -> list[str]:
    """Add the first frame's elements to a file's own.

    What the file states itself counts: of a group that it has a part of, none is added.

    Returns:
        Warnings about what was ignored.
    """
    broken = False
    for macro, keywords in _MACROS.items():
        for sequence in SEQUENCES:
            if any(keyword in dataset for keyword in keywords):
                break
            try:
                frame_items = [item for group in items(dataset, sequence)[:1] for item in items(group, macro)[:1]]
                elements = [item[keyword] for item in frame_items for keyword in keywords if keyword in item]
            except Exception:  # pydicom raises nearly anything over a malformed sequence
                broken = True
                continue
            for element in elements:
                dataset[element.tag] = element
    return ["what the file states of its frames is broken; it was ignored"] if broken else []

"""View, orientation and proportions that a DICOM file states.

Only plain statements count, since people type these values. Empty, odd and unknown values are ignored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from pydicom import Dataset

from edgecxr.films.statements import words
from edgecxr.films.statements.coded_terms import (
    AP_CODES,
    FRONTAL_CODES,
    LATERAL_CODES,
    OBLIQUE_CODES,
    PA_CODES,
    codes,
    meanings,
    texts,
)

VIEWS = ("PA", "AP", "LL")
"""Names of the views; LL stands for all lateral ones."""

FRONTAL, OBLIQUE = "frontal", "oblique"
"""Further views, without a name of their own in results."""

SERIES = ("SeriesDescription", "ProtocolName")
"""Elements with words about a series, which may contradict what others state."""

DESCRIPTIONS = (*SERIES, "AcquisitionDeviceProcessingDescription")
"""Elements with words about the film or its series, which count if nothing else states its view."""

WIDER = ("PerformedProcedureStepDescription", "StudyDescription", "RequestedProcedureDescription")
"""Elements with words about several series: they may be another film's, and are only warned of."""

_MOST_UNEQUAL = 10
"""Largest ratio of a pixel's sides that is believed."""


def stated_view(dataset: Dataset) -> tuple[str | None, list[str]]:
    """Return the view that a file states.

    The code values of ViewCodeSequence count first, then ViewPosition, the meanings of the codes, PatientOrientation
    and `DESCRIPTIONS`. A decubitus film is a frontal one of a patient who lies on the side.

    Returns:
        One of `VIEWS`, `FRONTAL`, `OBLIQUE`, or None; and a warning if two elements contradict each other, or only
        one of `WIDER` names a view that is not frontal.
    """
    stated = {
        "ViewCodeSequence": _view_of_codes(codes(dataset, "ViewCodeSequence")),
        "ViewPosition": _view_of_words(texts(dataset, "ViewPosition")),
        "CodeMeaning": _view_of_words(meanings(dataset, "ViewCodeSequence")),
        "PatientOrientation": _view_of_orientation(texts(dataset, "PatientOrientation")),
    }
    views = {element: view for element, view in stated.items() if view is not None}
    if not views:
        return _view_of_descriptions(dataset)
    (first, view), *others = views.items()
    if view == FRONTAL:  # the next element may say which
        view = next((other for _, other in others if other in ("PA", "AP")), view)
    against = [element for element, other in others if _differ(view, other)]
    against += _several("ViewCodeSequence", codes(dataset, "ViewCodeSequence"))
    for element in SERIES:
        described, _ = _plane_of_description(texts(dataset, element))
        against += [element] if described not in (None, _plane(view)) else []
    warnings = [f"{first} and {' and '.join(against)} contradict each other; the view is taken from {first}"]
    return view, warnings if against else []


def _view_of_descriptions(dataset: Dataset) -> tuple[str | None, list[str]]:
    """Return "LL" or "oblique" if free text alone says so.

    A series may hold frontal and lateral films, so that words for both say nothing. Those about a study are warned of.
    """
    described = [text for element in DESCRIPTIONS for text in texts(dataset, element)]
    plane, _ = _plane_of_description(described)
    if plane in ("LL", OBLIQUE):
        return plane, []
    if words.frontal_of(" ".join(described).replace("_", " ")) is not None:
        return None, []
    for element in WIDER:
        plane, word = _plane_of_description(texts(dataset, element))
        if plane in ("LL", OBLIQUE):
            return None, [may_be_another(element, word)]
        if plane == FRONTAL:
            break
    return None, []


def may_be_another(element: str, word: str) -> str:
    """Return a warning about a word that may be of another film."""
    return f"{element} names {word[:16]}, which may be another film of the study; this one was taken as it is"


def _plane_of_description(described: Sequence[str]) -> tuple[str | None, str]:
    """Return "LL", "oblique" or "frontal" if free text names one of them.

    The words for the first two are returned, too.
    """
    text = " ".join(described).replace("_", " ")
    if words.is_of_several(text):
        return None, ""
    oblique, lateral = words.oblique_of(text), words.lateral_of(text)
    if "DECUB" in text:  # lateral decubitus
        lateral = None
    if words.frontal_of(text) is not None:
        return None if oblique or lateral else FRONTAL, ""
    return (OBLIQUE, oblique) if oblique else ("LL", lateral) if lateral else (None, "")


def _several(element: str, values: Sequence[str]) -> list[str]:
    """Return the element's name if its codes are of several views."""
    views = [view for value in values if (view := _view_of_codes([value]))]
    return [f"another item of {element}"] if any(_differ(views[0], view) for view in views) else []


def _differ(view: str, other: str) -> bool:
    return _plane(view) != _plane(other) or {view, other} == {"PA", "AP"}


def _plane(view: str) -> str:
    return "frontal" if view in ("PA", "AP", FRONTAL) else view


def _view_of_codes(values: Sequence[str]) -> str | None:
    for view, meant in (
        ("PA", PA_CODES), ("AP", AP_CODES), (FRONTAL, FRONTAL_CODES),
        ("LL", LATERAL_CODES), (OBLIQUE, OBLIQUE_CODES),
    ):  # fmt: skip
        if meant.intersection(values):
            return view
    return None


def _view_of_words(statements: Sequence[str]) -> str | None:
    text = " ".join(statements).replace("_", " ")
    if words.oblique_of(text):
        return OBLIQUE
    lateral = words.lateral_of(text) or any(map(words.is_lateral_position, statements))
    return words.frontal_of(text) or ("LL" if lateral else None)


def _view_of_orientation(directions: Sequence[str]) -> str | None:
    """Return the view that PatientOrientation implies.

    Lateral films have rows or columns that run from front to back.
    """
    if len(directions) != 2 or not all(re.fullmatch("[APLRHF]{1,3}", direction) for direction in directions):
        return None
    first = {direction[0] for direction in directions}
    return "LL" if first & set("AP") else FRONTAL


def turn_of(dataset: Dataset, view: str | None) -> tuple[bool, bool, bool]:
    """Return whether a frontal film lies sideways, is mirrored, is inverted.

    PatientOrientation states it (PS3.3 C.7.6.1.1.1). The last two are of the film once rows and columns are exchanged,
    if it lies sideways.

    Args:
        dataset: the file.
        view: what `stated_view` returned.
    """
    directions = texts(dataset, "PatientOrientation")
    if view in ("LL", OBLIQUE) or len(directions) != 2:
        return False, False, False
    rows, columns = (direction[:1] for direction in directions)
    sideways = rows in ("H", "F")
    if sideways:
        rows, columns = columns, rows
    if rows not in ("L", "R") or columns not in ("H", "F"):
        return False, False, False
    return sideways, rows == "R", columns == "H"


def aspect_of(dataset: Dataset) -> float:
    """Return a pixel's height as a multiple of its width.

    PixelAspectRatio counts where no spacing is stated (PS3.3 C.7.6.3.1.7). Values that mean nothing count as square.
    """
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio"):
        try:
            height, width = (float(value) for value in dataset.get(keyword) or ())
            aspect = height / width
        except Exception:  # pydicom raises nearly anything over a malformed element
            continue
        if height > 0 and math.isfinite(aspect) and 1 / _MOST_UNEQUAL <= aspect <= _MOST_UNEQUAL:
            return aspect
    return 1.0

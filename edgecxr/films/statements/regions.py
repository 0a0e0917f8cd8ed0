"""Region of the body that a DICOM file states."""

from __future__ import annotations

import re

from pydicom import Dataset

from edgecxr.films.statements import words
from edgecxr.films.statements.coded_terms import CHEST_CODES, OTHER_REGIONS_CODES, codes, meanings, texts
from edgecxr.films.statements.view import DESCRIPTIONS, SERIES, WIDER

_SAYS_NOTHING = re.compile(
    r"[\W_]*|X+|N[./]?A\.?|(UN|NOT )?(KNOWN|DEFINED|SPECIFIED|SPECIFY)|UNBEKANNT|DESCONOCIDO|OTHERS?|NONE|NULL"
    r"|DEFAULT|TEST"
)
_CODED = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")


def other_region(dataset: Dataset) -> str | None:
    """Return the part, other than the chest, that a file names.

    Code values count first, then the meanings of codes, BodyPartExamined and free text. One that says the chest is
    enough of several that count alike; a part that free text names counts only where no element says the chest.
    """
    for sequence in _CODED:
        found, named = set(codes(dataset, sequence)), meanings(dataset, sequence)
        if found & CHEST_CODES:
            return None
        if found & OTHER_REGIONS_CODES:
            return named[0] if named else sorted(found)[0]
    named = meanings(dataset, *_CODED)
    if any(_is_chest(part) for part in named):
        return None
    stated, part = _stated(dataset)
    if part or stated:
        return part
    described = [text.replace("_", " ") for element in (*DESCRIPTIONS, *WIDER) for text in texts(dataset, element)]
    if any(map(words.names_chest, described)):
        return None
    return next((other for text in (*named, *described) if (other := words.other_part(text))), None)


def region_warning(dataset: Dataset) -> str | None:
    """Return a warning if a file names the chest and another part.

    The element that counts more says the chest, and text says another part.
    """
    stated, part = _stated(dataset)
    first = next((sequence for sequence in _CODED if set(codes(dataset, sequence)) & CHEST_CODES), None)
    if first:
        if part:
            return f"{first} says the chest and BodyPartExamined {part[:16]}; the code was believed"
    elif stated and other_region(dataset) is None:
        first = "BodyPartExamined"
    else:
        return None
    for element in SERIES:
        for text in texts(dataset, element):
            if other := words.other_part(text.replace("_", " ")):
                return f"{first} says the chest and {element} {other[:16]}; {first} was believed"
    return None


def _is_chest(part: str) -> bool:
    return bool(words.CHEST.search(part) and not words.SPINE.search(part))


def _stated(dataset: Dataset) -> tuple[bool, str | None]:
    """Return whether BodyPartExamined says chest, and which other part.

    Text that is not ASCII says nothing but the chest, since its character set is often undeclared.
    """
    stated = [part for part in texts(dataset, "BodyPartExamined") if not _SAYS_NOTHING.fullmatch(part)]
    if any(map(_is_chest, stated)):
        return True, None
    return False, next((part for part in stated if part.isascii()), None)

"""Region of the body that a DICOM file states."""

from __future__ import annotations

from pydicom import Dataset

from edgecxr.films.statements import words
from edgecxr.films.statements.coded_terms import CHEST_CODES, OTHER_REGIONS_CODES, codes, meanings, texts
from edgecxr.films.statements.view import DESCRIPTIONS, SERIES, WIDER, may_be_another

_CODED = ("AnatomicRegionSequence", "PrimaryAnatomicStructureSequence")


def other_region(dataset: Dataset) -> str | None:
    """Return the part, other than the chest, that a file names.

    Code values count first, then the meanings of codes, BodyPartExamined and free text about the film or its series.
    One that says the chest is enough of several that count alike. An unknown word in BodyPartExamined counts only
    where no text names the chest. Free text about a study may be about another film.
    """
    for sequence in _CODED:
        stated_codes, named = set(codes(dataset, sequence)), meanings(dataset, sequence)
        if stated_codes & CHEST_CODES:
            return None
        if stated_codes & OTHER_REGIONS_CODES:
            return named[0] if named else sorted(stated_codes)[0]
    named = meanings(dataset, *_CODED)
    if any(_is_chest(part) for part in named):
        return None
    chest, region, unknown = _stated(dataset)
    if chest or region:
        return region
    described = _described(dataset)
    if described and described[0][0] in DESCRIPTIONS:
        return described[0][1]
    if any(part is None for _, part in described):
        return None
    return unknown or next((other for text in named if (other := words.other_part(text))), None)


def region_warning(dataset: Dataset) -> str | None:
    """Return a warning if a file names the chest and another part.

    The one that counts more was believed. A part that only words about a study name is warned of, too.
    """
    chest, named, unknown = _stated(dataset)
    first = next((sequence for sequence in _CODED if set(codes(dataset, sequence)) & CHEST_CODES), None)
    if first:
        if named or unknown:
            return f"{first} says the chest and BodyPartExamined {(named or unknown or '')[:16]}; the code was believed"
    elif other_region(dataset) is None:
        first = "BodyPartExamined" if chest else "CodeMeaning" if _means_chest(dataset) else None
    elif named or set(codes(dataset, *_CODED)) & OTHER_REGIONS_CODES:
        return None
    if first is None:
        return _text_warning(dataset)
    for element in SERIES:
        for text in texts(dataset, element):
            if other := words.other_part(text.replace("_", " ")):
                return f"{first} says the chest and {element} {other[:16]}; {first} was believed"
    return None


def _text_warning(dataset: Dataset) -> str | None:
    """Return a warning about parts in free text, which nothing else decides."""
    described = _described(dataset)
    if described and described[0][0] in DESCRIPTIONS:
        (first, part), *others = described
        for element, other in others:
            if (other is None) != (part is None):
                region, against = (name[:16] if name else "the chest" for name in (part, other))
                return f"{first} says {region} and {element} {against}; {first} was believed"
        return None
    return next((may_be_another(element, part) for element, part in described if part), None)


def _described(dataset: Dataset) -> list[tuple[str, str | None]]:
    """Return the elements of free text that name a part, and which.

    There is one of `DESCRIPTIONS`, which count alike, and then those of `WIDER`. The part is None for the chest.
    """
    regions: list[tuple[str, str | None]] = []
    for group in (DESCRIPTIONS, *((element,) for element in WIDER)):
        statements = [(element, text.replace("_", " ")) for element in group for text in texts(dataset, element)]
        chest: list[tuple[str, str | None]] = [
            (element, None) for element, text in statements if words.names_chest(text)
        ]
        others = [(element, other) for element, text in statements if (other := words.other_part(text))]
        regions += (chest + others)[:1]
    return regions


def _is_chest(part: str) -> bool:
    return bool(words.CHEST.search(part) and not words.SPINE.search(part))


def _means_chest(dataset: Dataset) -> bool:
    return any(map(_is_chest, meanings(dataset, *_CODED)))


def _stated(dataset: Dataset) -> tuple[bool, str | None, str | None]:
    """Return whether BodyPartExamined says chest, and which other part.

    The other part is one of the words for parts, or else an unknown word. Text that is not ASCII says nothing but the
    chest, since its character set is often undeclared.
    """
    stated = [part for part in texts(dataset, "BodyPartExamined") if not words.SAYS_NOTHING.fullmatch(part)]
    if any(map(_is_chest, stated)):
        return True, None, None
    others = [part for part in stated if part.isascii()]
    region = next((part for part in others if _is_other(part.replace("_", " "))), None)
    return False, region, next(iter(others), None)


def _is_other(part: str) -> bool:
    return words.other_part(part) is not None or words.SPINE.search(part) is not None

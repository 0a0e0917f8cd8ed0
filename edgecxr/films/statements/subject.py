"""Statements of a DICOM file about whom and what it shows.

An animal or a test object is no patient, and an image of bones alone is no chest film.
"""

from __future__ import annotations

import re

from pydicom import Dataset

from edgecxr.films.statements.coded_terms import codes, items, meanings, texts
from edgecxr.films.statements.view import DESCRIPTIONS
from edgecxr.films.statements.words import SAYS_NOTHING

_HUMAN_CODES = frozenset({"337915000", "L-85003"})
"""Homo sapiens in SNOMED CT and its older value in SNOMED RT, of PS3.16 CID 7454."""

_HUMAN = re.compile(
    r"HUM(AN|ANO|ANA|ANS|AIN|AINE)?( (BEING|MALE|FEMALE))?|UMAN[OA]|HOMO\b.*|H\.? ?SAPIENS|MENSCH(LICH)?|MENS|MENNESKE"
    r"|MANNISKA|PERSON|PATIENT|MALE|FEMALE|ADULT|CHILD"
)

_WEIGHTED_ENERGIES = "113097"
"""Multi-energy proportional weighting, of PS3.16 CID 7203 (Image Derivation)."""

_ENERGIES = re.compile(r"\b(DUAL|MULTI|TWO)\W?ENERGY\b|\bENERGY\W+SUBTRACT\w*")
_NO_BONES = re.compile(
    r"\bBONES?\W+(SUPPRE|REMOV|SUBTRACT|FREE|LESS)\w*|\b(SUPPRE|REMOV|SUBTRACT)\w*( OF)?( THE)? BONES?\b"
)
_SOFT_TISSUE = re.compile(r"\bSOFT(\W?TISSUES?)?\b")
_BONES = re.compile(r"\bBONES?\b")
_BONES_ALONE = re.compile(r"\bBONES?\W+(ONLY|ALONE|SELECTIVE)\b")


def no_patient(dataset: Dataset) -> str | None:
    """Return what a film is of if not a patient, or None.

    An animal has a species, or a breed, that is not human (PS3.3 C.7.1.1). A quality-control image shows a test object
    alone.
    """
    if "YES" in texts(dataset, "QualityControlImage"):
        return "it is a quality-control image"
    sequences = ("PatientSpeciesCodeSequence", "PatientBreedCodeSequence")
    named = [*texts(dataset, "PatientSpeciesDescription"), *meanings(dataset, *sequences)]
    named += texts(dataset, "PatientBreedDescription")
    # Text that is not ASCII says nothing, since its character set is often undeclared.
    named = [name for name in named if re.search("[A-Z]{2}", name) and name.isascii()]
    named = [name for name in named if not SAYS_NOTHING.fullmatch(name)]
    coded = codes(dataset, *sequences)
    if _HUMAN_CODES.intersection(coded) or any(map(_HUMAN.fullmatch, named)) or not (named or coded):
        return None
    return f"it is of an animal ({(named or coded)[0][:32]})"


def shows_bones_alone(dataset: Dataset) -> bool:
    """Return whether a film was subtracted to one of bones alone."""
    return _tissue(dataset) == "bones"


def subject_warnings(dataset: Dataset) -> list[str]:
    """Return warnings about what else a film shows, or lacks."""
    warnings = []
    if "BOTH" in texts(dataset, "QualityControlImage"):
        warnings.append("the film shows an object for quality control beside the patient")
    if (tissue := _tissue(dataset)) not in (None, "bones"):
        warnings.append(f"the film is {tissue}, and models learn from ordinary films")
    return warnings


def _tissue(dataset: Dataset) -> str | None:
    """Return "bones", or another subtracted image in words, or None.

    ImageType counts first, then the words for its derivation, and those for its series if they name both the method
    and the tissue: bones and soft tissue alone may be an examination's settings.
    """
    derived = [*texts(dataset, "DerivationDescription"), *meanings(dataset, "DerivationCodeSequence")]
    weighted = any(
        _WEIGHTED_ENERGIES in texts(item, "CodeValue") and "DCM" in texts(item, "CodingSchemeDesignator")
        for item in items(dataset, "DerivationCodeSequence")
    )
    types = texts(dataset, "ImageType")
    of_energies = weighted or any(map(_ENERGIES.search, (value.replace("_", " ") for value in (*derived, *types))))
    series = [text for element in DESCRIPTIONS for text in texts(dataset, element)]
    for statements, sure in ((types, True), (derived, of_energies), (series, False)):
        text = " / ".join(statements).replace("_", " ")
        if _NO_BONES.search(text):
            return "one without bones"
        sure = sure or _ENERGIES.search(text) is not None
        bones, soft = _BONES.search(text) if sure else _BONES_ALONE.search(text), sure and _SOFT_TISSUE.search(text)
        if bones and not soft:
            return "bones"
        if soft and not bones:
            return "one of soft tissue alone"
    return "computed from images of several energies" if of_energies else None

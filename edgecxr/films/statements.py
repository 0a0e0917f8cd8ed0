"""What a DICOM file says that it shows: whether that speaks against a frontal chest film.

Only what is said plainly counts: an empty, odd or unknown value says nothing, and of several values one that fits will
do, since people type these.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.multival import MultiValue

from edgecxr.films.radiograph import Objection

VIEWS = ("PA", "AP", "LL")
"""What the view of a film is called here; LL stands for all lateral ones."""

OBLIQUE = "oblique"

# DR is none of DICOM's terms, and what some devices write for DX.
_RADIOGRAPHY = ("CR", "DX", "DR", "RG")

# In several languages: the chest, and parts of it that a chest film is taken for.
_CHEST = re.compile(r"CHEST|THORA[XC]|THORAKAL|TORAX|TORAC|LUNG|PULMO|POUMON|POITRINE|PECHO|PULMON|BRUST|CXR|\bTX\b")
_NOT_CHEST = re.compile(r"SPINE|COLUMN|COLONNE|VERTEB|LUMB|WIRBEL|BWS")
_SAYS_NOTHING = re.compile(
    r"[\W_]*|X+|N[./]?A\.?|(UN|NOT )?(KNOWN|DEFINED|SPECIFIED|SPECIFY)|UNBEKANNT|DESCONOCIDO|OTHERS?|NONE|NULL"
    r"|DEFAULT|TEST"
)

_LATERAL = re.compile(r"\bLL\b|\bRL\b|\b[LR]?LAT\b|\b(LATERAL|LATERO)\b")
_OBLIQUE = re.compile(r"\b(RLO|LLO|RAO|LAO|RPO|LPO)\b|\bOBL(IQUE)?\b")
_FRONTAL = re.compile(r"\bAP\b|\bPA\b|\b[RL]LD\b|DECUB|POSTERO.?ANTERIOR|ANTERO.?POSTERIOR|FRONTAL")


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return the values of an element in printable upper case, without accents or blanks around; none of an odd one."""
    value = dataset.get(keyword)
    found = []
    for part in value if isinstance(value, (MultiValue, list)) else [value]:
        text = unicodedata.normalize("NFD", str(part)) if isinstance(part, (str, int)) else ""
        text = "".join(c for c in text if c.isprintable() and not unicodedata.combining(c)).strip().upper()
        if text:
            found.append(text)
    return found


def stated_view(dataset: Dataset) -> str | None:
    """Return the view that a file states: one of `VIEWS`, `OBLIQUE`, or None.

    ViewPosition counts, and where it says nothing the meaning of the ViewCodeSequence's codes. A decubitus film is a
    frontal one of a patient who lies on the side.
    """
    codes = dataset.get("ViewCodeSequence")
    items = codes if isinstance(codes, Sequence) and not isinstance(codes, (str, bytes)) else []
    meanings = [text for item in items if isinstance(item, Dataset) for text in texts(item, "CodeMeaning")]
    for said in (texts(dataset, "ViewPosition"), meanings):
        words = " ".join(said)
        if re.search(r"\bPA\b|POSTERO.?ANTERIOR", words) and not _OBLIQUE.search(words):
            return "PA"
        if re.search(r"\bAP\b|ANTERO.?POSTERIOR", words) and not _OBLIQUE.search(words):
            return "AP"
        if _FRONTAL.search(words) and not _OBLIQUE.search(words):
            return None
        if _OBLIQUE.search(words):
            return OBLIQUE
        if _LATERAL.search(words):
            return "LL"
    return None


def objections_of(dataset: Dataset, view: str | None) -> tuple[Objection, ...]:
    """Return what a file says against being a frontal chest film.

    Args:
        dataset: the file.
        view: what `stated_view` returned.
    """
    found = []
    modalities = texts(dataset, "Modality")
    if modalities and not set(modalities) & set(_RADIOGRAPHY):
        found.append(Objection("modality", f"modality {modalities[0][:16]} is not radiography (CR, DX, RG)"))
    parts = [part for part in texts(dataset, "BodyPartExamined") if not _SAYS_NOTHING.fullmatch(part)]
    if parts and not any(_CHEST.search(part) and not _NOT_CHEST.search(part) for part in parts):
        found.append(Objection("body-part", f"the body part {parts[0][:32]} is not the chest"))
    if view in ("LL", OBLIQUE):
        kind = "an oblique" if view == OBLIQUE else "a lateral"
        found.append(Objection("view", f"it is {kind} view, and models learn from frontal ones"))
    return tuple(found)

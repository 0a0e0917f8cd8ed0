"""Check whether a DICOM file describes a frontal chest film.

Only plain statements count, since people type these values. Empty, odd and unknown values are ignored, and one fitting
value of several is enough.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.multival import MultiValue

from edgecxr.films.radiograph import Objection

VIEWS = ("PA", "AP", "LL")
"""Names of the views; LL stands for all lateral ones."""

DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
"""Elements with words about the film or its series, which count if nothing else states its view."""

_SNOMED = {"SCT", "SRT", "SNM3", "99SDM"}
"""Designators of SNOMED; a code of another scheme may have the same value."""

FRONTAL, OBLIQUE = "frontal", "oblique"
"""Further views, without a name of their own in results."""

# DR is not a DICOM term, but some devices write it for DX.
_RADIOGRAPHY = ("CR", "DX", "DR", "RG")

# The chest, and parts of it that chest films are made for, in several languages.
_CHEST = re.compile(
    r"CHEST|THORA[XC]|THORAKAL|TORAX|TORAC|LUNG|PULMO|POUMON|POITRINE|PECHO|PULMON|BRUST|CXR|\bTX\b|\bRIBS?\b"
    r"|STERNUM|\bHEART|MEDIASTIN|TRACHEA|WHOLE ?BODY"
)
_NOT_CHEST = re.compile(r"SPINE|COLUMN|COLONNE|VERTEB|LUMB|WIRBEL|BWS")
_SAYS_NOTHING = re.compile(
    r"[\W_]*|X+|N[./]?A\.?|(UN|NOT )?(KNOWN|DEFINED|SPECIFIED|SPECIFY)|UNBEKANNT|DESCONOCIDO|OTHERS?|NONE|NULL"
    r"|DEFAULT|TEST"
)

_LATERAL = re.compile(r"\bLL\b|\bRL\b|\b[LR]?LAT\b|\b(LATERAL|LATERO)\b")
_OBLIQUE = re.compile(r"\b(RLO|LLO|RAO|LAO|RPO|LPO)\b|\bOBL(IQUE)?\b")
_FRONTAL = re.compile(r"\bAP\b|\bPA\b|\b[RL]LD\b|DECUB|POSTERO.?ANTERIOR|ANTERO.?POSTERIOR|FRONTAL")


# SNOMED CT codes and their older SNOMED RT values, of PS3.16 CID 4010 (DX View) and CID 4031 (Common Anatomic Region).
_PA_CODES = frozenset({"272479007", "R-40888", "R-10214"})
_AP_CODES = frozenset({"399348003", "R-10206"})
_FRONTAL_CODES = frozenset({"399033003", "R-10202"})

_LATERAL_CODES = frozenset({
    *("399067008", "R-102CD"),  # lateral
    *("399173006", "R-10236"),  # left lateral
    *("399198007", "R-10232"),  # right lateral
    *("399352003", "R-10228"),  # lateral-medial
    *("399260004", "R-10224"),  # medial-lateral
    *("30730003", "G-A145"),  # sagittal
})  # fmt: skip

_OBLIQUE_CODES = frozenset({
    *("399182000", "R-102C1"),  # oblique
    *("399135007", "R-10220"),  # left anterior oblique
    *("399356000", "R-40985"),  # right anterior oblique
    *("399038007", "R-10210"),  # right posterior oblique
    *("399006002", "R-10212"),  # left posterior oblique
    *("399184004", "R-10238", "399236003", "R-10234"),  # left and right oblique
    *("399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204", "260427002", "R-40783"),
    *("260426006", "R-40782", "399099002", "R-10230", "399368009", "R-10226"),
})  # fmt: skip

_CHEST_CODES = frozenset({
    *("816094009", "51185008", "T-D3000", "43799004", "T-D3200"),  # chest, thoracic structure
    *("39607008", "T-28000", "86598002", "T-280A0"),  # lung, its apex
    *("72410000", "T-D3300", "80891009", "T-32000"),  # mediastinum, heart
    *("113197003", "T-11300", "56873002", "T-11210"),  # rib, sternum
    *("44567001", "T-25000", "955009", "T-26000"),  # trachea, bronchus
    *("416550000", "R-FAB55", "417437006", "R-FAB52", "416152001", "R-FAB53"),  # chest with its neighbours
    *("416775004", "R-FAB56", "416319003", "R-FAB54"),
    *("38266002", "T-D0010"),  # entire body
})  # fmt: skip

_OTHER_REGIONS_CODES = frozenset({
    # limbs and their joints
    *("72001000", "T-12700", "74670003", "T-15460", "85050009", "T-12410", "80144004", "T-12770", "68367000"),
    *("T-D9100", "53120007", "T-D8000", "70258002", "T-15750", "85562004", "T-D8700", "58742003", "T-12980"),
    *("16953009", "T-15430", "24136001", "T-15710", "40983000", "T-D8200", "66019005", "T-D0300", "85856004"),
    *("T-15420", "29836001", "T-D2500", "371195002", "T-D0821", "51299004", "T-12310", "7569003", "T-D8800"),
    *("72696002", "T-D9200", "14975008", "T-D8500", "56459004", "T-D9700", "39723000", "T-15680", "76505004"),
    *("T-D8810", "61685007", "T-D9000", "30021000", "T-D9400", "27949001", "T-15770", "29707007", "T-D9800"),
    *("16982005", "T-D2220", "87342007", "T-12750", "71341001", "T-12710", "79601000", "T-12280", "64234005"),
    *("T-12730", "7844006", "T-15610"),
    # head and neck
    *("2095001", "T-22000", "661005", "T-D1213", "74386004", "T-11149", "91609006", "T-11180", "59066005"),
    *("T-11133", "70925003", "T-11170", "91397008", "T-11196", "89546000", "T-11100", "69536005", "T-D1100"),
    *("45048000", "T-D1600", "774007", "T-D1000", "53620006", "T-15290", "13881006", "T-11166", "42575006"),
    *("T-D1460", "363654007", "T-D14AE", "371398005", "T-D0801", "81745001", "T-AA000"),
    # spine, pelvis, abdomen, breast
    *("54735007", "T-11AD0", "22356005", "T-12340", "122495006", "T-11502", "64688005", "T-11BF0", "421060004"),
    *("T-D04FF", "122496007", "T-11503", "122494005", "T-11501", "1217253001", "1217254007", "1217256009"),
    *("1217257000", "816092008", "12921003", "T-D6000", "818981001", "113345001", "T-D4000", "818982008"),
    *("1231522001", "76752008", "T-04000", "30315005", "T-58000", "71854001", "T-59300", "69695003", "T-57000"),
    *("89837001", "T-74000", "32849002", "T-56000"),
})  # fmt: skip

_MOST_UNEQUAL = 10
"""Largest ratio of a pixel's sides that is believed."""

FOR_PROCESSING = frozenset({
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray
    "1.2.840.10008.5.1.4.1.1.1.2.1",  # Digital Mammography
    "1.2.840.10008.5.1.4.1.1.1.3.1",  # Digital Intra-Oral
})  # fmt: skip
"""SOP classes of images For Processing."""


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return an element's values in printable upper case.

    Accents and surrounding blanks are removed. Values that are neither text nor integers are left out.
    """
    value = dataset.get(keyword)
    cleaned = []
    for item in value if isinstance(value, (MultiValue, list)) else [value]:
        plain = isinstance(item, (str, int)) and "\x1b" not in str(item)  # not the bytes of another character set
        text = unicodedata.normalize("NFD", str(item)) if plain else ""
        text = "".join(c for c in text if c.isprintable() and not unicodedata.combining(c)).strip().upper()
        if text:
            cleaned.append(text)
    return cleaned


def codes(dataset: Dataset, keyword: str) -> list[str]:
    """Return the SNOMED code values of a sequence of coded terms."""
    return [
        code
        for item in _items(dataset, keyword)
        if set(texts(item, "CodingSchemeDesignator")) <= _SNOMED
        for code in texts(item, "CodeValue")
    ]


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    sequence = dataset.get(keyword)
    if not isinstance(sequence, Sequence) or isinstance(sequence, (str, bytes)):
        return []
    return [item for item in sequence if isinstance(item, Dataset)]


def stated_view(dataset: Dataset) -> tuple[str | None, list[str]]:
    """Return the view that a file states.

    The code values of ViewCodeSequence count first, then ViewPosition, the meanings of the codes, PatientOrientation
    and `DESCRIPTIONS`. A decubitus film is a frontal one of a patient who lies on the side.

    Returns:
        One of `VIEWS`, `FRONTAL`, `OBLIQUE`, or None; and a warning if two elements contradict each other.
    """
    meanings = [text for item in _items(dataset, "ViewCodeSequence") for text in texts(item, "CodeMeaning")]
    stated = {
        "ViewCodeSequence": _view_of_codes(codes(dataset, "ViewCodeSequence")),
        "ViewPosition": _view_of_words(texts(dataset, "ViewPosition")),
        "CodeMeaning": _view_of_words(meanings),
        "PatientOrientation": _view_of_orientation(texts(dataset, "PatientOrientation")),
    }
    known = {element: view for element, view in stated.items() if view is not None}
    if not known:
        words = [text for keyword in DESCRIPTIONS for text in texts(dataset, keyword)]
        view = _view_of_words(words)
        # A series may hold frontal and lateral films.
        return (view, []) if view in ("LL", OBLIQUE) and not _FRONTAL.search(" ".join(words)) else (None, [])
    (first, view), *others = known.items()
    if view == FRONTAL:  # the next element may say which
        view = next((other for _, other in others if other in ("PA", "AP")), view)
    against = [element for element, other in others if _differ(view, other)]
    against += _several("ViewCodeSequence", codes(dataset, "ViewCodeSequence"))
    warnings = [f"{first} and {' and '.join(against)} contradict each other; the view is taken from {first}"]
    return view, warnings if against else []


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
        ("PA", _PA_CODES), ("AP", _AP_CODES), (FRONTAL, _FRONTAL_CODES),
        ("LL", _LATERAL_CODES), (OBLIQUE, _OBLIQUE_CODES),
    ):  # fmt: skip
        if meant.intersection(values):
            return view
    return None


def _view_of_words(statements: Sequence[str]) -> str | None:
    words = " ".join(statements).replace("_", " ")
    if _OBLIQUE.search(words):
        return OBLIQUE
    if re.search(r"\bPA\b|POSTERO.?ANTERIOR", words):
        return "PA"
    if re.search(r"\bAP\b|ANTERO.?POSTERIOR", words):
        return "AP"
    if _FRONTAL.search(words):
        return FRONTAL
    return "LL" if _LATERAL.search(words) else None


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


def objections_of(dataset: Dataset, view: str | None) -> tuple[Objection, ...]:
    """Return a file's statements against it being a frontal chest film.

    Args:
        dataset: the file.
        view: what `stated_view` returned.
    """
    objections = []
    modalities = texts(dataset, "Modality")
    if modalities and not set(modalities) & set(_RADIOGRAPHY):
        objections.append(Objection("modality", f"modality {modalities[0][:16]} is not radiography (CR, DX, RG)"))
    part = _other_part(dataset)
    if part:
        objections.append(Objection("body-part", f"the body part {part[:32]} is not the chest"))
    if view in ("LL", OBLIQUE):
        kind = "an oblique" if view == OBLIQUE else "a lateral"
        objections.append(Objection("view", f"it is {kind} view, and models learn from frontal ones"))
    return tuple(objections)


def part_warning(dataset: Dataset) -> str | None:
    """Return a warning if a file names two body parts.

    Its code says the chest, and its text another part.
    """
    part = _stated_part(dataset)
    if part is None or not set(codes(dataset, "AnatomicRegionSequence")) & _CHEST_CODES:
        return None
    return f"AnatomicRegionSequence says the chest and BodyPartExamined {part[:16]}; the code was believed"


def _stated_part(dataset: Dataset) -> str | None:
    """Return the part other than the chest that BodyPartExamined names."""
    stated = [part for part in texts(dataset, "BodyPartExamined") if not _SAYS_NOTHING.fullmatch(part)]
    if any(_CHEST.search(part) and not _NOT_CHEST.search(part) for part in stated):
        return None
    return next((part for part in stated if part.isascii()), None)


def _other_part(dataset: Dataset) -> str | None:
    """Return the body part that a file names, other than the chest.

    Code values count first. Text that is not ASCII says nothing, since its character set is often undeclared.
    """
    regions = set(codes(dataset, "AnatomicRegionSequence"))
    if regions & _CHEST_CODES:
        return None
    meanings = [text for item in _items(dataset, "AnatomicRegionSequence") for text in texts(item, "CodeMeaning")]
    if regions & _OTHER_REGIONS_CODES:
        return meanings[0] if meanings else sorted(regions)[0]
    if any(_CHEST.search(part) and not _NOT_CHEST.search(part) for part in meanings):
        return None
    return _stated_part(dataset)

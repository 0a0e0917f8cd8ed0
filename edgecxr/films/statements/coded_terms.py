"""Code values of SNOMED in DICOM files, and their meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydicom import Dataset
from pydicom.multival import MultiValue

from edgecxr.films.statements.words import plain

_SNOMED = frozenset({"SCT", "SRT", "SNM3", "99SDM", "SNOMED", "SNOMEDCT", "SNOMEDRT", "SNOMEDINFOSCT"})
_SNOMED_UIDS = ("2.16.840.1.113883.6.96", "2.16.840.1.113883.6.99", "2.16.840.1.113883.6.5")
"""Designators of SNOMED, without punctuation, and its UIDs; a code of another scheme may have the same value."""

# SNOMED CT codes and their older SNOMED RT values, of PS3.16 CID 4010 (DX View) and CID 4031 (Common Anatomic Region).
PA_CODES = frozenset({"272479007", "R-40888", "R-10214"})
AP_CODES = frozenset({"399348003", "R-10206"})
FRONTAL_CODES = frozenset({"399033003", "R-10202"})

LATERAL_CODES = frozenset({
    *("399067008", "R-102CD"),  # lateral
    *("399173006", "R-10236"),  # left lateral
    *("399198007", "R-10232"),  # right lateral
    *("399352003", "R-10228"),  # lateral-medial
    *("399260004", "R-10224"),  # medial-lateral
    *("30730003", "G-A145"),  # sagittal
})  # fmt: skip

OBLIQUE_CODES = frozenset({
    *("399182000", "R-102C1"),  # oblique
    *("399135007", "R-10220"),  # left anterior oblique
    *("399356000", "R-40985"),  # right anterior oblique
    *("399038007", "R-10210"),  # right posterior oblique
    *("399006002", "R-10212"),  # left posterior oblique
    *("399184004", "R-10238", "399236003", "R-10234"),  # left and right oblique
    *("399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204", "260427002", "R-40783"),
    *("260426006", "R-40782", "399099002", "R-10230", "399368009", "R-10226"),
})  # fmt: skip

CHEST_CODES = frozenset({
    *("816094009", "51185008", "T-D3000", "43799004", "T-D3200"),  # chest, thoracic structure
    *("39607008", "T-28000", "86598002", "T-280A0"),  # lung, its apex
    *("72410000", "T-D3300", "80891009", "T-32000"),  # mediastinum, heart
    *("113197003", "T-11300", "56873002", "T-11210"),  # rib, sternum
    *("44567001", "T-25000", "955009", "T-26000"),  # trachea, bronchus
    *("416550000", "R-FAB55", "417437006", "R-FAB52", "416152001", "R-FAB53"),  # chest with its neighbours
    *("416775004", "R-FAB56", "416319003", "R-FAB54"),
    *("38266002", "T-D0010"),  # entire body
})  # fmt: skip

OTHER_REGIONS_CODES = frozenset({
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


def texts(dataset: Dataset, keyword: str) -> list[str]:
    """Return an element's values in printable upper case.

    Accents and surrounding blanks are removed. Values that are neither text nor integers are left out.
    """
    value = dataset.get(keyword)
    cleaned = []
    for item in value if isinstance(value, (MultiValue, list)) else [value]:
        readable = isinstance(item, (str, int)) and "\x1b" not in str(item)  # not the bytes of another character set
        if text := plain(str(item)) if readable else "":
            cleaned.append(text)
    return cleaned


def codes(dataset: Dataset, *keywords: str) -> list[str]:
    """Return the SNOMED code values of sequences of coded terms.

    They are in CodeValue, LongCodeValue or URNCodeValue (PS3.3 8.1), or in an equivalent code (8.9).
    """
    terms = [item for keyword in keywords for item in items(dataset, keyword)]
    terms += [same for item in terms for same in items(item, "EquivalentCodeSequence")]
    return [code for item in terms for code in _codes_of(item)]


def meanings(dataset: Dataset, *keywords: str) -> list[str]:
    """Return the meanings of sequences of coded terms, as `texts` does."""
    return [text for keyword in keywords for item in items(dataset, keyword) for text in texts(item, "CodeMeaning")]


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; none of what is no sequence."""
    sequence = dataset.get(keyword)
    if not isinstance(sequence, Sequence) or isinstance(sequence, (str, bytes)):
        return []
    return [item for item in sequence if isinstance(item, Dataset)]


def _codes_of(item: Dataset) -> list[str]:
    urns = [re.split("[/:#?&=|]", urn) for urn in texts(item, "URNCodeValue")]
    values = [parts[-1] for parts in urns if "SNOMED.INFO" in parts or set(parts) & set(_SNOMED_UIDS)]
    if all(map(_is_snomed, texts(item, "CodingSchemeDesignator"))):
        values += [*texts(item, "CodeValue"), *texts(item, "LongCodeValue")]
    return values


def _is_snomed(designator: str) -> bool:
    name = designator.removeprefix("HTTP://").removeprefix("URN:OID:")
    return name in _SNOMED_UIDS or re.sub(r"[\W_]", "", name) in _SNOMED

"""Columns of a user's table that are known to hold no findings."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edgecxr.data.tables.cells import is_answer, is_unsure
from edgecxr.data.tables.finding_words import (
    divided,
    finding_words,
    is_named_after_finding,
    is_named_after_report,
    words_of,
)
from edgecxr.data.tables.splits import SYNONYMS
from edgecxr.data.tables.table import is_unknown

_METADATA = frozenset(
    re.findall(
        r"\S+",
        """
    sex gender male female age birth birthdate dob birthday race ethnicity religion language interpreter insurance
    weight height bmi smoker smoking pregnant pediatric paediatric deceased geschlecht alter geburtsdatum sexe sexo edad
    idade patient patients subject study series id ids uid uids mrn accession
    date time datum fecha year month day hour timestamp visit followup follow taken
    view position projection frontal lateral ap pa orientation laterality portable mobile bedside upright supine
    examined
    split fold partition subset official orig source src dataset origin site hospital institution institutional centre
    center clinic department ward station country city region inpatient outpatient emergency icu cohort batch
    scanner manufacturer vendor detector modality kvp kv mas voltage exposure current dose collimator grid serial
    software width rows columns row column spacing resolution pixel pixels px bits photometric window slope
    intercept frames dpi path dir directory folder file filename filepath files url uri link sha md hash checksum
    commit repo licence license format ext extension bytes filesize suffix mime repository requester procedure
    protocol priority price quality unnamed hersteller gerat klinik abteilung aufnahmedatum untersuchungsdatum
    fabricant fabricante acquisition instance exam examination technique
""",
    )
)
"""Words for what is known of a film or a patient beside its findings, in lower case and without accents."""

_PEOPLE = frozenset(
    re.findall(
        r"\S+",
        """
    reader readers radiologist radiologists physician physicians doctor doctors technologist technician radiographer
    operator operators observer rater annotator author nurse referrer arzt radiologe befunder zuweiser signed verified
    approved dictated
""",
    )
)
"""Words for people, whose columns hold names, or what they have read."""

_NEUTRAL = frozenset(
    re.findall(
        r"\S+",
        """
    image images img film films original dicom dcm png jpg jpeg xray ray cxr chest tube of the in at by to up nr no num
    number name names code codes type types index set size new old value description x y a b mm cm ms kg yr years deid
    performed step sequence meaning representation interpretation aspect ratio method relative requested s
    body part presentation local order rad depth bit stored scan
    report reported recent needed spatial model version referring performing attending reading first last initials
""",
    )
)
"""Words that name no finding beside those."""

_NAMES = frozenset(
    ("report code", "report codes", "report number", "report nr", "report no", "report version", "body mass index",
     "report type", "report status", "quality score", "diagnostic quality", "device serial number", "device id")
)  # fmt: skip
"""Names of metadata that the words alone do not tell."""

_YES_NO = frozenset(
    re.findall(
        r"\S+",
        """
    smoker smoking pregnant pediatric paediatric deceased portable mobile bedside upright supine inpatient outpatient
    emergency icu followup follow official male female insurance interpreter frontal lateral pa ap
""",
    )
)
"""Words of metadata that yes and no may answer; of others, such as examination, they are results."""

_RESULTS = frozenset(
    re.findall(
        r"\S+",
        """
    positive negative pos neg positiv negativ positif negatif positivo negativo abnormal pathological pathologic
    pathologisch pathologique patologico patologica anormal anormale anomalo unremarkable remarkable auffallig
    unauffallig
""",
    )
)
"""Values that are results, whatever the column is called, in lower case and without accents."""

_OF_REPORTS = frozenset(
    ("id", "ids", "uid", "uids", "date", "time", "datum", "hour", "year", "timestamp", "code", "codes", "number", "nr",
     "no", "num", "type", "status", "version", "photometric", "author", "signed", "verified", "language", "priority")
)  # fmt: skip
"""Words that make a report's name that of metadata."""

_VALUES = (
    frozenset(("m", "f", "o", "u", "male", "female", "other", "man", "woman", "w", "d", "männlich", "weiblich")),
    frozenset(("pa", "ap", "ll", "lat", "lateral", "frontal", "rl", "rlat", "llat", "lld", "rld", "obl", "oblique",
               "apsupine", "ap_supine", "posteroanterior", "anteroposterior", "postero-anterior", "antero-posterior")),
    frozenset(("cr", "dx", "rg", "sc", "ot", "rf", "xa")),
    frozenset(("monochrome1", "monochrome2", "rgb", "rgba", "l", "la", "i;16", "palette color", "ybr_full")),
    frozenset(SYNONYMS),
    frozenset(("png", "jpg", "jpeg", "dcm", "dicom", "tif", "tiff", ".png", ".jpg", ".jpeg", ".dcm", ".dicom")),
)  # fmt: skip
"""Sexes, views, modalities, kinds of pixels, splits, formats: a column that holds only one kind of these is metadata,
if a word of its name says so, too."""

_FORMS = re.compile(
    r"\d{4}[-./]?\d\d[-./]?\d\d(?:[ T_]?[\d:.]+Z?)?|\d\d?[./]\d\d?[./]\d{2,4}|\d\d?:\d\d(?::\d\d(?:\.\d+)?)?"  # when
    r"|\d+ ?[x*\u00d7] ?\d+(?: ?px| [A-Z]{1,4})?"  # size
    r"|[0-9a-fA-F]{32,128}|\d+(?:\.\d+){4,}"  # hash, UID
    r"|\S*/\S*\.\w{2,6}|\S+\.(?:png|jpe?g|dcm|dicom|tiff?)"  # path
)


def is_metadata(name: str, cells: Sequence[str] = ()) -> bool:
    """Return whether a column is known to hold no findings.

    Its name decides. A name with that of a finding in it, such as "Effusion since" or "tube position", is never one of
    metadata. Values alone do not decide either, since f and m may be answers as well as sexes.

    Args:
        name: the column's name. All of its words must be known, and one must be that of metadata; one is enough if the
            cells are all dates, sizes, paths, sexes or views. A neutral name, such as size, is enough if they are all
            dates, sizes or paths. No date, size or path may be missing then.
        cells: its cells.
    """
    spellings = [words_of(name), words_of(divided(name))]  # kVp, and ViewPosition
    if is_named_after_finding(name) or _holds_results(spellings, cells):
        return False
    if any(" ".join(words) in _NAMES for words in spellings):
        return True
    if any(set(words) & _METADATA and set(words) <= _METADATA | _PEOPLE | _NEUTRAL for words in spellings):
        return True
    if any(set(words) & _PEOPLE and set(words) <= _PEOPLE | _NEUTRAL for words in spellings):
        return not _is_reading(name, cells)
    known_cells = {cell.lower() for cell in cells if not is_unknown(cell)}
    if not known_cells:
        return False
    named = any(set(words) & _METADATA for words in spellings)
    if named and len(known_cells) > 1 and any(known_cells <= values for values in _VALUES):
        return True
    if any(map(is_unknown, cells)):  # a date that only some films have may be that of a finding
        return False
    name_fits = named or any(words and set(words) <= _NEUTRAL for words in spellings)
    return name_fits and all(map(_FORMS.fullmatch, known_cells))


def _holds_results(spellings: Sequence[Sequence[str]], cells: Sequence[str]) -> bool:
    """Return whether a column says how a film was read.

    It is called after a report and not after its number or date, or it has results or answers where metadata has none.

    Args:
        spellings: the words of its name.
        cells: its cells.
    """
    if any(" ".join(words) in _NAMES for words in spellings):
        return False
    if is_named_after_report(" ".join(spellings[-1])) and not any(set(words) & _OF_REPORTS for words in spellings):
        return True
    known_cells = [cell for cell in dict.fromkeys(cells) if not is_unknown(cell)]
    if any(set(words_of(cell)) & _RESULTS for cell in known_cells):
        return True
    answers = any(len(cell) > 1 and is_answer(cell) for cell in known_cells)
    return answers and not any(set(words) & _YES_NO for words in spellings)


def finding_words_in(cells: Sequence[str]) -> list[str]:
    """Return the words of cells that name findings.

    Paths, dates and the like are left out.
    """
    return finding_words(cell for cell in dict.fromkeys(cells) if not _FORMS.fullmatch(cell))


def _is_reading(name: str, cells: Sequence[str]) -> bool:
    """Return whether a column of a reader may hold labels.

    "Reader 1" is one of several who labelled the films. A single letter, such as J, may be an initial.
    """
    if re.search(r"\d", name) or finding_words_in(cells):
        return True
    return any(cell == "0" or (len(cell) > 1 and (is_answer(cell) or is_unsure(cell))) for cell in cells)

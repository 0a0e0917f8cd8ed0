"""Words by which names of columns and free text name findings."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from edgecxr.data.tables.labels import SETS, plain_name

_PARTS = re.findall(
    r"\S+",
    """
    abnormal aneurysm aneurism asbestos atelec atelek bronchiect bronchiekt bronchit bronquit calcif kalzif verkalk
    carcinom karzinom cancer cardiomegal kardiomegal herzvergross cardiomediastin cavern kavern cavit congest stauung
    consolid konsolid edema oedem œdem lungenodem effusion erguss epanchement derrame versament embol emphysem emfise
    enfise fibros fibroz fractur fraktur fratur frattur herni infiltra lesion lasion malign metasta neoplas tumor tumour
    neumon polmonit lungenentzund neumoth neumotor neumomed neumoper hemothora haemothora hydrothora nodul rundherd
    opaci verschatt sarcoid sarkoid silicos silikos thicken verdick epaississ engrosam tubercul tuberkul
    catheter katheter pacemaker schrittmacher marcapas
    пневмони пневмоторакс выпот ателектаз кардиомегали перелом инфильтрат туберкул
    肺炎 气胸 氣胸 积液 積液 胸水 结节 結節 骨折 心肥大 浸润 浸潤 肺不张 無気肺 結核 结核
""",
)
"""Parts of words in several languages, in lower case and without accents; they name a finding wherever they stand."""

_WHOLE = re.findall(
    r"\S+",
    """
    ards chf copd covid cyst cysts zyste zysten ild mass masses masse massen masa masas odem odeme ptx tb tbc
    tube tubes tubus drain drains auffallig
""",
)
"""Whole words, which mean something else as a part of others."""

_WORD = re.compile(rf".*(?:{'|'.join(_PARTS)}).*|{'|'.join(_WHOLE)}")
_NO_FINDING = re.compile(r"x[ _-]?ray[ _-]tube|tube[ _-](?:current|voltage)|body[ _-]mass")
"""Terms with such a word that name no finding."""

_REPORTS = frozenset(
    re.findall(
        r"\S+",
        """
    report reports interpretation finding findings impression impressions conclusion conclusions diagnosis diagnoses
    diagnose diagnosen diagnostic diagnosi diagnostico befund befunde befundtext beurteilung bericht rapport resultat
    informe hallazgos laudo achados impressao referto conclusioni verslag bevindingen conclusie opis wnioski rozpoznanie
    lelet velemeny заключение описание 所见 报告 所見 報告 診断 诊断
""",
    )
)
"""Words for the text of a radiologist, in lower case and without accents."""

_NAMES = frozenset(plain_name(label) for labels in SETS.values() for label in labels)
_TERMS = tuple(f" {' '.join(re.findall('[a-z]+', name))} " for name in sorted(_NAMES))


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case and without accents."""
    return re.findall(r"[^\W\d_]+", unaccented(text))


def divided(name: str) -> str:
    """Return a name such as ViewPosition with blanks between its words."""
    if not re.search(r"[^\W_A-Z][^\W_a-z]", name):
        return name
    signs = zip(f" {name}", name, strict=False)
    return "".join(
        f" {sign}" if sign.isupper() and before.isalpha() and not before.isupper() else sign for before, sign in signs
    )


def is_named_after_finding(name: str) -> bool:
    """Return whether a column's name has a finding's name in it."""
    spellings = [f" {' '.join(words_of(text))} " for text in (name, divided(name))]
    return any(term in text for term in _TERMS for text in spellings) or bool(finding_words([name, divided(name)]))


def is_named_after_report(name: str) -> bool:
    """Return whether a column is called after the text of a radiologist."""
    words = [*words_of(name), *words_of(divided(name))]
    return any(word in _REPORTS or word.endswith(("report", "befund", "bericht")) for word in words)


def finding_words(texts: Iterable[str]) -> list[str]:
    """Return the words of texts that name findings, each once."""
    words = dict.fromkeys(word for text in texts for word in words_of(_NO_FINDING.sub(" ", unaccented(text))))
    return [word for word in words if _WORD.fullmatch(word)]


def lists_findings(cell: str) -> bool:
    """Return whether a cell lists a finding of a label set."""
    return any(plain_name(part.strip(" []'\"")) in _NAMES for part in re.split(r"[|;,]", cell))


def unaccented(text: str) -> str:
    """Return a text in lower case and without accents."""
    if text.isascii():
        return text.lower()
    return "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))

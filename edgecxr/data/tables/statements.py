"""Names that state that nothing is wrong, absent or known."""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache

from edgecxr.data.tables.cells import NEGATIVE, POSITIVE
from edgecxr.data.tables.finding_words import divided, is_named_after_finding, unaccented, words_of
from edgecxr.data.tables.labels import is_finding, plain_name
from edgecxr.data.tables.table import is_unknown

NORMAL = (
    *("normal(?:s|e|es|en|er|i|is)?", "normaux", "normaal", "healthy", "unremarkable", "within normal limits"),
    *("no (?:abnormal |pathological )?findings?", "nofindings?", "no abnormalit(?:y|ies)(?: (?:detected|seen))?"),
    *("nothing abnormal(?: detected| seen)?", "no pathology", "unauffallig(?:e|er|es)?", "gesunde?r?", "o b"),
    *("(?:ohne|kein) (?:pathologischen? )?befund", "(?:keine|ohne) (?:auffalligkeiten|befunde)", "sain(?:e|s|es)?"),
    *("sans (?:anomalies?|particularites?)", "aucune anomalie", "pas d anomalies?", "rien a signaler", "san[oiae]s?"),
    *("sin (?:hallazgos|alteraciones|anomalias)(?: patologic[ao]s)?", "nessun reperto", "nella norma"),
    *("senza (?:alterazioni|anomalie|reperti)", "sem (?:achados|alteracoes|anormalidades)", "saudave(?:l|is)"),
    *("geen (?:afwijkingen|bijzonderheden|bevindingen)", "gezonde?", "bez (?:zmian|odchylen)", "w normie"),
    *("prawidłow[aey]", "zdrow[aey]", "норма", "нормальн\\w+", "здоров\\w*", "без (?:патологии|изменении)"),
    *("normalis", "egeszseges", "正常", "健康", "(?:无|未见|無|未見)(?:明显)?(?:异常|異常)", "(?:異常|所見)なし"),
)
"""Words for nothing is wrong, as patterns of lower case words without accents, with a blank between them."""

_NEUTRAL = frozenset(
    re.findall(
        r"\S+",
        """
    is are flag label class category status film films image images img picture cxr chest thorax x ray xray rx
    radiograph radiographs radiography study studies scan exam examination finding findings result impression case cases
    patient patients person persons subject subjects bild bilder aufnahme aufnahmen rontgenbild radio radiographie
    cliche radiografia torax imagen placa
""",
    )
)
"""Words that say nothing beside these."""

_NOTHING = frozenset(
    (*NEGATIVE, "0", "0.0", "nil", "none", "nothing", "health", "clear", "clean", "control", "controls", "ok", "okay",
     "nad", "wnl", "ras", "ob", "negativ", "negativo", "negativa", "negatif", "unknown", "unbekannt", "inconnu",
     "desconocido", "unlabeled", "unlabelled", "missing", "undefined", "pending", "[]", "{}", "()", "--", "\u2013",
     "\u2014")
)  # fmt: skip
"""Whole names that may say that nothing is wrong, or that nothing is known."""

_ABNORMAL = re.compile(r"\b(?:ab|a|sub|un|non)normal\w*|\banormal\w*|\bun(?:healthy|gesund)\w*|\bnormali[sz]\w*")
_NORMAL = re.compile(rf"\b(?:{'|'.join(NORMAL)})\b")
_CLEAR = re.compile(r"\bclear (?:lungs?|chest|cxr|film|fields?)\b|\b(?:lungs?|chest|fields?) (?:is |are )?clear\b")
_NOT_NORMAL = re.compile(rf"\b(?:not|kein\w*|non|nicht|no|pas|niet) {_NORMAL.pattern}")
_DISEASE = re.compile(r"\bnormal (?:pressure|tension|volume|anion)\b")
"""An adjective of a disease, such as normal pressure hydrocephalus."""

_ADJECTIVES = (
    "specific|calcified|calcific|displaced|obstructive|obstructing|occlusive|segmental|solid|cardiogenic|tuberculous|"
    "infectious|inflammatory|traumatic|malignant|axial|acute|united|healed|small|hodgkin"
)
# "Non specific opacity" says what an opacity is like; "non pneumonia" says that there is none.
_NEGATED = re.compile(
    r"(?:no|not|without|(?:negative|negativ[oe]?|negatif) (?:for|para|per|pour|fur)|absent|excluded?|resolved|nil|nie|"
    r"(?:absence|lack|free) of|keine?[nr]?|ohne|nicht|ausschluss|sin|ningun[ao]?|sans|pas (?:de|d)|aucune?|senza|"
    r"nessun[ao]?|sem|nao|geen|zonder|niet|bez|brak|nem|ikke|ingen|без|нет|не) .*|"
    rf"non (?!(?:{_ADJECTIVES})\b).*|(?:无|無(?!気肺)|没有|未见|未見).*|.*(?:なし|阴性|陰性)"
)
# What is denied further on counts if it is a finding: an "infiltrado no complicado" is there.
_DENIED_AFTER = re.compile(
    r".+? (?:no|not|without|keine?[nr]?|ohne|sin|sans|pas (?:de|d)|senza|sem|geen|zonder|bez|без) "
    r"(?!\w+(?:[ai]d|ic|os)[oa]s?\b)(.+)"
)
_DENIED_BEFORE = re.compile(
    r"(?:.* )?(?:negativ[aeo]?|negatif|neg|absente?|ausente|assente|excluded|resolved|ruled out|none|nil|"
    r"ausgeschlossen|"
    r"descartad[ao]|excluid[ao]|exclue?|esclus[ao]|verneint|fehlt|nicht (?:vorhanden|nachweisbar|nachgewiesen)|"
    rf"not (?!(?:{_ADJECTIVES}|specified|classified)$)\w+|no (?:longer \w+|evidence|signs?))"
)


def _answered(words: Collection[str], marks: str, number: str = "") -> re.Pattern[str]:
    """Return the pattern of names such as "Effusion: no".

    Args:
        words: the answers.
        marks: signs that are answers.
        number: an answer after a blank or underscore, as in the names of one-hot columns, Effusion_0.
    """
    letters, answers = ("|".join(map(re.escape, group)) for group in (
        [word for word in words if len(word) == 1 and word not in "+-"],
        sorted((word for word in words if len(word) > 1), reverse=True),
    ))  # fmt: skip
    behind = rf"\s*[:=(\[]\s*(?:{letters}|{answers}|[{marks}])|[\s_\u2013-]+(?:{answers}{number})|\s*[{marks}]"
    return re.compile(rf"(?P<name>.*\w)(?:{behind})[)\].\s]*", re.IGNORECASE)


_DENIED = _answered((*NEGATIVE, "0", "0.0", "-ve"), "\u2013\u2212-", "|0|0.0")
_AFFIRMED = _answered((*POSITIVE, "1", "1.0", "+ve"), "+")
_HISTORY = re.compile(
    r"\b(?:status post|zustand nach|history of|follow[- ]up(?: of)?|old|former|previous|prior|past|"
    r"post|healed|treated|residual|resolving|known|alte[rns]?|bekannte[rns]?|ancienne?s?|antigu[ao]s?)\b(?!-)|"
    r"\b(?:s/p|h/o|hx of)|\b(?:z\. ?n|st\. ?p)\.|\([^()]*\)|\[[^\[\]]*\]",
    re.IGNORECASE,
)
_JOINERS = frozenset(re.findall(r"\S+", "and or with plus und oder mit sowie et ou avec y e o con com i +"))


def is_normal(name: str, also: Collection[str] = ()) -> bool:
    """Return whether a name says that nothing is wrong.

    Case, punctuation, accents and words such as CXR do not count.

    Args:
        name: the name of a class or column, or a cell.
        also: other names that the user says mean it.
    """
    return _says_normal(name) or plain_name(name) in map(plain_name, also)


@lru_cache(maxsize=4096)
def _says_normal(name: str) -> bool:
    if re.search(r"[\d?]", name) or _DENIED.fullmatch(name):  # normal_0, Normal?, and "normal -"
        return False
    rest, times = _NORMAL.subn(" ", _NOT_NORMAL.sub(" abnormal ", _text(name)))
    return times > 0 and not _without_neutral(rest)


def _without_neutral(text: str) -> str:
    return " ".join(word for word in text.split() if word not in _NEUTRAL)


@lru_cache(maxsize=4096)
def objection(name: str) -> str:
    """Return what a name may say other than a finding.

    Returns:
        A clause for a message; "" if the name may be that of a finding.
    """
    text = _text(name)
    if plain_name(name) in _NOTHING or is_unknown(name) or _without_neutral(text) in _NOTHING:
        return "which may say that nothing is wrong, or that nothing is known"
    present = _NOT_NORMAL.sub(" ", _DISEASE.sub(" ", text))
    if (
        _NORMAL.search(present)
        or _CLEAR.search(present)
        or any("normal" in word for word in _ABNORMAL.sub(" ", present).split())
    ):
        return "which may say that nothing is wrong"
    if _denies(name, present.strip()):
        return "which says what is absent"
    return ""


def _denies(name: str, text: str) -> bool:
    after = _DENIED_AFTER.fullmatch(text)
    if any(pattern.fullmatch(text) for pattern in (_NEGATED, _DENIED_BEFORE)) or _DENIED.fullmatch(name):
        return True
    if any(word.startswith("no") and is_finding(word[2:]) for word in text.split()):  # nopneumonia
        return True
    return after is not None and is_named_after_finding(after[1])


def without_remarks(name: str) -> str:
    """Return a finding's name without remarks.

    These are brackets and words for the past.
    """
    return " ".join(_HISTORY.sub(" ", name).split())


def signs(name: str) -> tuple[str, ...]:
    """Return the words and numbers of a finding's name.

    Case, accents, punctuation and a yes behind it do not count.
    """
    affirmed = _AFFIRMED.fullmatch(name)
    text = unaccented(divided(affirmed["name"] if affirmed else name))
    return tuple(re.findall(r"\d[\d.,/-]*|[^\W\d_]+|[<>\u2264\u2265=](?=\s*\d)|[+%]", text))


def parts_of(name: str, findings: Collection[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the findings that a name consists of.

    Args:
        name: a name without a separator, such as Pneumonia Effusion.
        findings: `signs` of known findings.

    Returns:
        The findings, with nothing but words such as "and" between them; an empty list if anything else is there.
    """
    rest, parts = signs(name), []
    while rest:
        longest = max((finding for finding in findings if rest[: len(finding)] == finding), key=len, default=())
        if not longest and rest[0] not in _JOINERS:
            return []
        parts += [longest] if longest else []
        rest = rest[len(longest) or 1 :]
    return parts


def _text(name: str) -> str:
    return " ".join(words_of(divided(name)))

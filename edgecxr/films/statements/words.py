"""Words about views and regions in free text, in several languages.

People type this text, so that only whole words of a list count. All are in upper case, without accents.
"""

from __future__ import annotations

import re
import unicodedata


def plain(text: str) -> str:
    """Return text in printable upper case, without accents."""
    return _without_accents(text).strip().upper()


def _without_accents(text: str) -> str:
    text = unicodedata.normalize("NFD", text)
    return "".join(c for c in text if c.isprintable() and not unicodedata.combining(c))


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(rf"\b(?:{_without_accents(pattern)})\b" for pattern in patterns))


def _characters(*patterns: str) -> str:
    return "|".join(map(_without_accents, patterns))  # of writings that do not separate words


# Values that are filled in where nothing is known.
SAYS_NOTHING = re.compile(
    r"[\W_]*|X+|N[./]?A\.?|(UN|NOT )?(KNOWN|DEFINED|SPECIFIED|SPECIFY)|UNBEKANNT|DESCONOCIDO|OTHERS?|NONE|NULL"
    r"|DEFAULT|TEST"
)

# The chest, and parts of it that chest films are made for.
CHEST = re.compile(
    r"CHEST|THORA[XC]|THORAKAL|TORAX|TORAC|TORAKS|LUNG|PULMO|POUMON|POITRINE|PECHO|PULMON|BRUST|CXR|\bTX\b|\bRIBS?\b"
    r"|STERNUM|\bHEART|CARDIAC|MEDIASTIN|TRACHEA|PLEURA|WHOLE ?BODY|RIPPEN|COSTILLA|\bTHX\b"
    r"|KLATK|BORSTKAS|MELLKAS|BRYST|BROSTKORG|HRUDN|GOGUS|AKCIGER|KEUHKO|\bP[L\u0141]UC(?!K)|\bPLIC(?:E|I|N\w*)?\b|"
    + _characters("胸", "肺", "흉부", "가슴", "ГРУД", "ЛЕГКИ", "ЛЕГКОГО", "ОГК", "صدر", "ΘΩΡΑΚ")
)
SPINE = re.compile(r"SPINE|COLUMN|COLONNE|VERTEB|LUMB|WIRBEL|BWS")

# Parts of the spine that are called after the chest; taken out of free text before the chest is looked for.
_THORACIC_SPINE = re.compile(
    r"THORACO.?LUMB\w*|BRUST.?WIRBEL\w*|(THORA\w+|DORSAL) (SPINE|COLUMN|VERTEB\w*)|(SPINE|COLUMN|VERTEB\w*)\W+THORA\w+"
    r"|(COLUMNA|COLONNE|COLONNA|COLUNA|RACHIS)\W+(VERTEBRALE?\W+)?(DORSO\S*|DORSAL\w*|THORA\w+|TORA\w+)"
    r"|HRUDN\w*\W+PATER\w*"
)

_OTHER = _words(
    # limbs and their joints
    r"HANDS?(?! ?(UP|HELD))",
    r"FINGERS?",
    "THUMBS?",
    "DAUMEN",
    "WRISTS?",
    "HANDGELENK",
    "POIGNETS?",
    "MUNECAS?",
    "MANOS?",
    "FOREARMS?",
    "UNTERARM",
    "ELBOWS?",
    "ELL?E?N?BOGEN",
    "COUDES?",
    "CODOS?",
    "HUMERUS",
    "UPPER ARM",
    "OBERARM",
    "SHOULDERS?",
    "SCHULTERN?",
    "EPAULES?",
    "HOMBROS?",
    "OMBROS?",
    "SPALLA",
    "CLAVICLES?",
    "SCAPULA",
    "FOOT",
    r"FEET(?! ?FIRST)",
    "FUSS",
    "FUESSE",
    "PIEDS?",
    "TOES?",
    "ANKLES?",
    "SPRUNGGELENK",
    "OSG",
    "CHEVILLES?",
    "TOBILLOS?",
    "HEELS?",
    "CALCANEUS",
    "FERSE",
    "LOWER LEGS?",
    "LEGS?",
    "UNTERSCHENKEL",
    "TIBIA",
    "FIBULA",
    "KNEES?",
    r"KNIE\w*",
    "GENOUX?",
    "RODILLAS?",
    "JOELHOS?",
    "GINOCCHIO",
    "PATELLA",
    "FEMUR",
    "THIGHS?",
    "OBERSCHENKEL",
    "HIPS?",
    r"HUE?FT\w*",
    "HANCHES?",
    "CADERAS?",
    "QUADRIL",
    "EXTREMIT(?:Y|IES)",
    # head and neck
    "SKULL",
    r"SCHAE?DEL",
    "CRANE",
    "CRANEO",
    "CRANIO",
    "CRANIUM",
    "KOPF",
    r"HEAD(?!\W*(UP|DOWN|END|FIRST|OF (THE )?BED|ELEVAT\w*|RAISED|(AT )?[1-9]\d(?!\d)))",  # a bed's
    "SINUS(?:ES)?",
    "NNH",
    "MANDIB(?:LE|ULA)",
    "UNTERKIEFER",
    "ORBITS?",
    "ORBITA",
    "NASAL BONES?",
    "DENTAL",
    "TEETH",
    "JAW",
    "NECK",
    "HALS",
    # spine, pelvis, abdomen, breast
    r"[CTL][ -]?SPINE",
    "SPINE",
    "LWS",
    "HWS",
    "BWS",
    r"WIRBEL\w*",
    "RACHIS",
    "COLUMNA",
    "COLONNE",
    "COLONNA",
    "COLUNA",
    r"LUMBAR\w*",
    r"LUMBO\w*",
    r"CERVICAL\w*",
    r"VERTEBR\w*",
    "SCOLIOSIS",
    "SKOLIOSE",
    r"PELVI[SC]",
    r"BECKEN\w*",
    "BASSIN",
    "SACRUM",
    "COCCYX",
    "KUB",
    r"ABDOM\w*",
    "BAUCH",
    r"MAMMO\w*",
    "MAMMA",
    "BREASTS?",
)
_OTHER_CHARACTERS = re.compile(
    _characters(
        "腹部",
        "骨盤",
        "骨盆",
        "腰椎",
        "頚椎",
        "頸椎",
        "颈椎",
        "膝関節",
        "膝关节",
        "頭部",
        "头颅",
        "手部",
        "足部",
        "肩関節",
        "肩关节",
        "КОЛЕНН",
        "ЧЕРЕП",
        "ПОЗВОНОЧ",
        "ТАЗОБЕДР",
        "ЖИВОТ",
        "БРЮШН",
    )
)

_SIDE = "(?:LEFT|RIGHT|LT|RT|LI|RE|[LR])"
# Numbers stand behind the views of a series: LAT1.
_LATERAL = _words(
    "[LR]L",
    r"L[-/]L",
    f"{_SIDE}?LAT{_SIDE}?[1-9]?",
    f"{_SIDE}?LATERA(?:L|AL)(?:A|E[NRS]?|IS|N[A-Z]{{1,3}}|{_SIDE})?[1-9]?",
    r"(?:CHEST|THORAX|TORAX|CXR|THX)(?:LAT(?:ERAL)?|LL)[1-9]?",  # typed as one word
    "LATERO",
    r"LATERO.?(?:LATER|MEDI)AL\w*",
    r"MEDIO.?LATERAL\w*",
    "XTL",  # cross-table lateral
    r"SEITL\w*",
    "SEITENAUFNAHME",
    "SEITENBILD",
    r"(?:2|II|ZWEITE|2ND|SECOND)[. ]{0,2}(?:EBENE|PLANE)",
    r"(?:2|II)\. ?EB",  # "2 Eb." are two
    "PERFIL",
    "PROFILO?",
    "(?:LEFT|RIGHT) PROFILE|PROFILE VIEW",  # other profiles are an examination's settings
    "DE COTE",
    # Polish; Czech, Slovak, Croatian, Serbian; Slovenian; Russian, Ukrainian, Bulgarian
    r"BOCZN\w*",
    r"BOCN\w*",
    r"БОЧН\w*",
    "STRANSK[AEIO]",
    r"БОКОВ\w*",
    "(?<!\u041d\u0410 )(?<!ЛЕВЫЙ )(?<!ПРАВЫЙ )БОК",  # others lie on it
    r"БІЧН\w*",
    r"СТРАНИЧН\w*",
    # Dutch, Danish, Norwegian, Swedish, Icelandic
    r"ZIJDELINGS\w*",
    r"ZIJ(?:AANZICHT|BEELD|FOTO|OPNAME|WAARTS)\w*",
    "(?<!OP )(?<!DE )(?<!LINKER )(?<!RECHTER )ZIJ",
    "DWARS",
    r"SID[EO]BIL(?:D|LEDE)\w*",
    r"SID[EO](?:OPTAG|PROJE[CK])\w*",
    r"HLIÐARMYND\w*",
    # Finnish, Estonian, Hungarian, Lithuanian, Latvian
    r"SIVU(?:KUVA|LTA|PROJEKTIO|SUUN)\w*",
    r"KÜLG(?:VAADE|ÜLESVÕTE|PROJEKTSIOON)\w*",
    r"OLDAL(?:FELVÉTEL|IRÁNY|KÉP|NÉZET)\w*",
    "ŠONIN[EI]S?",
    r"SĀNU PROJEKCIJ\w*|SĀNSKATS",
    # Greek, Albanian, Vietnamese, Indonesian
    r"ΠΛΑΓΙ\w*",
    "ANËSORE",
    "NGHIÊNG",
    "SAMPING",
    # Turkish; alone it is a name, too
    r"(?:AKCIGER|GOGUS|TORAKS|GRAFI)\w* YAN|YAN (?:AKCIGER|GOGUS|TORAKS|GRAFI)\w*",
)
_LATERAL_CHARACTERS = re.compile(
    _characters(
        "側面", "侧面", "側位", "侧位", "側方", "ラテラル", "측면", "측방", "جانبي", "جانبی", "نیمرخ", "לטרלי", "צדדי"
    )
    + "|"
    + _characters("צידי", "ด้านข้าง")
)
_LATERAL_POSITIONS = frozenset({"ML", "LM", "SAGITTAL", "PROFILE", "SIDE", "YAN", "OLDAL", "SIVU", "BOK"})
"""Whole values of ViewPosition and meanings of its codes; within free text they may be anything."""

_OBLIQUE = _words("RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "OBL(?:IQUE)?")
_PA = re.compile(r"\bP[./-]?A\b|POSTERO.?ANTERIOR")
_AP = re.compile(r"\bA[./-]?P\b|ANTERO.?POSTERIOR")
_FRONTAL = re.compile(
    r"\b[RL]LD\b|DECUB|SEITENLAGE|ZIJLIGGING|SIDELE[IJ]E|SIDOLAGE|ΠΛΑΓΙΑ ΚΑΤΑΚΛΙΣ|FRONTA+L|PREDOZADN|ZADOPREDN"
    r"|\bDE (FACE|FRENTE)\b|\bFACE\b|\bFRENTE\b|"
    + _characters("ΠΡΟΣΘΙ", "正面", "正位", "後前", "后前", "前後", "前后", "정면", "ПРЯМ")
)

# "Chest 2 views" and "chest with lateral" name no view of one film.
_SEVERAL = re.compile(
    r"\b([2-9]|TWO|ZWEI|BOTH|DEUX|DOS|DUE|ДВУХ|ДВЕ)([ -]?\u0425)?[ -]?(OR MORE )?"
    r"(V|VIEWS?|VWS?|VUES?|EB|EBENEN|PROJ\w*|PLANES|PROYEC\w*|INCIDENC\w*|ПРОЕКЦ\w*)\b"
    r"|\b(1|I|ERSTE|FIRST)\W*(EB\W*|EBENE |PLANE )?(U|UND|AND|&|\+|/|,)\W*(2|II|ZWEITE|SECOND)\b"
    "|正[側侧]|正.?[、+/].?[側侧]"
)
_JOINED = re.compile(r"(\b(W|WITH|MIT|AND|UND|ET|Y|E|I|И|VE|OG|OCH|\u039a\u0391\u0399|PLUS)\b|[&+])\W*$")


def oblique_of(text: str) -> str | None:
    """Return the words for an oblique view, or None."""
    match = _OBLIQUE.search(text)
    return match[0] if match else None


def frontal_of(text: str) -> str | None:
    """Return "PA", "AP", "frontal", or None if words name none of them."""
    return "PA" if _PA.search(text) else "AP" if _AP.search(text) else "frontal" if _FRONTAL.search(text) else None


def lateral_of(text: str) -> str | None:
    """Return the words for a lateral view, or None."""
    match = _LATERAL.search(text) or _LATERAL_CHARACTERS.search(text)
    return match[0] if match else None


def is_lateral_position(value: str) -> bool:
    """Return whether a whole value of ViewPosition names a lateral view."""
    return value in _LATERAL_POSITIONS or lateral_of(value) is not None


def is_of_several(text: str) -> bool:
    """Return whether words are about several views."""
    lateral = _LATERAL.search(text)
    joined = lateral is not None and _JOINED.search(text[: lateral.start()].strip())
    return bool(joined or _SEVERAL.search(text))


def names_chest(text: str) -> bool:
    """Return whether words name the chest, not only the spine in it."""
    return CHEST.search(_THORACIC_SPINE.sub(" ", text)) is not None


def other_part(text: str) -> str | None:
    """Return the word for another part of the body.

    None if there is none, or if the chest is named too.
    """
    if names_chest(text):
        return None
    match = _OTHER.search(text) or _OTHER_CHARACTERS.search(text) or _THORACIC_SPINE.search(text)
    return match[0] if match else None

"""Words for yes, no and doubt in the cells of users' tables."""

from __future__ import annotations

import re
from functools import lru_cache

from edgecxr.data.tables.table import is_label_value, is_unknown, label_value, number

POSITIVE = (
    *("yes", "y", "true", "t", "positive", "pos", "present", "+", "x"),
    *("ja", "j", "oui", "si", "sí", "sim", "igen", "tak", "да", "是", "有", "はい", "あり"),
)
"""Answers that state a finding, in lower case."""

NEGATIVE = (
    *(
        "no",
        "n",
        "false",
        "f",
        "negative",
        "neg",
        "absent",
        "-",
        "nein",
        "non",
        "não",
        "nao",
        "nee",
        "nem",
        "nie",
        "нет",
    ),
    *("否", "无", "いいえ", "なし"),
)
"""Answers that deny one."""

UNSURE = (
    *("-1", "-1.0", "?", "u", "uncertain", "unsure", "equivocal", "maybe", "possible", "probable", "suspected"),
    *("questionable", "indeterminate", "doubtful"),
)
"""Cells about a finding that is neither stated nor denied."""

UNCERTAIN = {"ignore": "", "ones": "1", "zeros": "0"}
"""What an uncertain mention counts as (Irvin et al., "CheXpert", AAAI 2019, section 4)."""


_DECIMAL_COMMA = re.compile(r"0,[0-9]+|1,0*")


def is_answer(cell: str) -> bool:
    """Return whether a cell is a label in another notation."""
    return cell.lower() in (*POSITIVE, *NEGATIVE) or bool(_DECIMAL_COMMA.fullmatch(cell))


@lru_cache(maxsize=1024)
def is_unsure(cell: str) -> bool:
    """Return whether a cell says that a finding is uncertain."""
    try:
        return number(cell) == -1
    except ValueError:
        return cell.lower() in UNSURE


def is_positive(cell: str) -> bool:
    """Return whether a label or an answer states a finding."""
    if is_label_value(cell):
        return label_value(cell) >= 0.5
    if _DECIMAL_COMMA.fullmatch(cell):
        return float(cell.replace(",", ".")) >= 0.5
    return cell.lower() in POSITIVE


def is_clear(cell: str) -> bool:
    """Return whether a cell states a finding, denies it or is empty."""
    return is_unknown(cell) or is_label_value(cell) or is_answer(cell)

"""Findings are told in names and free text of several languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.data.tables.finding_words import (
    finding_words,
    is_named_after_finding,
    is_named_after_report,
    lists_findings,
)
from edgecxr.data.tables.labels import SETS

FINDINGS = sorted({label for labels in SETS.values() for label in labels})


@given(finding=st.sampled_from(FINDINGS), spelling=st.sampled_from([str.lower, str.upper, str.title, str.casefold]))
def test_each_finding_of_a_label_set_is_told(finding: str, spelling: object) -> None:
    written = spelling(finding)  # type: ignore[operator]
    assert is_named_after_finding(written) and is_named_after_finding(written.replace(" ", "_"))
    assert lists_findings(f"x| {written}") and not lists_findings("x|y")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Kein Pneumothorax, kleiner Pleuraerguß.", ["pneumothorax", "pleuraerguss"]),
        ("Neumotórax; derrame", ["neumotorax", "derrame"]),
        ("no masses, two cysts", ["masses", "cysts"]),
        ("Massachusetts, massive, hotbed, XRayTubeCurrent, X-ray tube, body mass index, modem", []),
        ("", []),
    ],
)
def test_whole_words_are_told_with_their_endings(text: str, words: list[str]) -> None:
    assert finding_words([text]) == words


def test_names_of_reports_are_told() -> None:
    for name in (
        "Report",
        "Befund",
        "RadiologyReport",
        "impression_text",
        "Beurteilung",
        "Findings",
        "Заключение",
        "Lungenbefund",
    ):
        assert is_named_after_report(name)
    for name in ("reporter", "image", "Kind"):
        assert not is_named_after_report(name)

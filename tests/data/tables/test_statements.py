"""Names that say that nothing is wrong, or what is absent, are told from those of findings."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.data.tables.cells import NEGATIVE, POSITIVE
from edgecxr.data.tables.labels import SETS
from edgecxr.data.tables.statements import is_normal, objection, parts_of, signs, without_remarks

FINDINGS = sorted({label for labels in SETS.values() for label in labels})
SPELLINGS: tuple[Callable[[str], str], ...] = (
    *(str, str.upper, str.title, lambda name: name.replace(" ", "_"), lambda name: f"{name}."),
    *(lambda name: name.title().replace(" ", ""), lambda name: f" {name} ", lambda name: name.replace(" ", "-")),
)
NORMAL = (
    *("normal", "no finding", "no findings", "healthy", "unremarkable", "within normal limits", "no abnormality"),
    *("kein befund", "ohne befund", "unauffällig", "gesund", "sin hallazgos", "sans anomalie", "sem achados", "sain"),
    *("senza alterazioni", "geen afwijkingen", "bez zmian", "норма", "без патологии", "正常", "未见异常", "異常なし"),
)
PADCHEST = """
    aortic elongation; apical pleural thickening; atypical pneumonia; calcified granuloma; callus rib fracture;
    chronic changes; COPD signs; costophrenic angle blunting; fracture; granuloma; hydropneumothorax; infiltrates;
    interstitial pattern; loculated pleural effusion; lung metastasis; metastasis; multiple nodules; nodule; NSG tube;
    non axial articular degenerative changes; osteoporosis; pleural effusion; pneumonia; post radiotherapy changes;
    pseudonodule; pulmonary edema; rib fracture; suboptimal study; tuberculosis; tuberculosis sequelae; unchanged;
    vertebral degenerative changes; volume loss; emphysema; subcutaneous emphysema; mass; mediastinal mass
"""
REAL = (
    *(
        "Normal pressure hydrocephalus",
        "Abnormal",
        "Not normal",
        "non-normal",
        "Abnormality",
        "Nodule",
        "Node",
        "Notch",
    ),
    *("Nonspecific opacity", "Non-specific opacity", "Nonfracture", "Nosocomial pneumonia", "Noncardiogenic edema"),
    *("Infiltrado no complicado", "nódulo no calcificado", "COVID-19", "COVID+", "Lung_Opacity", "Viral Pneumonia"),
    *("Pneumonia not otherwise specified", "無気肺", "unhealthy", "Nicht gesund", "Neoplasm", "Old fracture", "Sick"),
    *("Normalized", "finding_1", "Anomalie", "Healthcare-associated pneumonia", "Clear cell carcinoma"),
)


@given(name=st.sampled_from(NORMAL), spelling=st.sampled_from(SPELLINGS), beside=st.sampled_from(["{}", "{} CXR"]))
def test_normal_is_known_however_it_is_written(name: str, spelling: Callable[[str], str], beside: str) -> None:
    assert is_normal(spelling(beside.format(name)))


@pytest.mark.parametrize(
    "name", ["isNormal", "normal_flag", "Normal (no finding)", "Normals", "o.B.", "NoFinding", "Normal|No finding"]
)
def test_other_spellings_of_normal_are_known(name: str) -> None:
    assert is_normal(name)


@given(
    finding=st.sampled_from(FINDINGS),
    denial=st.sampled_from(
        ["no {}", "{} negative", "{}: no", "{} -", "{}=0", "{} (resolved)", "{} ruled out", "{}, none", "kein {}",
         "{} not seen", "{} absent", "sin {}", "{} (-)", "{}-", "{} [no]", "absence of {}", "{} no longer seen",
         "Cough without {}", "без {}", "{} excluded", "无{}", "{}_0", "{} 0",
         "{}-0.0", "{} ausgeschlossen", "No{}"]
    )
    | st.sampled_from(sorted({word for word in NEGATIVE if len(word) > 1})).map(lambda word: f"{{}} {word}"),
    spelling=st.sampled_from(SPELLINGS[:4]),
)  # fmt: skip
def test_a_denied_finding_is_none(finding: str, denial: str, spelling: Callable[[str], str]) -> None:
    name = denial.format(spelling(finding))
    assert objection(name) and not is_normal(name)


@pytest.mark.parametrize(
    "name",
    ["negative", "None", "nil", "-", "[]", "0", "control", "nan", "unknown", "isnormal", "Healthy lungs", "nopneumonia",
     "Normal/Abnormal", "near-normal", "heart_normal", "Unremarkable mediastinum", "normal heart", "Normal?",
     "normal -", "normal: 0", "normal_0", "No finding (no)", "Negative CXR", "lungs clear", "control cases"],
)  # fmt: skip
def test_what_may_say_that_nothing_is_wrong_is_neither(name: str) -> None:
    assert objection(name) and not is_normal(name)


@pytest.mark.parametrize("name", [*FINDINGS, *REAL, *(name.strip() for name in PADCHEST.split(";"))])
def test_findings_stay_findings(name: str) -> None:
    for spelling in SPELLINGS[:4]:
        assert not objection(spelling(name)) and not is_normal(spelling(name))


@given(finding=st.sampled_from(FINDINGS), word=st.sampled_from(POSITIVE), behind=st.sampled_from(["{}: {}", "{} ({})"]))
def test_a_yes_behind_a_finding_changes_nothing(finding: str, word: str, behind: str) -> None:
    name = behind.format(finding, word)
    assert not objection(name) and signs(name) == signs(finding)


@given(finding=st.sampled_from(FINDINGS), remark=st.sampled_from(["{} (left)", "old {}", "Status post {}", "s/p {}"]))
def test_remarks_are_told_from_the_finding(finding: str, remark: str) -> None:
    assert signs(without_remarks(remark.format(finding))) == signs(finding)
    assert signs(without_remarks(finding)) == signs(finding)


@given(names=st.lists(st.sampled_from(FINDINGS), min_size=1, max_size=3), join=st.sampled_from([" ", "\\", " plus "]))
def test_a_name_is_taken_apart_into_findings(names: list[str], join: str) -> None:
    known_signs = {signs(name) for name in FINDINGS}
    assert parts_of(join.join(names), known_signs)
    assert parts_of(join.join([*names, "zebra"]), known_signs) == []

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.tables.labels import SETS, choose, is_finding, labels_by_part, merged, unknown_warnings
from edgecxr.errors import UsageError

NIH, VINDR, CHEXPERT = SETS["nih14"], SETS["all"], SETS["chexpert13"]


def test_the_sets_have_the_numbers_of_findings_that_their_names_say() -> None:
    assert {name: len(labels) for name, labels in SETS.items()} == {
        "vindr14": 14, "vindr22": 22, "all": 27, "nih14": 14, "chexpert13": 13, "chexpert5": 5,
    }  # fmt: skip
    assert all(len(set(labels)) == len(labels) for labels in SETS.values())
    assert set(SETS["vindr14"]) < set(SETS["vindr22"]) < set(SETS["all"])
    assert set(SETS["chexpert5"]) < set(CHEXPERT)


def test_without_a_choice_a_data_set_has_its_own_findings() -> None:
    assert choose(None, NIH, "NIH") == {label: (label,) for label in NIH}


def test_findings_of_another_set_are_made_of_those_that_mean_the_same() -> None:
    of_nih = choose("vindr14", NIH, "NIH")
    assert list(of_nih) == list(SETS["vindr14"])
    assert {label: parts for label, parts in of_nih.items() if parts} == {
        "Atelectasis": ("Atelectasis",),
        "Cardiomegaly": ("Cardiomegaly",),
        "Consolidation": ("Consolidation",),
        "Infiltration": ("Infiltration",),
        "Nodule/Mass": ("Nodule", "Mass"),
        "Pleural effusion": ("Effusion",),
        "Pleural thickening": ("Pleural_Thickening",),
        "Pneumothorax": ("Pneumothorax",),
        "Pulmonary fibrosis": ("Fibrosis",),
    }
    unknown, unused = unknown_warnings(of_nih, NIH, "NIH")
    assert unknown == (
        "NIH does not know of Aortic enlargement, Calcification, ILD, Lung Opacity, Other lesion: left unknown"
    )
    assert re.fullmatch(r"NIH has Pneumonia, Edema, Emphysema, Hernia, too: left out, .*abnormal", unused)
    assert unknown_warnings(choose(None, NIH, "NIH"), NIH, "NIH") == []
    of_vindr = choose("nih14", VINDR, "vindr")
    assert of_vindr["Effusion"] == ("Pleural effusion",) and of_vindr["Pleural_Thickening"] == ("Pleural thickening",)
    # A nodule or mass is no nodule.
    assert of_vindr["Nodule"] == of_vindr["Mass"] == of_vindr["Hernia"] == ()
    of_chexpert = choose("nih14", CHEXPERT, "CheXpert")
    assert of_chexpert["Effusion"] == ("Pleural Effusion",) and of_chexpert["Pleural_Thickening"] == ()


def test_a_finding_in_parts_is_positive_if_any_is_and_negative_if_all_are() -> None:
    nan = np.nan
    values = np.array([[1, 0], [0, 1], [0, 0], [nan, 1], [nan, 0], [nan, nan]], np.float32)
    sources = {"Nodule/Mass": ("Nodule", "Mass"), "Mass": ("Mass",), "Hernia": ()}
    targets = merged(values, ("Nodule", "Mass"), sources)
    np.testing.assert_array_equal(targets[:, 0], [1, 1, 0, 1, nan, nan])
    np.testing.assert_array_equal(targets[:, 1], values[:, 1])
    assert np.isnan(targets[:, 2]).all() and targets.dtype == np.float32


def test_findings_that_are_named_must_be_known(tmp_path: Path) -> None:
    assert choose(["pleural effusion", "nodule/mass"], NIH, "NIH") == {
        "pleural effusion": ("Effusion",),
        "nodule/mass": ("Nodule", "Mass"),
    }
    assert is_finding("pleural_effusion") and not is_finding("vindr14")
    for labels, message in (
        (["Effusio"], "NIH does not know of Effusio; did you mean 'Effusion'?"),
        (["Effusion", "Effusion"], "different findings"),
        ([], "different findings"),
        ("nih15", r"unknown label set 'nih15' \(there are: vindr14"),
    ):
        with pytest.raises(UsageError, match=message):
            choose(labels, NIH, "NIH")
    with pytest.raises(UsageError, match="knows none of"):
        choose("nih14", ("COPD",), "this")


def test_a_finding_may_be_part_of_several() -> None:
    sources = {"Opacity": ("Infiltration", "Consolidation"), "Infiltration": ("Infiltration",), "Hernia": ()}
    assert labels_by_part(sources) == {"Infiltration": ["Opacity", "Infiltration"], "Consolidation": ["Opacity"]}


def test_a_file_says_what_findings_are_made_of(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[labels]\nOpacity = ["Infiltration", "Consolidation"]\n"Big heart" = ["Cardiomegaly"]\nNone = []\n'
    )
    assert choose(str(path), NIH, "NIH") == {
        "Opacity": ("Infiltration", "Consolidation"),
        "Big heart": ("Cardiomegaly",),
        "None": (),
    }
    for content, message in (
        ('[labels]\nOpacity = ["Opacity"]\n', "takes Opacity, which NIH does not have"),
        ("[labels]\n", "no file of labels"),
        ('[labels]\nOpacity = "Edema"\n', "no file of labels"),
        ("[other]\n", "no file of labels"),
        ("labels = 3", "no file of labels"),
        ("[labels", "cannot be read as TOML"),
    ):
        path.write_text(content)
        with pytest.raises(UsageError, match=message):
            choose(str(path), NIH, "NIH")
    with pytest.raises(UsageError, match="does not exist"):
        choose(str(tmp_path / "gone.toml"), NIH, "NIH")

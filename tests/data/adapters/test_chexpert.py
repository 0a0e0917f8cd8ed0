"""CheXpert: labels cell by cell, editions, the test set, and what is wrong with its files."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.data.adapters import chexpert as chexpert_module
from edgecxr.data.adapters.chexpert import chexpert
from edgecxr.data.tables.labels import SETS
from edgecxr.data.tables.table import Table
from edgecxr.errors import InputError, UsageError
from tests.data.layouts import (
    CHEXPERT,
    CHEXPERT_ROWS,
    CHEXPERT_TEST,
    chexpert_batches,
    chexpert_layout,
    chexpert_test,
    named,
    picture,
)

NAN = float("nan")


@pytest.mark.parametrize(("uncertain", "value"), [("ignore", NAN), ("ones", 1.0), ("zeros", 0.0)])
def test_chexpert_has_each_observation_of_each_line(tmp_path: Path, uncertain: str, value: float) -> None:
    dataset = chexpert(chexpert_layout(tmp_path), uncertain=uncertain)
    assert dataset.labels == SETS["chexpert13"]
    frontal = {f"{split}/{path}": says for (split, path), says in CHEXPERT_ROWS.items() if "frontal" in path}
    assert dataset.ids.tolist() == list(frontal)
    for row, says in enumerate(frontal.values()):
        expected = [value if says.get(label) == -1 else says.get(label, 0.0) for label in dataset.labels]
        np.testing.assert_array_equal(dataset.targets[row], expected)
        # Uncertain of all that it mentions, a report is uncertain of whether the film is normal.
        sure = any(says.get(label) == 1 for label in dataset.labels if label != "Support Devices")
        doubtful = -1 in says.values() and not sure
        np.testing.assert_array_equal(dataset.abnormal[row], value if doubtful else 1 - says.get("No Finding", 0.0))
    assert dataset.patients.tolist() == [image.split("/")[1] for image in frontal]
    assert [split == "test" for split in dataset.splits] == [image.startswith("valid") for image in frontal]
    assert "val" in dataset.splits
    dataset.reader(0)()


def test_chexpert_takes_lateral_films_on_request_and_folders_of_any_name(tmp_path: Path) -> None:
    assert len(chexpert(chexpert_layout(tmp_path / "my copy"), any_view=True)) == len(CHEXPERT_ROWS)


def test_chexpert_is_found_in_the_folders_of_its_batches(tmp_path: Path) -> None:
    whole, batches = chexpert(chexpert_layout(tmp_path / "whole")), chexpert(chexpert_batches(tmp_path / "batches"))
    assert batches.ids.tolist() == whole.ids.tolist() and all(file.exists() for file in batches.files)
    assert [file.read_bytes() for file in batches.files] == [file.read_bytes() for file in whole.files]
    assert batches.unlisted == ()
    picture(tmp_path / "batches" / "CheXpert-v1.0 batch 3 (train 2)" / "patient00009" / "study1" / "view1_frontal.jpg")
    assert len(chexpert(tmp_path / "batches").unlisted) == 1


@pytest.mark.parametrize("name", ["test_labels.csv", "groundtruth.csv"])
def test_chexpert_with_its_test_set_validates_on_valid(tmp_path: Path, name: str) -> None:
    folder = chexpert_test(chexpert_batches(tmp_path), name)
    dataset = chexpert(folder)
    frontal = {f"test/{path}": says for path, says in CHEXPERT_TEST.items() if "frontal" in path}
    assert dataset.ids[dataset.splits == "test"].tolist() == list(frontal)
    assert all(image.startswith("valid/") for image in dataset.ids[dataset.splits == "val"])
    abnormal = dict(zip(dataset.ids.tolist(), dataset.abnormal.tolist(), strict=True))
    assert [abnormal[image] for image in list(frontal)[:4]] == [1, 0, 1, 0] and np.isnan(abnormal[list(frontal)[4]])
    for image, says in frontal.items():
        positives = {label: 1 for label in SETS["chexpert13"] if says[label]}
        assert named(dataset, image) | {"abnormal": 0} == {"abnormal": 0, **positives}
        dataset.reader(dataset.ids.tolist().index(image))()
    warnings = [text for text in dataset.provenance["warnings"] if "without films" in text]
    assert warnings == (["studies of groundtruth.csv without films, left out: 1"] if name == "groundtruth.csv" else [])
    assert len(chexpert(folder, any_view=True)) == len(dataset) + 2 and dataset.unlisted == ()
    assert dataset.provenance["cut"] == []
    (folder / name).rename(folder / "test" / name)
    assert chexpert(folder).ids.tolist() == dataset.ids.tolist(), "in test/, too"


def test_what_people_are_not_sure_of_is_neither_normal_nor_abnormal() -> None:
    devices, edema = (chexpert_module.OWN.index(label) for label in ("Support Devices", "Edema"))
    own = np.zeros((4, 13), np.float32)
    own[[0, 1, 2], devices] = 1
    own[[1, 3], edema] = NAN
    own[2, edema] = 1
    # Devices; devices and perhaps an oedema; both for sure; nothing but perhaps an oedema. No Finding is never ticked.
    _, abnormal = chexpert_module.as_read(own, np.ones(4, np.float32))
    np.testing.assert_array_equal(abnormal, [0, NAN, 1, NAN])


@pytest.mark.parametrize("half", ["table", "films", "studies"])
def test_chexpert_with_half_of_its_test_set_says_so_and_goes_without(tmp_path: Path, half: str) -> None:
    name = "groundtruth.csv" if half == "studies" else "test_labels.csv"
    folder = chexpert_test(chexpert_layout(tmp_path), name)
    if half == "table":
        (folder / name).unlink()
    else:
        for place in (folder / "test").iterdir():
            shutil.rmtree(place)
    dataset = chexpert(folder)
    warning = "test/ is left out, which lacks its table" if half == "table" else "is left out: none of its films is in"
    assert any(warning in text for text in dataset.provenance["warnings"])
    assert {image.split("/")[0] for image in dataset.ids[dataset.splits == "test"].tolist()} == {"valid"}
    assert dataset.provenance["cut"] == ["val"]


def test_chexpert_in_the_words_of_vindr(tmp_path: Path) -> None:
    dataset = chexpert(chexpert_layout(tmp_path), labels="vindr14")
    image = "train/patient00002/study2/view1_frontal.jpg"
    assert np.isnan(named(dataset, image)["Pleural effusion"]) and named(dataset, image)["abnormal"] == 1


def test_what_chexpert_cannot_hold_is_refused(tmp_path: Path) -> None:
    folder = chexpert_layout(tmp_path / "set")
    with pytest.raises(UsageError, match="--uncertain twos: there are ignore, ones, zeros"):
        chexpert(folder, uncertain="twos")
    content = (folder / "train.csv").read_text()
    for old, new, message in (
        ("patient00003/study1/view1_frontal.jpg", "../../secret.jpg", r"line 6 of .*train\.csv: .* is no path"),
        ("patient00003/", "patient00002/", r"line 6 of .* again, after line 4"),
        (",-1.0", ",-2.0", r"holds '-2\.0'"),
        ("Lung Lesion", "Lesion", r"has no column 'Lung Lesion'; did you mean 'Lesion'\?"),
    ):
        (folder / "train.csv").write_text(content.replace(old, new))
        with pytest.raises(InputError, match=message):
            chexpert(folder)
    (folder / "train.csv").unlink()
    with pytest.raises(InputError, match=r"is not CheXpert: train\.csv or .*csv should .*\(it holds: train"):
        chexpert(folder)
    assert set(chexpert_module.UNCERTAIN) == {"ignore", "ones", "zeros"}


SPELLINGS = {
    "": ("", "nan", "NaN", "NA", "<NA>", "null"),
    "1": ("1", "1.0", "1.000", "1e0", "+1"),
    "0": ("0", "0.0", "0.000"),
    "-1": ("-1", "-1.0", "-1.00", "-1e0"),
}


@settings(deadline=None, max_examples=60)
@given(
    meant=st.lists(st.lists(st.sampled_from(sorted(SPELLINGS)), min_size=14, max_size=14), min_size=1, max_size=4),
    uncertain=st.sampled_from(["ignore", "ones", "zeros"]),
    draw=st.randoms(use_true_random=False),
)
def test_how_a_number_is_written_changes_no_label(meant: list[list[str]], uncertain: str, draw: random.Random) -> None:
    def observed(rows: list[list[str]]) -> tuple[np.ndarray, np.ndarray]:
        columns = dict(zip(CHEXPERT, map(list, zip(*rows, strict=True)), strict=True))
        return chexpert_module.observations(Table(Path("a.csv"), columns, list(range(2, 2 + len(rows)))), uncertain)

    written = [[draw.choice(SPELLINGS[cell]) for cell in row] for row in meant]
    for result, expected in zip(observed(written), observed(meant), strict=True):
        np.testing.assert_array_equal(result, expected)


def test_views_are_read_in_any_case_and_those_left_out_are_counted(tmp_path: Path) -> None:
    folder = chexpert_layout(tmp_path)
    whole = chexpert(folder)
    assert any(text.startswith("lateral images, left out: 1;") for text in whole.provenance["warnings"])
    text = (folder / "train.csv").read_text()
    for view in ("frontal", "FRONTAL", "nan", ""):
        (folder / "train.csv").write_text(text.replace(",Frontal,", f",{view},").replace(",Lateral,", ",LATERAL,"))
        assert chexpert(folder).ids.tolist() == whole.ids.tolist()
        assert chexpert(folder).provenance["warnings"] == whole.provenance["warnings"]
    (folder / "train.csv").write_text(text.replace(",Lateral,", ",oblique,"))
    assert any("left out: 1 (oblique: 1)" in text for text in chexpert(folder).provenance["warnings"])
    for name in ("train.csv", "valid.csv"):
        (folder / name).write_text((folder / name).read_text().replace(",Frontal,", ",front,"))
    with pytest.raises(InputError, match=r"none is frontal .*front: 7.*--any-view"):
        chexpert(folder)
    assert len(chexpert(folder, any_view=True)) == len(CHEXPERT_ROWS)

"""MIMIC-CXR: how its tables are joined, labels by hand, and what is wrong with its files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgecxr.data.adapters.mimic import mimic
from edgecxr.errors import InputError, UsageError
from tests.data.layouts import (
    mimic_layout,
    mimic_manual,
    named,
    splits_of,
)


@pytest.mark.parametrize(("ending", "packed"), [(".jpg", True), (".dcm", True), (".jpg", False)])
def test_mimic_joins_its_tables(tmp_path: Path, ending: str, packed: bool) -> None:
    dataset = mimic(mimic_layout(tmp_path, ending, packed))
    assert splits_of(dataset) == {
        "02aa804e-bde0afdd": "train",
        "2a2277a9-b0ded155": "train",
        "68b5c4b1-227d0485": "val",
        "096052b7-d256dc40": "test",
        "096052b7-d256dc41": "test",
    }
    assert named(dataset, "02aa804e-bde0afdd") == {"abnormal": 0}
    effusion = named(dataset, "2a2277a9-b0ded155")
    assert effusion.pop("Edema") == 1 and np.isnan(effusion["Pleural Effusion"]) and effusion["abnormal"] == 1
    doubtful = named(dataset, "096052b7-d256dc40")
    assert np.isnan(doubtful["Consolidation"]) and np.isnan(doubtful["abnormal"])
    assert dataset.patients.tolist() == ["10000032", "10000033", "10000034", "10000764", "10000765"]
    assert all(file.exists() and file.suffix == ending for file in dataset.files)
    warnings = dataset.provenance["warnings"]
    assert [text for text in warnings if re.search(r"without labels, left out: 1$", text)]
    assert [text for text in warnings if re.search(r"neither PA nor AP, .* 2$", text)]
    dataset.reader(0)()


def test_mimic_takes_the_other_labeler_and_other_views(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path)
    assert named(mimic(folder, labeler="negbio"), "2a2277a9-b0ded155") == {"Edema": 1, "abnormal": 1}
    assert len(mimic(folder, any_view=True)) == 7
    assert named(mimic(folder, uncertain="ones"), "096052b7-d256dc40") == {"Consolidation": 1, "abnormal": 1}
    with pytest.raises(UsageError, match="--labeler me: there are chexpert, negbio"):
        mimic(folder, labeler="me")


def test_mimic_is_tested_on_labels_by_hand_on_request(tmp_path: Path) -> None:
    folder = mimic_manual(mimic_layout(tmp_path))
    dataset, usual = mimic(folder, manual_test=True), mimic(folder)
    assert named(dataset, "096052b7-d256dc40")["Lung Opacity"] == 1
    assert (
        np.isnan(named(dataset, "096052b7-d256dc40")["Edema"]) and named(dataset, "096052b7-d256dc40")["abnormal"] == 1
    )
    assert named(dataset, "096052b7-d256dc41") == {"Support Devices": 1, "abnormal": 0}
    for image in ("02aa804e-bde0afdd", "68b5c4b1-227d0485"):  # of other splits
        assert named(dataset, image) == named(usual, image)
    content = (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").read_text()
    (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").write_text(content.replace("57375968", "57375999"))
    assert mimic(folder, manual_test=True).ids.tolist() == [
        image for image in usual.ids.tolist() if image != "096052b7-d256dc41"
    ]
    (folder / "mimic-cxr-2.1.0-test-set-labeled.csv").unlink()
    with pytest.raises(InputError, match=r"mimic-cxr-2\.1\.0-test-set-labeled\.csv should be there"):
        mimic(folder, manual_test=True)


def test_what_is_no_mimic_is_refused(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path / "set")
    packed = folder / "mimic-cxr-2.0.0-split.csv.gz"
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"split\.csv\.gz is no whole gzip .*download"):
        mimic(folder)
    packed.unlink()
    with pytest.raises(
        InputError, match=r"is not MIMIC-CXR: mimic-cxr-2\.0\.0-split\.csv\.gz or mimic-.*\.csv should be"
    ):
        mimic(folder)
    packed.write_bytes(whole)
    shutil.rmtree(folder / "files" / "p10")
    with pytest.raises(InputError, match=r"none of .* 5 listed images"):
        mimic(folder)


def test_films_without_metadata_and_other_views_are_counted_apart(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path, packed=False)
    metadata = folder / "mimic-cxr-2.0.0-metadata.csv"
    lines = metadata.read_text().splitlines(keepends=True)
    metadata.write_text("".join(line for line in lines if "68b5c4b1" not in line))
    notes = mimic(folder).provenance["warnings"]
    assert any(re.search(r"LATERAL: 1, not given: 1.*left out: 2$", text) for text in notes)
    assert any(re.search(r"metadata\.csv, left out: 1;", text) for text in notes)
    assert "68b5c4b1-227d0485" in mimic(folder, any_view=True).ids


def test_lines_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path, packed=False)
    usual = mimic(folder)
    for name, again, other in (("metadata", "PA", "LL"), ("split", None, "train"), ("chexpert", None, "1.0")):
        path = folder / f"mimic-cxr-2.0.0-{name}.csv"
        text = path.read_text()
        line = text.splitlines()[1]
        if again:
            path.write_text(text + line + "\n")
            assert mimic(folder).ids.tolist() == usual.ids.tolist(), "the same line again"
            line = line.replace(f",{again},", f",{other},")
        path.write_text(text + line + "\n")
        with pytest.raises(InputError, match=rf"line {len(text.splitlines()) + 1} of .*-{name}\.csv .*line 2\b"):
            mimic(folder)
        path.write_text(text)


def test_studies_are_numbers_however_they_are_written(tmp_path: Path) -> None:
    folder = mimic_layout(tmp_path, packed=False)
    usual = mimic(folder)
    for name in ("split", "chexpert"):
        path = folder / f"mimic-cxr-2.0.0-{name}.csv"
        text = path.read_text()
        path.write_text(re.sub(r"\b(5\d{7}|10000\d{3})\b", r"\1.0", text))
        dataset = mimic(folder)
        np.testing.assert_array_equal(dataset.targets, usual.targets)
        assert dataset.patients.tolist() == usual.patients.tolist() and dataset.files == usual.files
        path.write_text(text)

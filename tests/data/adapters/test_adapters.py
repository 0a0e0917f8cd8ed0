"""What all data sets have in common, as they are distributed and as they are typed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecxr.data.adapters.chestmnist import chestmnist
from edgecxr.data.adapters.chexpert import chexpert
from edgecxr.data.adapters.mimic import mimic
from edgecxr.data.adapters.nih import nih
from edgecxr.data.adapters.vinbigdata import vinbigdata
from edgecxr.data.adapters.vindr import vindr
from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare.prepare import prepare
from edgecxr.errors import InputError
from tests.cli_workspace import edgecxr
from tests.data.layouts import (
    chestmnist_layout,
    chexpert_layout,
    mimic_layout,
    nih_layout,
    vinbigdata_layout,
)


def test_a_place_that_is_no_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("a")
    for place, problem in ((tmp_path / "gone", "does not exist"), (tmp_path / "file.csv", "is a file")):
        with pytest.raises(
            InputError, match=rf"{problem}: give the folder of NIH ChestX-ray14, which holds Data_Entry"
        ):
            nih(place)


@pytest.mark.slow
def test_findings_that_a_data_set_does_not_know_are_neither_trained_on_nor_scored(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    folder, runs = nih_layout(tmp_path / "set"), tmp_path / "runs"
    short = ("--depth", "2", "--epochs", "1", "--batch", "4")
    for command in (
        ("prepare", "nih", folder, "--labels", "vindr14", "--workers", "1"),
        ("train", "--init", "random", "--patch", "56", *short),
        ("evaluate",),
    ):
        typed = edgecxr(*command, runs=runs)
        assert typed.code == 0, typed
    record = json.loads((runs / "teacher-tiny-224-nih" / "card.json").read_text())["metrics"]["nih/test"]
    assert record["skipped"]["ILD"] == {"positives": 0, "negatives": 0}
    assert "Pleural effusion" in record["findings"]["labels"] and "ILD" not in record["findings"]["labels"]


@pytest.mark.parametrize(
    ("open_", "layout", "place"),
    [
        (nih, nih_layout, "images_002/images/00099999_000.png"),
        (chexpert, chexpert_layout, "train/patient00009/study1/view1_frontal.jpg"),
        (mimic, mimic_layout, "files/p10/p10000032/s50414267/other.jpg"),
        (vinbigdata, vinbigdata_layout, "train/99.dicom"),
    ],
)
def test_images_that_no_line_names_are_listed(
    tmp_path: Path, open_: Callable[[Path], Dataset], layout: Callable[[Path], Path], place: str
) -> None:
    folder = layout(tmp_path / "set")
    whole = open_(folder)
    # Not even those that were left out: lateral films, films without labels.
    assert whole.unlisted == ()
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_bytes(whole.files[0].read_bytes())
    (folder / "notes.txt").write_text("mine")
    whole.files[1].unlink()
    dataset = open_(folder)
    assert dataset.unlisted == (folder / place,)
    prepared = prepare(dataset, tmp_path / "out", 1)
    assert (prepared.path / "unlisted.csv").read_text().splitlines() == ["file", str(folder / place)]
    assert "that no line names: 1 (" in prepared.describe()
    assert prepared.info["rejected"] == {"not-found": 1}
    # Films are not decoded anew because another file has come or gone.
    decoded = (prepared.path / "images.npy").stat()
    other = (folder / place).with_suffix(".2.png")
    (folder / place).rename(other)
    (folder / "notes.txt").unlink()
    again = prepare(open_(folder), tmp_path / "out", 1)
    assert (again.path / "unlisted.csv").read_text().splitlines() == ["file", str(other)]
    other.unlink()
    again = prepare(open_(folder), tmp_path / "out", 1)
    assert not (again.path / "unlisted.csv").exists() and "no line names" not in again.describe()
    assert (again.path / "images.npy").stat() == decoded and again.hash == prepared.hash


TOO_LONG = Path("/".join(["y"] * 2500))
"""A path that a file system refuses, other than one where there is nothing."""


@pytest.mark.parametrize("open_", [nih, chexpert, mimic, vinbigdata, chestmnist, vindr])
def test_a_path_that_is_too_long_is_refused_as_any_other(open_: Callable[[Path], Dataset]) -> None:
    with pytest.raises(InputError):
        open_(TOO_LONG)


@pytest.mark.parametrize(
    ("kind", "layout", "options", "images"),
    [
        ("nih", nih_layout, ("--labels", "vindr14"), 10),
        ("chexpert", chexpert_layout, ("--uncertain", "ones", "--any-view"), 8),
        ("mimic-cxr", mimic_layout, ("--labeler", "negbio", "--labels", "chexpert5"), 5),
        ("vinbigdata", vinbigdata_layout, ("--merge", "union"), 16),
        ("chestmnist", lambda folder: chestmnist_layout(folder / "chestmnist_64.npz"), (), 15),
    ],
)
def test_each_is_prepared_by_its_name(
    tmp_path: Path, kind: str, layout: Callable[[Path], object], options: tuple[str, ...], images: int
) -> None:
    layout(tmp_path / "set")
    typed = edgecxr("prepare", kind, tmp_path / "set", *options, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 0 and f"{kind}: {images} images in" in typed.out, typed


def test_a_set_with_other_findings_is_not_replaced_in_silence(tmp_path: Path) -> None:
    nih_layout(tmp_path / "set")
    typed = ("prepare", "nih", tmp_path / "set", "--workers", "1")
    assert "going to be replaced" not in edgecxr(*typed, runs=tmp_path / "runs").err
    assert "going to be replaced" not in edgecxr(*typed, runs=tmp_path / "runs").err
    again = edgecxr(*typed, "--labels", "vindr14", runs=tmp_path / "runs")
    assert again.code == 0 and "going to be replaced (findings: Atelectasis, Cardiomegaly, " in again.err
    assert ", now Aortic enlargement, " in again.err and "--name keeps both" in again.err
    films = sorted((tmp_path / "set").rglob("*.png"))
    content = films[0].read_bytes()
    films[0].write_bytes(b"no film")
    assert "rejected: not-an-image 1" in edgecxr(*typed, "--labels", "vindr14", runs=tmp_path / "runs").out
    once_more = edgecxr(*typed, "--labels", "vindr14", "--retry", runs=tmp_path / "runs")
    assert re.search(r"read again: 1 films, .* 0 can be used", once_more.err), once_more
    films[0].write_bytes(content)
    other = edgecxr(*typed, "--labels", "vindr14", "--seed", "3", runs=tmp_path / "runs")
    assert "going to be replaced (seed: 0, now 3); --name keeps both" in other.err
    assert "ILD not known" in again.out


@pytest.mark.parametrize(
    ("open_", "layout"),
    [(nih, nih_layout), (chexpert, chexpert_layout), (mimic, mimic_layout), (vinbigdata, vinbigdata_layout)],
)
def test_a_film_that_is_a_link_out_of_the_folder_is_refused_and_a_folder_that_is_one_is_not(
    open_: Callable[[Path], Dataset], layout: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = layout(tmp_path / "set")
    listed = open_(folder).files
    film = next(file for file in listed if file.exists())
    there = tmp_path / "elsewhere"
    film.parent.rename(there)
    film.parent.symlink_to(there)
    assert open_(folder).files == listed
    film.parent.unlink()
    there.rename(film.parent)
    film.rename(tmp_path / "secret")
    film.symlink_to(tmp_path / "secret")
    with pytest.raises(InputError) as caught:
        open_(folder)
    assert caught.value.reason == "dataset" and str(film) in str(caught.value)


@pytest.mark.parametrize(
    ("open_", "layout", "table", "name"),
    [
        (nih, nih_layout, "*", r"000000\d\d_000\.png"),
        (chexpert, chexpert_layout, "train.csv", r"view1_frontal\.jpg"),
        (vinbigdata, vinbigdata_layout, "train.csv", None),
    ],
)
def test_a_table_that_names_a_film_outside_of_the_folder_is_refused(
    open_: Callable[[Path], Dataset], layout: Callable[[Path], Path], table: str, name: str | None, tmp_path: Path
) -> None:
    folder = layout(tmp_path / "set")
    name = name or re.escape(open_(folder).ids[0])
    file_name = ""
    for path in folder.glob(table):
        if path.is_file() and path.suffix in (".csv", ".txt"):
            text = path.read_text()
            file_name = file_name or (re.search(name, text) or [""])[0]
            path.write_text(text.replace(file_name, "../../../../elsewhere/" + file_name) if file_name else text)
    assert file_name
    with pytest.raises(InputError) as caught:
        open_(folder)
    assert caught.value.reason == "dataset" and "elsewhere" in str(caught.value)

"""How films were rendered: told by the file, the pixels or the publisher, counted, and never mixed in silence."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgecxr.data.adapters.chestmnist import chestmnist
from edgecxr.data.adapters.chexpert import chexpert
from edgecxr.data.adapters.folder import folder
from edgecxr.data.adapters.mimic import mimic
from edgecxr.data.adapters.nih import nih
from edgecxr.data.adapters.vinbigdata import vinbigdata
from edgecxr.data.dataset import Dataset
from edgecxr.data.prepare.decode import Film, decode_one
from edgecxr.data.prepare.journal import Outcome
from edgecxr.data.prepare.prepare import Prepared, prepare
from edgecxr.data.prepare.renderings import count_renderings, mixed, rendering_warnings
from edgecxr.vocabulary import RENDERINGS
from tests.data.layouts import (
    chestmnist_layout,
    chexpert_layout,
    dicom,
    mimic_layout,
    nih_layout,
    picture,
    pixels,
    vinbigdata_layout,
)


def read(dataset: Dataset) -> list[Outcome]:
    outcomes = []
    for index in range(len(dataset)):
        answer, _ = decode_one(Film(index, dataset.files[index], dataset.reader(index)), (224,))
        outcomes.append(Outcome(index, *answer[:2], tuple(answer[2]), *answer[3:]))
    return [outcome for outcome in outcomes if not outcome.reason]


@pytest.mark.parametrize(
    ("layout", "ending", "opens", "rendering"),
    [
        (nih_layout, None, nih, "windowed"),
        (chexpert_layout, None, chexpert, "equalised"),
        (mimic_layout, ".jpg", mimic, "equalised"),
        (mimic_layout, ".dcm", mimic, "dicom"),
        (vinbigdata_layout, ".dicom", vinbigdata, "dicom"),
        (vinbigdata_layout, ".png", vinbigdata, "picture"),
    ],
)
def test_a_data_set_s_films_were_rendered_as_its_publisher_says(
    tmp_path: Path, layout: Callable[..., Path], ending: str | None, opens: Callable[[Path], Dataset], rendering: str
) -> None:
    dataset = opens(layout(tmp_path, *([ending] if ending else [])))
    outcomes = read(dataset)
    assert count_renderings(dataset, outcomes) == {rendering: len(outcomes)} and outcomes


def test_chestmnist_s_films_are_those_of_nih(tmp_path: Path) -> None:
    dataset = chestmnist(chestmnist_layout(tmp_path / "chestmnist.npz"))
    assert count_renderings(dataset, read(dataset)) == {"windowed": len(dataset)}


def listed(place: Path, **films: Callable[[Path, int], object]) -> Path:
    """Write films and their table; the findings alternate."""
    with (place / "labels.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "Edema", "split"))
        for index, (name, write) in enumerate(films.items()):
            file_name = name.replace("_", ".")
            write(place / file_name, index)
            rows.writerow((file_name, int(index < 3), ("train", "val", "test")[index % 3]))
    return place


def equalised(path: Path, index: int) -> None:
    ImageOps.equalize(Image.fromarray(pixels(index, 160))).save(path)


def test_what_was_rendered_in_several_ways_is_counted_and_said(tmp_path: Path) -> None:
    films = {f"d{n}_dcm": dicom for n in range(3)} | {f"p{n}_png": picture for n in range(2)} | {"e0_png": equalised}
    prepared = prepare(folder(listed(tmp_path, **films)), tmp_path / "out", 1)
    assert prepared.renderings == {"dicom": 3, "equalised": 1, "picture": 2}
    info = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert info["counts"]["train"]["renderings"] == {"dicom": 1, "picture": 1}
    assert info["counts"]["test"]["renderings"] == {"dicom": 1, "equalised": 1}
    assert sum(RENDERINGS["equalised"] in warning for warning in info["left"]) == 2  # the mixture, and what devices see
    assert RENDERINGS["picture"] in prepared.describe()
    # Taken over from the set that is replaced, without another look at the film.
    assert prepare(folder(tmp_path, seed=5), tmp_path / "out", 1).renderings == prepared.renderings
    # Sets of before say nothing.
    for counts in info["counts"].values():
        del counts["renderings"]
    (tmp_path / "out" / "dataset.json").write_text(json.dumps(info))
    assert Prepared.open(tmp_path / "out").renderings == {}


def test_films_of_one_rendering_give_no_warning_unless_devices_see_others(tmp_path: Path) -> None:
    for name, write, warned in (("d", dicom, 0), ("p", picture, 0), ("e", equalised, 1)):
        place = tmp_path / name
        place.mkdir()
        ending = "dcm" if name == "d" else "png"
        dataset = folder(listed(place, **{f"{n}_{ending}": write for n in range(4)}))
        assert len(rendering_warnings(dataset, read(dataset))) == warned


def test_pictures_that_do_not_look_as_their_publisher_says(tmp_path: Path) -> None:
    plain = chexpert(chexpert_layout(tmp_path / "plain"))
    assert len(rendering_warnings(plain, read(plain))) == 2
    for path in (tmp_path / "plain").rglob("*.jpg"):
        ImageOps.equalize(Image.open(path)).save(path, quality=95)
    assert len(rendering_warnings(plain, read(plain))) == 1


def test_a_few_pictures_whose_pixels_look_otherwise_are_no_mixture() -> None:
    for counts in ({"equalised": 98, "picture": 2}, {"windowed": 98, "equalised": 2}, {"dicom": 1, "windowed": 1}, {}):
        assert not mixed(counts)
    for counts in ({"equalised": 8, "picture": 2}, {"dicom": 999, "picture": 1}, {"windowed": 8, "equalised": 2}):
        assert mixed(counts)


def test_equalised_pictures_are_told_by_their_pixels(tmp_path: Path) -> None:
    from edgecxr.films.read import read_radiograph

    for index in range(5):
        plain = Image.fromarray(pixels(index, 256))
        even = ImageOps.equalize(plain)
        framed = Image.fromarray(np.pad(np.asarray(even), 60))
        forms = {
            "plain.png": (plain, "picture"), "plain.jpg": (plain, "picture"), "even.png": (even, "equalised"),
            "even.jpg": (even, "equalised"), "framed.jpg": (framed, "equalised"),
            "rgb.png": (even.convert("RGB"), "equalised"),
        }  # fmt: skip
        for name, (image, rendering) in forms.items():
            image.save(tmp_path / name, **({"quality": 95} if name.endswith("jpg") else {}))
            assert read_radiograph(tmp_path / name).rendering == rendering, (index, name)
        assert read_radiograph(dicom(tmp_path / "film.dcm", index)).rendering == "dicom"

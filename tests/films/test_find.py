from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.uid
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecxr.errors import InputError
from edgecxr.films.find import Search, find_inputs, holds_no_image
from edgecxr.films.read import read_radiograph
from edgecxr.films.signatures import FORMATS, SUFFIXES, is_picture
from tests.films.dicom_files import film, write


def test_folders_are_searched_for_films_only(tmp_path: Path) -> None:
    (tmp_path / "b" / ".hidden").mkdir(parents=True)
    for name in ("b/2.DCM", "b/1.png", "b/.3.png", "b/.hidden/4.png", "a.jpeg", "notes.txt", "card.json"):
        (tmp_path / name).write_bytes(b"any")
    for name in ("IM0001", "scan.img", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff\xe0")
    os.mkfifo(tmp_path / "pipe.png")
    names = [str(path.relative_to(tmp_path)) for path in find_inputs([tmp_path])]
    assert names == ["IM0001", "a.jpeg", "photo", "scan.img", "b/1.png", "b/2.DCM"]


def test_files_are_taken_as_they_are_and_once(tmp_path: Path) -> None:
    names = [tmp_path / name for name in ("notes.txt", "DICOMDIR", "a.png")]
    for path in names:
        path.write_bytes(b"any")
    absent = tmp_path / "absent.dcm"
    assert find_inputs([*names, absent, tmp_path, names[0]]) == [*names, absent]


def test_subfolders_are_left_out_on_request(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("1.png", "b/2.png", "b/c/3.png"):
        (tmp_path / name).write_bytes(b"any")
    assert find_inputs([tmp_path], recursive=False) == [tmp_path / "1.png"]
    assert find_inputs([tmp_path / "b", tmp_path], recursive=False) == [tmp_path / "b" / "2.png", tmp_path / "1.png"]
    # A folder without films of its own shows up among the results.
    (tmp_path / "b" / "2.png").unlink()
    assert find_inputs([tmp_path / "b"], recursive=False) == [tmp_path / "b"]


def test_a_link_to_itself_hides_no_film_and_is_a_lost_one(tmp_path: Path) -> None:
    for name in ("loop", "loop.png", "loop.txt"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "a.png").write_bytes(b"any")
    search = Search()
    assert find_inputs([tmp_path], search=search) == [tmp_path / name for name in ("a.png", "loop", "loop.png")]
    assert search.passed_over == {"dead links": 1}


KINDS = {
    "a.png": None, "b": None, ".hidden.png": "hidden", ".folder/c.png": "hidden", "DICOMDIR": "DICOMDIR",
    "sub/dicomdir": "DICOMDIR", "notes.txt": "other files", "sub/table.csv": "other files", "sub/c.dcm": None,
    "__MACOSX/d.png": "hidden", "sub/._c.dcm": "hidden", "Thumbs.db": "hidden", "sub/desktop.ini": "hidden",
    "sub/@eaDir/e.jpg": "hidden", ".DS_Store": "hidden", "sub/new.webp": None,
}  # fmt: skip


@given(names=st.sets(st.sampled_from(sorted(KINDS)), min_size=1), pipe=st.booleans(), loose=st.booleans())
def test_each_file_of_a_folder_is_found_or_counted(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], pipe: bool, loose: bool
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\0" * 128 + b"DICM" if name == "b" else b"any")
    if pipe:
        os.mkfifo(folder / "pipe.dcm")
    if loose:
        (folder / "loose.dcm").symlink_to("nowhere")
    search = Search()
    inputs = find_inputs([folder], search=search)
    films = {folder / name for name in names if KINDS[name] is None} | ({folder / "loose.dcm"} if loose else set())
    assert set(inputs) == (films or {folder}) and set(search.folder_of) == films
    expected = Counter(kind for name in names if (kind := KINDS[name]))
    expected.update({"no regular files": pipe})
    assert search.passed_over == +expected
    assert search.summary().count("(") == len(+expected) and bool(search.summary()) == bool(+expected)
    named = Search()
    find_inputs([folder, *films], search=named)
    assert named.folder_of == {}


def dicom_file(folder: Path, **elements: Any) -> Path:
    return write(film(np.full((8, 8), 9, np.uint8), **elements), folder)


OTHERS = ("SRStorage", "SoftcopyPresentationStateStorage", "KeyObject", "EncapsulatedPDF", "WaveformStorage", "RTPlan",
          "MediaStorageDirectory", "RawData")  # fmt: skip


def test_reports_and_the_like_hold_no_image_and_films_whose_pixels_are_lost_do(tmp_path: Path) -> None:
    images = [uid for uid in vars(pydicom.uid) if uid.endswith("ImageStorage")]
    others = [uid for uid in vars(pydicom.uid) if any(part in uid for part in OTHERS)]
    assert len(images) > 20 < len(others)
    nothing = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "PixelData"))
    for name in images:
        assert not holds_no_image(dicom_file(tmp_path, SOPClassUID=getattr(pydicom.uid, name), **nothing)), name
    for name in [*others, "private"]:
        uid = "1.3.12.2.1107.5.9.1" if name == "private" else getattr(pydicom.uid, name)
        assert holds_no_image(dicom_file(tmp_path, SOPClassUID=uid, **nothing)), name
        assert not holds_no_image(dicom_file(tmp_path, SOPClassUID=uid, PixelData=None)), name
    assert not holds_no_image(dicom_file(tmp_path, SOPClassUID=None, **nothing))


SAVED = [
    (kind, mode, options)
    for kind, modes, options in (
        ("PNG", ("L", "RGB", "I;16", "P"), {}), ("JPEG", ("L", "RGB"), {}), ("TIFF", ("L", "I;16", "RGB"), {}),
        ("TIFF", ("L",), {"big_tiff": True}), ("BMP", ("L", "RGB", "P"), {}), ("GIF", ("L", "P"), {}),
        ("PPM", ("1", "L", "RGB", "I;16"), {}), ("JPEG2000", ("L", "RGB", "I;16"), {}),
        ("JPEG2000", ("L",), {"no_jp2": True}),
    )
    for mode in modes
]  # fmt: skip


@pytest.mark.parametrize(("kind", "mode", "options"), SAVED, ids=[f"{kind}-{mode}" for kind, mode, _ in SAVED])
@settings(deadline=None, max_examples=4)
@given(width=st.integers(64, 300), height=st.integers(64, 300), seed=st.integers(0, 9))
def test_a_picture_that_is_read_when_named_is_found_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory, kind: str, mode: str, options: dict[str, bool], width: int, height: int,
    seed: int,
) -> None:  # fmt: skip
    values = np.random.default_rng(seed).integers(0, 65535, (height, width)).astype(np.uint16)
    picture = Image.fromarray(values) if mode == "I;16" else Image.fromarray((values >> 8).astype(np.uint8))
    path = tmp_path_factory.mktemp("pictures") / "film"
    picture.convert(mode).save(path, kind, **options)
    assert read_radiograph(path).pixels.shape == (height, width)
    search = Search()
    assert find_inputs([path.parent], search=search) == [path] and not search.passed_over


def test_each_ending_of_a_kind_that_is_read_is_looked_for() -> None:
    Image.init()
    endings = {ending for ending, kind in Image.EXTENSION.items() if kind in FORMATS}
    assert endings <= SUFFIXES and {kind for kind, _, _ in SAVED} == set(FORMATS)


@pytest.mark.parametrize("kind", ["WEBP", "AVIF"])
def test_a_picture_of_a_kind_that_is_not_read_is_found_and_rejected_by_name(tmp_path: Path, kind: str) -> None:
    try:
        Image.new("L", (80, 80)).save(tmp_path / "film", kind)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {kind}")
    assert find_inputs([tmp_path]) == [tmp_path / "film"]
    with pytest.raises(InputError) as caught:
        read_radiograph(tmp_path / "film")
    assert caught.value.reason in ("unsupported", "not-an-image")


@pytest.mark.parametrize("target", ["/nonexist/film.dcm", "gone", "film.dcm"])
def test_a_film_whose_link_is_dead_is_not_found_and_its_target_is_named(tmp_path: Path, target: str) -> None:
    path = tmp_path / "film.dcm"
    path.symlink_to(target)
    with pytest.raises(InputError) as caught:
        read_radiograph(path)
    assert caught.value.reason == "not-found" and f"link to {target}" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["BMI,age\n23,41\n", "BM and some more words of text", "P53 mutated", "PA view", "P1: Meyer"]
)
def test_text_that_begins_like_a_picture_is_none(text: str) -> None:
    assert not is_picture(text.encode())

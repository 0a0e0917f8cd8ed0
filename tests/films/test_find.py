from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.uid
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecxr.films.find import Search, find_inputs, holds_no_image
from tests.films.dicom_files import film, write


def test_folders_are_searched_for_films_only(tmp_path: Path) -> None:
    (tmp_path / "b" / ".hidden").mkdir(parents=True)
    for name in ("b/2.DCM", "b/1.png", "b/.3.png", "b/.hidden/4.png", "a.jpeg", "notes.txt", "card.json"):
        (tmp_path / name).write_bytes(b"any")
    for name in ("IM0001", "scan.img", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "photo").write_bytes(b"\xff\xd8\xff\xe0")
    os.mkfifo(tmp_path / "pipe.png")
    found = [str(path.relative_to(tmp_path)) for path in find_inputs([tmp_path])]
    assert found == ["IM0001", "a.jpeg", "photo", "scan.img", "b/1.png", "b/2.DCM"]


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


def test_a_link_to_itself_hides_no_film(tmp_path: Path) -> None:
    for name in ("loop", "loop.png"):
        (tmp_path / name).symlink_to(name)
    (tmp_path / "a.png").write_bytes(b"any")
    assert find_inputs([tmp_path]) == [tmp_path / "a.png"]


KINDS = {
    "a.png": None, "b": None, ".hidden.png": "hidden", ".folder/c.png": "hidden", "DICOMDIR": "DICOMDIR",
    "sub/dicomdir": "DICOMDIR", "notes.txt": "other files", "sub/table.csv": "other files", "sub/c.dcm": None,
}  # fmt: skip


@given(names=st.sets(st.sampled_from(sorted(KINDS)), min_size=1), pipe=st.booleans(), loose=st.booleans())
def test_each_file_of_a_folder_is_found_or_counted(
    tmp_path_factory: pytest.TempPathFactory, names: set[str], pipe: bool, loose: bool
) -> None:
    folder = tmp_path_factory.mktemp("folder")
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0" * 128 + b"DICM" if name == "b" else b"any")
    if pipe:
        os.mkfifo(folder / "pipe.dcm")
    if loose:
        (folder / "loose.dcm").symlink_to("nowhere")
    search = Search()
    found = find_inputs([folder], search=search)
    films = {folder / name for name in names if KINDS[name] is None}
    assert set(found) == (films or {folder}) and set(search.folder_of) == films
    expected = Counter(kind for name in names if (kind := KINDS[name]))
    expected.update({"no regular files": pipe + loose})
    assert search.passed_over == +expected
    assert search.summary().count("(") == len(+expected) and bool(search.summary()) == bool(+expected)
    named = Search()
    find_inputs([folder, *films], search=named)
    assert named.folder_of == {}


def made(folder: Path, **elements: Any) -> Path:
    return write(film(np.full((8, 8), 9, np.uint8), **elements), folder)


OTHERS = ("SRStorage", "SoftcopyPresentationStateStorage", "KeyObject", "EncapsulatedPDF", "WaveformStorage", "RTPlan",
          "MediaStorageDirectory", "RawData")  # fmt: skip


def test_reports_and_the_like_hold_no_image_and_films_whose_pixels_are_lost_do(tmp_path: Path) -> None:
    images = [uid for uid in vars(pydicom.uid) if uid.endswith("ImageStorage")]
    others = [uid for uid in vars(pydicom.uid) if any(part in uid for part in OTHERS)]
    assert len(images) > 20 < len(others)
    nothing = dict.fromkeys(("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "PixelData"))
    for name in images:
        assert not holds_no_image(made(tmp_path, SOPClassUID=getattr(pydicom.uid, name), **nothing)), name
    for name in [*others, "private"]:
        uid = "1.3.12.2.1107.5.9.1" if name == "private" else getattr(pydicom.uid, name)
        assert holds_no_image(made(tmp_path, SOPClassUID=uid, **nothing)), name
        assert not holds_no_image(made(tmp_path, SOPClassUID=uid, PixelData=None)), name
    assert not holds_no_image(made(tmp_path, SOPClassUID=None, **nothing))

from __future__ import annotations

import os
from pathlib import Path

from edgecxr.films.find import find_inputs


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

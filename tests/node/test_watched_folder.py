"""A watched folder: whole films are copied once they rest, and nothing else is touched."""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.node.limits import Limits
from edgecxr.node.node_config import NodeConfig, Watch
from edgecxr.node.spool import Spool
from edgecxr.node.watched_folder import REST, WatchedFolder
from edgecxr.storage.walk import remove_tree
from tests.films.dicom_files import film, write
from tests.storage.test_walk import deep

LIMITS = Limits(free_mib=0, free_percent=0, film_mib=1)


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "in" / "sub"
    place.mkdir(parents=True)
    return place


def scan(folder: Path, uid: str, **elements: Any) -> Path:
    return write(film(np.ones((64, 64), np.uint8), SOPInstanceUID=uid, **elements), folder, f"{uid}.dcm")


def watched(folder: Path, spool: Spool, limits: Limits = LIMITS, move: bool = False) -> WatchedFolder:
    return WatchedFolder(Watch(str(folder.parent), move), NodeConfig(state=str(spool.folder), limits=limits), spool)


def uids(spool: Spool) -> list[str]:
    return [row["uid"] for row in spool.read("SELECT uid FROM film ORDER BY id")]


def rest(watched: WatchedFolder, start: float = 0.0) -> int:
    return watched.look(start) + watched.look(start + REST / 2) + watched.look(start + REST)


def test_a_file_is_taken_once_it_rests_and_stays_where_it_is(folder: Path, spool: Spool) -> None:
    path, looker = scan(folder, "1.1"), watched(folder, spool)
    content = path.read_bytes()
    path.write_bytes(b"\x7fELF" + content[4:])  # whoever opens the spool's copy runs nothing
    assert (looker.look(0), looker.look(REST - 1)) == (0, 0)
    path.write_bytes(b"\x7fELF" + content[4:])
    os.utime(path, ns=(1, 1))  # written again
    assert (looker.look(REST), looker.look(2 * REST - 1), looker.look(2 * REST)) == (0, 0, 1)
    assert uids(spool) == ["1.1"] and path.exists()
    assert spool.film_path(1).read_bytes() == bytes(128) + content[128:]
    assert rest(looker, 100) == 0 and rest(watched(folder, spool), 200) == 0, "not again, nor by the next process"


def test_a_film_that_is_written_over_is_another_film(folder: Path, spool: Spool) -> None:
    looker = watched(folder, spool)
    for number, elements in enumerate(({}, {"WindowCenter": 3, "WindowWidth": 9})):
        os.utime(scan(folder, "1.1", **elements), ns=(number, number))
        assert rest(looker, 100.0 * number) == 1
    assert uids(spool) == ["1.1", "1.1"]


def test_with_move_a_film_goes_and_what_is_none_stays(folder: Path, spool: Spool) -> None:
    path, page = scan(folder, "1.1"), folder / "page.dcm"
    page.write_text("<html>")
    assert rest(watched(folder, spool, move=True)) == 1
    assert (path.exists(), page.exists()) == (False, True)


def test_other_classes_and_syntaxes_than_modalities_may_send_are_passed_over_and_stay(
    folder: Path, spool: Spool
) -> None:
    ct = scan(folder, "1.1", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    unknown = scan(folder, "1.2")
    unknown.write_bytes(unknown.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    assert rest(watched(folder, spool, move=True)) == 0
    assert uids(spool) == [] and ct.exists() and unknown.exists()


def test_what_is_no_film_is_passed_over_and_said_once(
    folder: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = scan(folder, "1.1")
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "page.dcm").write_bytes(b"<html><body>log in</body></html>" * 100)
    (folder / "archive.dcm").write_bytes(b"PK\3\4" + bytes(500))
    (folder / "half.dcm").write_bytes(whole.read_bytes()[:300])
    (folder / "large.dcm").write_bytes(whole.read_bytes() + bytes(1 << 20))
    (folder / ".hidden.dcm").write_bytes(whole.read_bytes())
    (folder / "link.dcm").symlink_to(whole)
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe.dcm")
    looker = watched(folder, spool)
    assert rest(looker) == 1 and rest(looker, 100) == 0 and uids(spool) == ["1.1"]
    messages = [line for line in capsys.readouterr().err.splitlines() if "passed over" in line]
    assert len(messages) == 5 and all("\x1b" not in line for line in messages)
    assert sorted(path.name for path in folder.iterdir() if not path.is_symlink()) == [
        ".hidden.dcm", "1.1.dcm", "archive.dcm", "empty.dcm", "half.dcm", "large.dcm", "page.dcm", "pipe.dcm",
    ]  # fmt: skip
    assert list(spool.incoming.iterdir()) == []


def test_folders_in_folders_end_nothing_however_deep(folder: Path, spool: Spool) -> None:
    scan(folder, "1.1")
    emptied_later = deep(folder / "..", 1200)
    try:
        looker = watched(folder, spool, LIMITS)
        assert looker.look(0) + looker.look(REST / 2) + looker.look(REST) == 1 and uids(spool) == ["1.1"]
    finally:
        remove_tree(emptied_later / "d")


def test_without_room_a_film_waits_and_is_taken_later(
    folder: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(folder, "1.1")
    assert rest(watched(folder, spool, Limits(free_percent=100))) == 0
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert rest(watched(folder, spool)) == 1


def test_a_database_that_fails_is_said_once_and_tried_again(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    scan(folder, "1.1")
    looker = watched(folder, spool)
    with monkeypatch.context() as patched:
        patched.setattr(spool, "transaction", fails)
        assert rest(looker) == 0 and looker.look(2 * REST) == 0
    assert capsys.readouterr().err.count("disk I/O error") == 1
    assert looker.look(3 * REST) == 1 and uids(spool) == ["1.1"]


def test_a_folder_that_is_away_is_said_once_and_looked_for_again(
    folder: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    looker, aside = watched(folder, spool), folder.parent.with_name("aside")
    scan(folder, "1.1")
    assert rest(looker) == 1
    folder.parent.rename(aside)
    capsys.readouterr()
    assert rest(looker, 100) == 0 and len(capsys.readouterr().err.splitlines()) == 1
    aside.rename(folder.parent)
    assert rest(looker, 200) == 0 and uids(spool) == ["1.1"], "it is still known"


def test_a_folder_that_may_not_be_listed_is_said_once_and_holds_up_no_film(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan(folder, "1.1")
    lost, scandir = str(folder.parent / "lost+found"), os.scandir
    Path(lost).mkdir()

    def of_a_user(place: Any) -> Any:  # root may list any folder
        if place == locked:
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    locked, looker = lost, watched(folder, spool)
    monkeypatch.setattr(os, "scandir", of_a_user)
    assert rest(looker) == 1 and rest(looker, 100) == 0 and uids(spool) == ["1.1"]
    assert capsys.readouterr().err.count("lost+found") == 1
    locked = str(folder.parent)
    looker.look(200)
    assert "denied" in capsys.readouterr().err and spool.read("SELECT * FROM watched"), "it is still known"


def test_without_phi_the_log_has_no_name_of_a_file_or_folder(
    folder: Path, spool: Spool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = folder / "QUISPE^JANE"
    place.mkdir()
    scan(place, "1.1")
    (place / "page.html").write_bytes(b"<html>" * 100)
    config = NodeConfig(state=str(spool.folder), limits=LIMITS, phi=False)
    looker = WatchedFolder(Watch(str(folder.parent)), config, spool)
    assert rest(looker) == 1
    open_gone = "edgecxr.node.watched_folder.open_file"
    monkeypatch.setattr(open_gone, lambda path: io.FileIO(f"{path}.gone"))
    scan(place, "1.3")
    rest(looker, 200)
    scandir = os.scandir

    def of_a_user(place: Any) -> Any:  # root may list any folder
        if "QUISPE" in str(place):
            raise PermissionError(13, "Permission denied", place)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", of_a_user)
    looker.look(300)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(str(folder.parent) in line and "QUISPE" not in line for line in lines)


def test_a_film_is_taken_whatever_bytes_its_name_has(
    folder: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / os.fsdecode(b"M\xfcller.dcm")
    try:
        scan(folder, "1.1").rename(path)
    except OSError:
        pytest.skip("the file system has no such names")
    assert rest(watched(folder, spool)) == 1 and uids(spool) == ["1.1"]
    capsys.readouterr().err.encode()
    looker = watched(folder, spool)
    assert rest(looker, 100) == 0 and not capsys.readouterr().err, "after a restart it is still known"
    path.unlink()
    looker.look(200)
    assert spool.read("SELECT * FROM watched") == []


def test_a_file_that_is_gone_is_forgotten(folder: Path, spool: Spool) -> None:
    path, looker = scan(folder, "1.1"), watched(folder, spool)
    assert rest(looker) == 1
    path.unlink()
    looker.look(100)
    assert spool.read("SELECT * FROM watched") == []

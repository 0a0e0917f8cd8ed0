"""A key that others can have written is not used, whatever they put in its place."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from edgecxr.bundle import engine_record
from edgecxr.errors import UsageError
from edgecxr.storage.private import check_private, create_private, read_private

KEY = bytes(range(32))
OTHER_USER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """The path of a key, in a folder that only its user can write to."""
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "engine.key"


def test_a_key_is_read_as_it_was_written_and_nobody_else_can_read_it(place: Path) -> None:
    assert read_private(place, 32) is None
    assert create_private(place, KEY) and read_private(place, 32) == KEY
    assert stat.S_IMODE(place.stat().st_mode) == 0o600 and place.stat().st_nlink == 1
    assert not create_private(place, bytes(32)) and read_private(place, 32) == KEY
    assert list(place.parent.iterdir()) == [place]


def test_the_folder_of_a_new_key_is_its_user_s_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create_private(tmp_path / "new" / "engine.key", KEY)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "engine.key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o666, 0o644, 0o640, 0o602, 0o660, 0o601])
def test_a_key_that_is_open_to_others_is_refused(place: Path, mode: int) -> None:
    place.write_bytes(KEY)
    place.chmod(mode)
    with pytest.raises(UsageError, match=r"engine\.key .*: remove it"):
        read_private(place, 32)


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770, 0o720, 0o702])
def test_a_folder_that_others_can_write_to_is_refused(place: Path, mode: int) -> None:
    create_private(place, KEY)
    place.parent.chmod(mode)
    for use in (
        lambda: read_private(place, 32),
        lambda: create_private(place, KEY),
        lambda: check_private(place.parent),
    ):
        with pytest.raises(UsageError, match=r"state can be written .*chmod"):
            use()


def put_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def put_dangling_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim.with_name("nothing"))


def put_pipe(place: Path, victim: Path) -> None:
    os.mkfifo(place, 0o600)


def put_folder(place: Path, victim: Path) -> None:
    place.mkdir(0o700)


def put_socket(place: Path, victim: Path) -> None:
    here = Path.cwd()
    os.chdir(place.parent)  # a socket's path may have 107 characters
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(place.name)
    os.chdir(here)
    place.chmod(0o600)


def put_short(place: Path, victim: Path) -> None:
    place.write_bytes(KEY[:-1])
    place.chmod(0o600)


def put_long(place: Path, victim: Path) -> None:
    place.write_bytes(KEY + b"x")
    place.chmod(0o600)


@pytest.mark.parametrize("put", [put_link, put_dangling_link, put_pipe, put_folder, put_socket, put_short, put_long])
def test_what_is_no_key_is_neither_followed_nor_changed(
    put: Callable[[Path, Path], None], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "thesis.tex"
    victim.write_bytes(b"years of work, and just as many." * 2)
    victim.chmod(0o600)
    put(place, victim)
    monkeypatch.setenv("EDGECXR_STATE", str(place.parent))
    with pytest.raises(UsageError, match=r"engine\.key"):
        engine_record._own_key()
    assert victim.read_bytes() == b"years of work, and just as many." * 2
    assert [entry.name for entry in tmp_path.iterdir() if entry.name == "nothing"] == []
    assert list(place.parent.iterdir()) == [place]


@as_root
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_belongs_to_another_user_is_refused(place: Path, kind: str) -> None:
    create_private(place, KEY)
    os.chown(place if kind == "file" else place.parent, OTHER_USER, OTHER_USER)
    with pytest.raises(UsageError, match="another user"):
        read_private(place, 32)


def test_those_who_make_a_key_at_once_get_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECXR_STATE", str(place.parent / "new"))
    together = threading.Barrier(8)
    keys: list[bytes] = []

    def make() -> None:
        together.wait()
        keys.append(engine_record._own_key())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8 and len(set(keys)) == 1 and len(keys[0]) == 32
    assert [entry.name for entry in (place.parent / "new").iterdir()] == ["engine.key"]


def test_a_seal_made_with_a_key_that_others_can_write_is_not_believed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECXR_STATE", str(place.parent))
    record = engine_record.EngineRecord(
        "fp32",
        engine_record.EngineEnvironment(None, None, "tensorrt", "10"),
        "model.onnx",
        "",
        "",
        1,
        (1, 1, 1),
        None,
        1.0,
        "strong",
    )
    record.write(tmp_path / "engine.json")
    assert engine_record.EngineRecord.read(tmp_path / "engine.json")[1] is True
    place.chmod(0o666)
    with pytest.raises(UsageError, match=r"engine\.key"):
        engine_record.EngineRecord.read(tmp_path / "engine.json")
    place.unlink()
    assert engine_record.EngineRecord.read(tmp_path / "engine.json")[1] is False


def test_what_is_exchanged_between_the_look_and_the_reading_is_not_read(tmp_path: Path) -> None:
    """Another user turns a link from a good folder to one of theirs, and puts things in the place of the key."""
    mine, theirs, state = tmp_path / "mine", tmp_path / "theirs", tmp_path / "state"
    mine.mkdir(mode=0o700)
    theirs.mkdir()
    theirs.chmod(0o777)
    create_private(mine / "engine.key", KEY)
    for folder, name in ((theirs, "engine.key"), (tmp_path, "victim")):
        (folder / name).write_bytes(b"E" * 32)
        (folder / name).chmod(0o600 if folder == theirs else 0o644)
    state.symlink_to(mine)
    over = threading.Event()

    def exchanged() -> None:
        while not over.is_set():
            for target in (theirs, mine):
                (tmp_path / "new").symlink_to(target)
                (tmp_path / "new").rename(state)
            # In the folder itself, as if its permissions had been others before.
            for put in (partial(os.symlink, tmp_path / "victim"), partial(os.link, tmp_path / "victim"), os.mkfifo):
                put(mine / "other")
                (mine / "other").rename(mine / "engine.key")
            (mine / "other").write_bytes(KEY)
            (mine / "other").chmod(0o600)
            (mine / "other").rename(mine / "engine.key")

    thread = threading.Thread(target=exchanged)
    thread.start()
    contents = set()
    try:
        for _ in range(2000):
            with suppress(UsageError, OSError):
                contents.add(read_private(state / "engine.key", 32))
            with suppress(UsageError, OSError):
                create_private(state / "engine.key", KEY)
    finally:
        over.set()
        thread.join()
    assert contents <= {KEY, None}
    assert (tmp_path / "victim").read_bytes() == (theirs / "engine.key").read_bytes() == b"E" * 32
    assert stat.S_IMODE((tmp_path / "victim").stat().st_mode) == 0o644

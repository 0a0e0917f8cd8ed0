"""What is being written is new, its user's own, and has a name that nobody can take first."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.storage import atomic, unfinished
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import atomic_folder
from edgecxr.storage.permissions import umask
from edgecxr.storage.private import own_folder
from edgecxr.storage.unfinished import is_unfinished, new_file, new_folder

NAMES = [".edgecxr-0123456789abcdef.tmp", ".edgecxr-fedcba9876543210.tmp"]
WAIT = """
import sys, time
from pathlib import Path
from edgecxr.storage.unfinished import new_file, new_folder
path, file = new_file(Path(sys.argv[1]))
file.write(b"half"); file.flush()
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "half").write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _sweep_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is a new process, as far as what was left is concerned."""
    monkeypatch.setattr(unfinished, "_swept", set())


def test_names_differ_and_are_known_as_unfinished(tmp_path: Path) -> None:
    unfinished = []
    for _ in range(20):
        path, file = new_file(tmp_path)
        unfinished.append((path, file))
    assert len({path for path, _ in unfinished}) == 20 and all(is_unfinished(path.name) for path, _ in unfinished)
    for _, file in unfinished:
        state = os.fstat(file.fileno())
        assert state.st_nlink == 1 and state.st_uid == os.geteuid() and stat.S_ISREG(state.st_mode)
        file.close()
    assert not any(map(is_unfinished, ("card.json", ".card.json.tmp", "edgecxr-0123456789abcdef.tmp", ".edgecxr-.tmp")))


@pytest.mark.parametrize("kind", ["link", "dangling", "second name", "pipe", "folder", "file"])
def test_a_name_that_is_taken_is_not_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    victim, taken, dest = tmp_path / "thesis.tex", tmp_path / NAMES[0], tmp_path / "card.json"
    victim.write_text("years of work")
    make = {
        "link": lambda: taken.symlink_to(victim), "dangling": lambda: taken.symlink_to(tmp_path / "new"),
        "second name": lambda: os.link(victim, taken), "pipe": lambda: os.mkfifo(taken), "folder": taken.mkdir,
        "file": lambda: taken.write_text("theirs"),
    }  # fmt: skip
    make[kind]()
    monkeypatch.setattr(unfinished, "_new_name", lambda: NAMES[0])
    monkeypatch.setattr(unfinished, "sweep", lambda folder: None)
    with pytest.raises(UsageError):
        atomic_write(dest, "{}")
    assert victim.read_text() == "years of work" and not dest.exists() and not (tmp_path / "new").exists()


def test_what_a_kill_left_is_removed_and_what_others_write_is_not(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", WAIT, tmp_path], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"ready\n"
    held = set(tmp_path.iterdir())
    assert len(held) == 2
    atomic_write(tmp_path / "card.json", "{}")
    assert held < set(tmp_path.iterdir())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    assert held < set(tmp_path.iterdir())
    unfinished._swept.clear()
    atomic_write(tmp_path / "card.json", "{}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]


def test_no_link_is_followed_while_tidying_up(tmp_path: Path) -> None:
    victim, folder = tmp_path / "thesis.tex", tmp_path / "years"
    victim.write_text("years of work")
    folder.mkdir()
    (folder / "one").write_text("of work")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / NAMES[0]).symlink_to(victim)
    (tmp_path / "work" / NAMES[1]).symlink_to(folder)
    atomic_write(tmp_path / "work" / "card.json", "{}")
    with atomic_folder(tmp_path / "work" / "student") as student:
        (student / "card.json").write_text("{}")
    assert victim.read_text() == "years of work" and (folder / "one").read_text() == "of work"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_what_another_user_left_stays(tmp_path: Path) -> None:
    for name, make in ((NAMES[0], Path.touch), (NAMES[1], Path.mkdir)):
        make(tmp_path / name)
        os.chown(tmp_path / name, 12345, 12345)
    atomic_write(tmp_path / "card.json", "{}")
    assert {entry.name for entry in tmp_path.iterdir()} == {*NAMES, "card.json"}


def test_a_file_that_was_taken_for_left_over_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, removed = unfinished.fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not removed:  # another process looks before the lock is there
            removed.extend(entry for entry in tmp_path.iterdir() if is_unfinished(entry.name))
            removed[0].rmdir() if removed[0].is_dir() else removed[0].unlink()
        lock(descriptor, how)

    monkeypatch.setattr(unfinished.fcntl, "flock", late)
    atomic_write(tmp_path / "card.json", "new")
    assert removed and (tmp_path / "card.json").read_text() == "new"
    removed.clear()
    with new_folder(tmp_path) as folder:
        assert folder.is_dir() and folder not in removed
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]


def test_writers_do_not_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    building, file = new_file(tmp_path)
    second = threading.Thread(target=atomic_write, args=(path, "second"))
    second.start()
    second.join(10)
    assert path.read_text() == "second"
    file.write(b"first")
    file.close()
    building.replace(path)
    assert path.read_text() == "first" and list(tmp_path.iterdir()) == [path]


def test_a_name_may_be_as_long_as_the_system_has_it(tmp_path: Path) -> None:
    atomic_write(tmp_path / ("x" * 255), "long")
    assert (tmp_path / ("x" * 255)).read_text() == "long"


def test_many_writes_look_for_what_is_left_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    scandir = os.scandir
    monkeypatch.setattr(unfinished.os, "scandir", lambda folder: looked.append(folder) or scandir(folder))
    for number in range(20):
        atomic_write(tmp_path / f"{number}.png", "picture")
    assert looked == [tmp_path]


def test_a_fork_looks_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic_write(tmp_path / "card.json", "{}")
    (tmp_path / NAMES[0]).write_text("left by a fork that was killed")
    monkeypatch.setattr(unfinished.os, "getpid", lambda: -1)
    atomic.atomic_write(tmp_path / "card.json", "{}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]


# ---- permissions


def modes(folder: Path) -> dict[str, int]:
    return {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in folder.rglob("*")}


def test_a_umask_holds_for_files_and_their_folders_and_ends(tmp_path: Path) -> None:
    before = os.umask(0o22)
    try:
        with umask("077"):
            atomic_write(tmp_path / "a" / "b" / "film.png", "picture")
            with atomic_folder(tmp_path / "a" / "set") as folder:
                (folder / "card.json").write_text("{}")
        atomic_write(tmp_path / "open" / "history.csv", "{}")
        assert modes(tmp_path) == {
            "a": 0o700, "b": 0o700, "film.png": 0o600, "set": 0o700, "card.json": 0o600, "open": 0o755,
            "history.csv": 0o644,
        }  # fmt: skip
    finally:
        os.umask(before)


@pytest.mark.parametrize("octal", ["", "8", "088", "777", "0777", "-1", "0o22", "u=rwx", "22 ", "7"])
def test_a_umask_that_is_none_is_refused(octal: str) -> None:
    with pytest.raises(UsageError), umask(octal):
        pass


def test_a_folder_of_one_s_own_is_new_or_was_made_by_this_user(tmp_path: Path) -> None:
    own_folder(tmp_path / "new" / "work", "remove it")
    own_folder(tmp_path / "new" / "work", "remove it")
    assert stat.S_IMODE((tmp_path / "new" / "work").stat().st_mode) == 0o700
    (tmp_path / "link").symlink_to(tmp_path / "new" / "work")
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    for name in ("link", "file", "open"):
        with pytest.raises(UsageError, match="remove it"):
            own_folder(tmp_path / name, "remove it")

"""Locks between processes, and what they protect."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgecxr.errors import UsageError
from edgecxr.storage.appended import appended
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.locks import locked

HOLD = (
    "from edgecxr.storage.locks import locked\nimport sys, pathlib\n"
    "with locked(pathlib.Path(sys.argv[1])):\n    print(1)\n    "
)


def test_the_second_is_told_who_holds_it_and_a_kill_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-uc", HOLD + "input()", path], stdin=-1, stdout=-1)
    assert holder.stdout and holder.stdin
    holder.stdout.readline()
    with pytest.raises(UsageError, match=rf"^process {holder.pid} on .* is busy$"), locked(path, "is busy"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdin.close()
    holder.stdout.close()
    assert path.exists()
    with locked(path, "is busy"):
        assert path.read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_one_that_waits_is_let_in_when_the_other_has_removed_the_file(tmp_path: Path) -> None:
    path, order = tmp_path / "lock", []

    def second() -> None:
        with locked(path):
            order.append("second")

    waiting = threading.Thread(target=second)
    with locked(path):
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    atomic_write(tmp_path / "card.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_many_writers_of_one_file_leave_one_whole_content(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    texts = [str(number) * 50_000 for number in range(4)]
    threads = [
        threading.Thread(target=lambda text=text: [atomic_write(path, text) for _ in range(10)]) for text in texts
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_text() in texts
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_a_lock_is_no_way_to_write_into_another_file(tmp_path: Path, kind: str) -> None:
    victim, lock = tmp_path / "thesis.tex", tmp_path / "lock"
    victim.write_text("years of work")
    make = {
        "link": lambda: lock.symlink_to(victim), "second name": lambda: os.link(victim, lock),
        "pipe": lambda: os.mkfifo(lock), "folder": lock.mkdir,
    }  # fmt: skip
    make[kind]()
    with pytest.raises(OSError), locked(lock, "is busy"):
        pass
    assert victim.read_text() == "years of work"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_lock_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("")
    os.chown(tmp_path / "lock", 12345, 12345)
    with pytest.raises(OSError), locked(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("content", [b"", b'{"source": "A/SMITH^JOHN.dcm"}\n' * 9, b"process 7 on \xff", b"\0" * 300])
def test_who_holds_a_file_of_content_is_not_told_by_its_content(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content)
    with appended(path, "give another"), pytest.raises(UsageError) as raised, appended(path, "give another"):
        pass
    assert str(raised.value).startswith("another process ") and "SMITH" not in str(raised.value)
    assert path.read_bytes() == content

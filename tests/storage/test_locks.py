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
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.locks import locked, open_locked

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


def test_what_a_killed_writer_left_is_written_over(tmp_path: Path) -> None:
    (tmp_path / ".card.json.tmp").write_text("a long half of something")
    atomic_write(tmp_path / "card.json", "new")
    assert (tmp_path / "card.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_a_writer_waits_for_another_of_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with open_locked(tmp_path / ".card.json.tmp") as file:
        second = threading.Thread(target=atomic_write, args=(path, "second"))
        second.start()
        second.join(0.2)
        assert second.is_alive() and not path.exists()
        file.write(b"first")
        file.flush()
        (tmp_path / ".card.json.tmp").replace(path)
    second.join(10)
    assert path.read_text() == "second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["card.json"]


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


def test_a_link_in_the_place_of_the_unfinished_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / ".card.json.tmp").symlink_to(tmp_path / "thesis.tex")
    with pytest.raises(UsageError, match=r"card\.json cannot be written"):
        atomic_write(tmp_path / "card.json", "{}")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"

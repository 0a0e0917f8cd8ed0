from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from edgecxr.storage.reading import BadFile, open_file, read_bytes, read_text


def odd_places(folder: Path) -> list[Path]:
    """Return paths of what is there but no regular file."""
    os.mkfifo(folder / "pipe")
    (folder / "to_pipe").symlink_to("pipe")
    (folder / "zero").symlink_to("/dev/zero")
    (folder / "terminal").symlink_to("/dev/tty")
    return [folder, *(folder / name for name in ("pipe", "to_pipe", "zero", "terminal")), Path("/dev/zero")]


def test_nothing_but_a_regular_file_is_opened(tmp_path: Path) -> None:
    for path in odd_places(tmp_path):
        with pytest.raises(BadFile):
            open_file(path)
        with pytest.raises(BadFile):
            read_bytes(path, 10)


def test_a_socket_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(BadFile):
            open_file(Path("socket"))


def test_a_file_that_becomes_a_pipe_after_the_first_look_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pipe = tmp_path / "file", tmp_path / "pipe"
    path.write_bytes(b"content")
    os.mkfifo(pipe)
    looked = path.stat()
    monkeypatch.setattr(Path, "stat", lambda self, **_: looked)
    with pytest.raises(BadFile):
        open_file(pipe)


@pytest.mark.parametrize("name", ["absent", "absent/absent", "zero\0byte", "lone\ud800", "x" * 5000])
def test_what_is_not_there_is_an_error_of_the_system(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        open_file(tmp_path / name)


def test_content_up_to_the_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("grün".encode())
    assert read_bytes(path, 5) == "grün".encode() and read_text(path, 5) == "grün"
    with pytest.raises(BadFile):
        read_bytes(path, 4)
    path.write_bytes(b"gr\xfcn")
    with pytest.raises(BadFile):
        read_text(path, 5)


def test_a_large_hole_costs_nothing(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadFile):
        read_bytes(tmp_path / "hole", 1 << 20)


def test_opened_files_are_closed_for_child_processes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with open_file(tmp_path / "file") as file:
        assert not os.get_inheritable(file.fileno())

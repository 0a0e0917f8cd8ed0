"""What a worker with a stranger's film cannot do, whatever the film makes it do."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.workers import confine
from edgecxr.workers.confine import _MACHINES, landlock_version
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Limits, Work, run
from tests.workers.test_pool import as_ended

needs_filter = pytest.mark.skipif(os.uname().machine not in _MACHINES, reason="no filter for this machine")
_LIBRARY = ctypes.CDLL(None, use_errno=True)


def call(number: int, *arguments: int) -> None:
    """Call the kernel past the C library."""
    if _LIBRARY.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)) < 0:
        raise OSError(ctypes.get_errno(), "")


def x86(number: int, arm: int) -> int:
    return number if os.uname().machine == "x86_64" else arm


def writes_to(path: Path, flags: int) -> None:
    os.write(os.open(path, flags, 0o600), b"taken")


def opens_again(path: Path) -> None:
    os.open(f"/proc/self/fd/{os.open(path, os.O_PATH)}", os.O_WRONLY)


def types_for_the_user() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSTI, b"x")


def raises_its_limits(parent: int) -> None:
    import resource

    resource.prlimit(parent, resource.RLIMIT_NOFILE, (64, 64))


def attempts(victim: Path, parent: int) -> dict[str, Callable[[], Any]]:
    """Return what a film may try: name -> how."""
    folder = victim.parent
    return {
        "socket": lambda: socket.socket().close(),
        "unix socket": lambda: socket.socket(socket.AF_UNIX).close(),
        "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
        "pair": socket.socketpair,
        "program": lambda: subprocess.run(["true"], check=True),
        "shell": lambda: os.execv("/bin/true", ["true"]),
        "fork": lambda: os.fork() or os._exit(0),
        "vfork": lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0),
        "clone3": lambda: call(435, 0, 0),
        "signal": lambda: os.kill(parent, 0),
        "group": lambda: os.killpg(0, 0),
        "everyone": lambda: os.kill(-1, 0),
        "pidfd": lambda: call(434, parent, 0),
        "trace": lambda: call(x86(101, 117), 16, parent, 0, 0),
        "limits": partial(raises_its_limits, parent),
        "memory": lambda: Path(f"/proc/{parent}/mem").open("r+b"),
        "write": partial(writes_to, victim, os.O_WRONLY),
        "append": partial(writes_to, victim, os.O_RDWR | os.O_APPEND),
        "empty": lambda: os.open(victim, os.O_RDONLY | os.O_TRUNC),
        "truncate": lambda: os.truncate(victim, 0),
        "new": partial(writes_to, folder / "new", os.O_WRONLY | os.O_CREAT),
        "nameless": lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR),
        "again": partial(opens_again, victim),
        "openat2": lambda: call(437, -100, 0, 0, 24),
        "remove": victim.unlink,
        "rename": lambda: victim.rename(folder / "other"),
        "link": lambda: os.link(victim, folder / "other"),
        "symlink": lambda: (folder / "other").symlink_to(victim),
        "folder": lambda: (folder / "other").mkdir(),
        "mode": lambda: victim.chmod(0o777),
        "owner": lambda: os.chown(victim, os.getuid(), os.getgid()),
        "time": lambda: os.utime(victim, (0, 0)),
        "fifo": lambda: os.mkfifo(folder / "other"),
        "attribute": lambda: os.setxattr(victim, "user.x", b""),
        "uring": lambda: call(425, 1, 0),
        "shared memory": lambda: call(x86(29, 194), 0, 4096, 0o1600),
        "new namespace": lambda: call(x86(272, 97), 0x10000000),
        "newer calls": lambda: call(500),
        "typing": types_for_the_user,
    }


def tried(item: tuple[str, int]) -> tuple[dict[str, str], bytes]:
    return some_tried(list(attempts(Path(item[0]), item[1])), item)


def some_tried(names: list[str], item: tuple[str, int]) -> tuple[dict[str, str], bytes]:
    outcome = {}
    for name in names:
        attempt = attempts(Path(item[0]), item[1])[name]
        try:
            attempt()
            outcome[name] = "done"
        except OSError as error:
            outcome[name] = type(error).__name__ if error.errno != 38 else "unknown"
    return outcome, b""


def works(item: str) -> tuple[list[Any], bytes]:
    """Do what decoders do: read, start threads, use memory without a name, import, and be interrupted."""
    started: list[int] = []
    thread = threading.Thread(target=lambda: started.append(1))
    thread.start()
    thread.join()
    memory = os.memfd_create("decoder")
    os.write(memory, b"x" * 100)
    import colorsys

    os.kill(os.getpid(), signal.SIGCONT)
    size = int((np.ones((300, 300)) @ np.ones((300, 300)))[0, 0])
    return [Path(item).read_text(), len(started), os.fstat(memory).st_size, colorsys.__name__, size], b""


def as_it_is(item: Any, answer: Any, data: bytes) -> Any:
    return answer


@needs_filter
@pytest.mark.parametrize("fork", [False, True])
def test_a_confined_worker_can_do_nothing_but_read_compute_and_answer(tmp_path: Path, fork: bool) -> None:
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    before = victim.stat()
    with Pool(Work(tried, as_it_is, as_ended, confined=True), 1, Limits(60), fork) as pool:
        ((_, outcomes),) = run(pool, [(str(victim), os.getpid())])
    refused = {name: outcome for name, outcome in outcomes.items() if outcome in ("PermissionError", "unknown")}
    assert refused == outcomes
    assert victim.read_text() == "years of work" and list(tmp_path.iterdir()) == [victim]
    after = victim.stat()
    assert (after.st_mode, after.st_mtime, after.st_ino) == (before.st_mode, before.st_mtime, before.st_ino)


@needs_filter
@pytest.mark.parametrize("fork", [False, True])
def test_a_confined_worker_decodes_as_ever(tmp_path: Path, fork: bool) -> None:
    film = tmp_path / "film"
    film.write_text("pixels")
    with Pool(Work(works, as_it_is, as_ended, confined=True), 1, Limits(60, 500), fork) as pool:
        ((_, answer),) = run(pool, [str(film)])
    assert answer == ["pixels", 1, 100, "colorsys", 300]


def descriptors(item: int) -> tuple[list[str], bytes]:
    targets = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(entry.readlink()))
        except OSError:  # that of the list
            continue
    return sorted({place for place in targets if place != "/proc/self/fd"}), b""


@pytest.mark.parametrize("fork", [False, True])
def test_a_confined_worker_holds_its_connection_and_nothing_else(tmp_path: Path, fork: bool) -> None:
    with (
        (tmp_path / "results").open("w") as file,
        Pool(Work(descriptors, as_it_is, as_ended, confined=True), 1, Limits(60), fork) as pool,
    ):
        os.set_inheritable(file.fileno(), True)
        ((_, places),) = run(pool, [1])
    assert len([place for place in places if place.startswith("socket:")]) == 1
    assert {place for place in places if not place.startswith(("socket:", "/proc/"))} == {"/dev/null"}


def ways(item: None) -> tuple[list[str], bytes]:
    return list(confine.in_force), b""


def test_a_machine_without_filter_and_landlock_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine, "_MACHINES", {})
    monkeypatch.setattr(confine, "landlock_version", lambda: 0)
    with Pool(Work(works, as_it_is, as_ended, confined=True), 1, Limits(60), fork=True) as pool:
        ((_, answer),) = run(pool, [__file__])
    assert answer[1:] == [1, 100, "colorsys", 300]
    with Pool(Work(ways, as_it_is, as_ended, confined=True), 1, Limits(60), fork=True) as pool:
        assert list(run(pool, [None])) == [(None, [])]


needs_landlock = pytest.mark.skipif(not landlock_version(), reason="the kernel has no Landlock")
BY_LANDLOCK = {
    1: ("program", "shell", "memory", "write", "append", "new", "nameless", "again", "remove", "rename", "link",
        "symlink", "folder", "fifo"),
    3: ("empty", "truncate"),
    6: ("signal",),
}  # fmt: skip
"""Version of Landlock -> attempts that it alone refuses."""


@needs_landlock
@pytest.mark.parametrize("version", range(1, landlock_version() + 1))
def test_landlock_alone_refuses_changes_of_files_and_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    monkeypatch.setattr(confine, "_MACHINES", {})
    monkeypatch.setattr(confine, "landlock_version", lambda: version)  # older kernels, as this one can be asked
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    names = [name for least, names in BY_LANDLOCK.items() if version >= least for name in names]
    with Pool(Work(partial(some_tried, names), as_it_is, as_ended, confined=True), 1, Limits(60), fork=True) as pool:
        ((_, outcomes),) = run(pool, [(str(victim), os.getpid())])
    assert set(outcomes.values()) == {"PermissionError"}, outcomes
    assert victim.read_text() == "years of work" and list(tmp_path.iterdir()) == [victim]
    with Pool(Work(works, as_it_is, as_ended, confined=True), 1, Limits(60, 500), fork=True) as pool:
        ((_, outcomes),) = run(pool, [str(victim)])
    assert outcomes == ["years of work", 1, 100, "colorsys", 300]
    with Pool(Work(ways, as_it_is, as_ended, confined=True), 1, Limits(60), fork=True) as pool:
        assert list(run(pool, [None])) == [(None, ["Landlock"])]


@needs_filter
@pytest.mark.skipif(os.geteuid() != 0, reason="only root has capabilities to lose")
def test_root_keeps_no_right_but_to_read() -> None:
    with Pool(Work(capabilities, as_it_is, as_ended, confined=True), 1, Limits(60), fork=True) as pool:
        ((_, masks),) = run(pool, [1])
    assert {int(value, 16) & ~4 for value in masks} == {0}


def capabilities(item: int) -> tuple[list[str], bytes]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return [line.split()[1] for line in lines if line.startswith(("CapPrm", "CapEff", "CapInh"))], b""


# ---- answers


def connection() -> socket.socket:
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith("socket:"):
                return socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
    raise AssertionError


def message(number: Any, kind: str, content: Any = None, data: bytes = b"") -> bytes:
    from edgecxr.workers.channel import packed

    return packed([number, kind, content], data)


def own_number() -> int:
    """Return the number of the request at work, from the frame of this process that keeps it."""
    frame = sys._getframe()
    while "number" not in frame.f_locals:
        frame = frame.f_back  # type: ignore[assignment]
    return int(frame.f_locals["number"])


def honest(number: int) -> bytes:
    return message(number, "done", "false")


LIES: dict[str, Callable[[int], bytes]] = {
    "twice": lambda number: honest(number) * 2,
    "in advance": lambda number: honest(number) + honest(number + 1),
    "every number": lambda number: honest(number) + b"".join(map(honest, range(500))),
    "surplus": lambda number: honest(number) + b"\0",
    "half a message": lambda number: honest(number) + honest(number)[:-3],
    "no number": lambda _: message(None, "done", "false"),
    "a number as text": lambda number: message(str(number), "done", "false"),
    "a fraction": lambda number: message(float(number), "done", "false"),
    "true": lambda _: message(True, "done", "false"),
    "ready again": lambda _: message(0, "ready") * 3,
    "too large": lambda number: message(number, "done", "false", b"\0" * 2000),
    "an error": lambda number: message(number, "error", ["UsageError", ["all is over"]]),
    "an error in advance": lambda _: message(0, "error", ["UsageError", ["all is over"]]),
    "bytes with an error": lambda number: message(number, "memory", None, b"\0"),
    "deep": lambda _: (1 << 19).to_bytes(4, "big") + bytes(8) + b"[" * (1 << 19),
}
ENDLESS: dict[str, Callable[[int], bytes]] = {
    "for ever": lambda _: b" ",
    "ready for ever": lambda _: message(0, "ready"),
    "answers for ever": honest,
}


def lies(item: tuple[str, str]) -> tuple[str, bytes]:
    """Say "true" of a good film; a film that lies takes the connection and says "false" in every way it can."""
    _, kind = item
    if kind == "good":
        return "true", b""
    if kind == "raises":
        raise ValueError("all is over")
    if kind == "late":
        late = connection()
        threading.Timer(0.3, lambda: late.sendall(message(0, "done", "false"))).start()
        return "false", b""
    wire, number = connection(), own_number()
    if kind in LIES:
        wire.sendall(LIES[kind](number))
    else:
        if kind == "for ever":
            wire.sendall((1 << 10).to_bytes(4, "big") + (1 << 10).to_bytes(8, "big"))
        while True:
            wire.sendall(ENDLESS[kind](number))
            time.sleep(0.05 if kind == "for ever" else 0)
    time.sleep(60)
    return "false", b""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.long
def test_no_film_answers_for_another_or_ends_the_run(workers: int) -> None:
    items = [("first", "good")]
    for number, kind in enumerate([*LIES, "raises", "late"]):
        items += [(kind, kind), (f"{number} next", "good"), (f"{number} after", "good")]
    work = Work(lies, as_it_is, as_ended, largest=1000, confined=True)
    with Pool(work, workers, Limits(1.0), fork=True) as pool:
        answers = dict(run(pool, items))
    assert set(answers) == set(items)
    assert {item: answers[item] for item in items if item[1] == "good"} == {
        item: "true" for item in items if item[1] == "good"
    }


@pytest.mark.long
@pytest.mark.parametrize("kind", ENDLESS)
def test_an_answer_that_never_ends_costs_its_film_some_time_and_nothing_else(kind: str) -> None:
    work = Work(lies, as_it_is, as_ended, largest=1000, confined=True)
    with Pool(work, 1, Limits(1.0), fork=True) as pool:
        begun = time.monotonic()
        answers = dict(run(pool, [("a", "good"), (kind, kind), ("b", "good")]))
        assert time.monotonic() - begun < 30
    assert answers[("a", "good")] == answers[("b", "good")] == "true" and answers[(kind, kind)] in (
        "false",
        "crash",
        "too-slow",
    )

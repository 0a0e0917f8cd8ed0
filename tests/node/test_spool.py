"""The spool: states go forward, one film is one film, and what was acknowledged survives a kill."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgecxr.errors import UsageError
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.film_queue import MOST_ENDED, FilmQueue, Identity
from edgecxr.node.spool import DATABASE, Spool
from tests.node.objects import result


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "state") as opened:
        yield opened


def add(spool: Spool, uid: str, content: bytes = b"film") -> int:
    with spool.written(content) as building:
        number, _ = FilmQueue(spool).add(building, identity(uid, content), "TEST at 127.0.0.1", 1e9)
    return number


def identity(uid: str, content: bytes) -> Identity:
    return Identity(uid, "1.2", "1.3", "1.4", content.hex())


def state_of(spool: Spool, number: int) -> tuple[str, str | None]:
    ((state, reason),) = spool.read("SELECT state, reason FROM film WHERE id = ?", number)
    return state, reason


def test_a_film_sent_again_is_the_same_film_and_another_content_is_kept_beside_it(spool: Spool) -> None:
    first, again, other = add(spool, "1.1"), add(spool, "1.1"), add(spool, "1.1", b"other")
    assert first == again != other
    assert [path.read_bytes() for path in map(spool.film_path, (first, other))] == [b"film", b"other"]
    queue = FilmQueue(spool)
    claimed = [queue.claim("boot:1", alone=True) for _ in range(3)]
    assert [film and (film.number, film.twin) for film in claimed] == [(first, None), (other, first), None]
    assert list(spool.incoming.iterdir()) == []


def test_the_states_of_a_film_go_forward_until_all_destinations_have_all_results(spool: Spool) -> None:
    number, queue, deliveries = add(spool, "1.1"), FilmQueue(spool), Deliveries(spool)
    assert (state_of(spool, number), queue.waiting()) == (("received", None), 1)
    queue.claim("boot:1", alone=True)
    assert state_of(spool, number)[0] == "reading" and queue.claim("boot:1", alone=True) is None
    queue.set_predicted(number, "{}")
    assert (state_of(spool, number)[0], queue.waiting()) == ("predicted", 1)
    deliveries.add(number, [result("2.25.1", "sr"), result("2.25.2", "sc")], ["pacs", "archive"])
    assert (state_of(spool, number)[0], queue.waiting()) == ("made", 0)
    for destination in ("pacs", "archive"):
        due = deliveries.due(destination, 10)
        assert [each.path.read_bytes() for each in due] == [b"2.25.1", b"2.25.2"]
        for delivery in due:
            assert state_of(spool, number)[0] == "made"
            deliveries.set_sent(delivery.result, destination)
    assert state_of(spool, number)[0] == "filed" and deliveries.due("pacs", 10) == []
    assert deliveries.counts() == {"archive": {"sent": 2}, "pacs": {"sent": 2}}


def test_without_destinations_a_film_is_filed_once_its_results_are_there(spool: Spool) -> None:
    number = add(spool, "1.1")
    Deliveries(spool).add(number, [result("2.25.1", "sr")], [], "no-picture")
    assert state_of(spool, number) == ("filed", "no-picture")


def test_the_films_of_a_process_that_ended_come_last_and_alone_and_are_rejected_in_the_end(spool: Spool) -> None:
    bad, good = add(spool, "1.1"), add(spool, "1.2")
    queue = FilmQueue(spool)
    assert getattr(queue.claim("boot:1", alone=True), "number", None) == bad
    queue.void_leases("boot")
    assert getattr(queue.claim("boot:2", alone=False), "number", None) == good, "it does not hold up others"
    queue.release("boot:2")
    assert getattr(queue.claim("boot:2", alone=False), "number", None) == good
    queue.set_without_result(good, "refused", "not-chest")
    assert queue.claim("boot:2", alone=False) is None
    for ended in range(1, MOST_ENDED):
        assert state_of(spool, bad)[0] != "rejected", ended
        assert getattr(queue.claim(f"boot:{ended}", alone=True), "number", None) == bad
        queue.void_leases("boot")
    assert state_of(spool, bad) == ("rejected", "crash") and queue.claim("boot:9", alone=True) is None


def test_a_machine_that_went_down_is_no_film_s_fault(spool: Spool) -> None:
    number, queue = add(spool, "1.1"), FilmQueue(spool)
    for _ in range(2 * MOST_ENDED):
        assert queue.claim("an earlier boot:1", alone=False) is not None
        queue.void_leases("boot")
    assert state_of(spool, number)[0] == "reading"


def test_a_failure_waits_and_a_clock_that_was_set_back_holds_nothing_up(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = Deliveries(spool)
    deliveries.add(add(spool, "1.1"), [result("2.25.1", "sr")], ["pacs"])
    (first,) = deliveries.due("pacs", 10)
    deliveries.set_failed(first.result, "pacs", "no connection", 600)
    assert deliveries.due("pacs", 10) == []
    assert deliveries.errors(5) == [("pacs", "waiting", 1, "no connection")]
    now = __import__("time").time()
    monkeypatch.setattr("time.time", lambda: now - 86_400)
    (again,) = deliveries.due("pacs", 10)
    assert (again.tries, again.begun) == (1, now - 86_400)
    deliveries.set_failed(first.result, "pacs", "0xC000", None)
    assert deliveries.due("pacs", 10) == [] and deliveries.counts() == {"pacs": {"dead": 1}}
    assert (deliveries.retry("other"), deliveries.retry("pacs")) == (0, 1)
    assert [each.tries for each in deliveries.due("pacs", 10)] == [0]


def test_a_report_that_a_destination_is_still_to_get_is_not_forgotten(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = Deliveries(spool)
    deliveries.add(add(spool, "1.1"), [result("2.25.1", "sr")], ["pacs"], "view", "refused")
    now = __import__("time").time()
    monkeypatch.setattr("time.time", lambda: now + 40 * 86_400)
    spool.forget(7 * 86_400, 30 * 86_400)
    assert len(list(spool.results.iterdir())) == 1
    deliveries.set_failed(1, "pacs", "0xC000", None)
    spool.forget(7 * 86_400, 30 * 86_400)
    assert len(list(spool.results.iterdir())) == 1 and deliveries.retry("pacs") == 1
    deliveries.set_sent(1, "pacs")
    spool.forget(7 * 86_400, 30 * 86_400)
    assert list(spool.results.iterdir()) == []


def test_what_is_filed_is_forgotten_in_time_and_a_film_sent_again_is_still_known(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = Deliveries(spool)
    filed, waits = add(spool, "1.1"), add(spool, "1.2")
    deliveries.add(filed, [result("2.25.1", "sr")], [])
    now = __import__("time").time()
    monkeypatch.setattr("time.time", lambda: now + 8 * 86_400)
    assert spool.forget(7 * 86_400, 30 * 86_400) == 1
    assert (spool.film_path(filed).exists(), spool.film_path(waits).exists()) == (False, True)
    assert state_of(spool, filed)[0] == "filed" and len(list(spool.results.iterdir())) == 1
    monkeypatch.setattr("time.time", lambda: now + 31 * 86_400)
    assert spool.forget(7 * 86_400, 30 * 86_400) == 1 and list(spool.results.iterdir()) == []
    assert state_of(spool, filed)[0] == "forgotten" and add(spool, "1.1") == filed
    assert spool.forget(7 * 86_400, 30 * 86_400) == 0


def test_a_file_is_given_up_in_the_database_before_it_is_removed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    deliveries = Deliveries(spool)
    film = add(spool, "1.1")
    deliveries.add(film, [result("2.25.1", "sr")], ["pacs"])
    deliveries.drop("pacs", -1)
    assert spool.forget(-1, 1e9) == 1  # the film's file
    unlink = Path.unlink
    again: list[int] = []

    def retried_first(path: Path, missing_ok: bool = False) -> None:
        again.append(deliveries.retry("pacs"))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", retried_first)
    assert spool.forget(-1, -1) == 1
    assert again == [0], "a result whose file goes is not to be sent again"


def test_what_a_kill_left_of_a_forgotten_film_is_swept(spool: Spool) -> None:
    deliveries = Deliveries(spool)
    filed, waits = add(spool, "1.1"), add(spool, "1.2")
    deliveries.add(filed, [result("2.25.1", "sr")], [])
    spool.forget(-1, -1)
    spool.film_path(filed).write_bytes(b"film")
    spool.result_path(1).write_bytes(b"result")
    assert spool.sweep() == 2
    assert [path.name for path in spool.films.iterdir()] == [f"{waits}.dcm"] and not list(spool.results.iterdir())


def test_what_another_process_is_writing_is_not_swept(spool: Spool, tmp_path: Path) -> None:
    with spool.written(b"result") as building:
        child = os.fork()
        if not child:
            with Spool(spool.folder) as other:
                other.sweep()
            os._exit(0)
        os.waitpid(child, 0)
        assert building.read_bytes() == b"result"
    assert not building.exists()


def test_two_results_never_have_one_uid(spool: Spool) -> None:
    deliveries = Deliveries(spool)
    deliveries.add(add(spool, "1.1"), [result("2.25.1", "sr")], [])
    with pytest.raises(Exception, match="UNIQUE"):
        deliveries.add(add(spool, "1.2"), [result("2.25.1", "sr")], [])
    assert len(list(spool.results.iterdir())) == 1 and list(spool.incoming.iterdir()) == []


def test_files_and_folders_are_the_user_s_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with Spool(tmp_path / "state") as spool:
            add(spool, "1.1")
            assert {path.stat().st_mode & 0o077 for path in (spool.folder, *spool.folder.rglob("*"))} == {0}
    finally:
        os.umask(before)


def test_a_folder_of_another_version_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path / "state") as spool, spool.transaction() as run:
        run("SELECT 1")
    import sqlite3

    database = sqlite3.connect(tmp_path / "state" / DATABASE)
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(UsageError, match="a later version"):
        Spool(tmp_path / "state")


# ---- kills


def acknowledging(folder: Path, pipe: int, kill_before: int) -> None:
    """Add films and results, tell the pipe after each, and die just before change number `kill_before`."""
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if done == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in ("os.rename", "os.remove") or (event == "open" and str(args[0]).startswith(str(folder))):
            count()

    sys.addaudithook(hook)
    sync = os.fsync
    os.fsync = lambda descriptor: (count(), sync(descriptor))[1]
    with Spool(folder) as spool:
        spool.sweep()
        deliveries = Deliveries(spool)
        for round_ in range(3):
            uid = f"1.{kill_before}.{round_}"
            number = add(spool, uid, uid.encode())
            os.write(pipe, f"film {uid}\n".encode())
            deliveries.add(number, [result(f"2.25.{uid}", "sr"), result(f"2.26.{uid}", "sc")], ["pacs"])
            os.write(pipe, f"results {uid}\n".encode())
            add(spool, uid, uid.encode())
            add(spool, uid, b"other content")


@pytest.mark.long
def test_whatever_was_acknowledged_is_there_after_a_kill_before_any_change(tmp_path: Path) -> None:
    folder, acknowledged, killed = tmp_path / "state", [], 0
    for kill_before in range(1, 200):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                acknowledging(folder, writing, kill_before)
            finally:
                os._exit(0)
        os.close(writing)
        with open(reading, "rb") as pipe:  # noqa: PTH123
            acknowledged += pipe.read().decode().splitlines()
        ended = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(ended):
            break
        killed += 1
    assert killed > 30 and len(acknowledged) > killed
    with Spool(folder) as spool:
        spool.sweep()
        rows = {row["uid"]: row for row in spool.read("SELECT * FROM film WHERE twin IS NULL")}
        numbers = {row[0] for row in spool.read("SELECT id FROM film")}
        assert {path.stem for path in spool.films.iterdir()} == set(map(str, numbers)), (
            "each row has its file, and back"
        )
        results = {row["uid"]: row["id"] for row in spool.read("SELECT * FROM result")}
        assert {path.stem for path in spool.results.iterdir()} == set(map(str, results.values()))
        for item, uid in (line.split() for line in acknowledged):
            if item == "film":
                assert spool.film_path(rows[uid]["id"]).read_bytes() == uid.encode()
            else:
                assert rows[uid]["state"] == "made"
                for kind in ("2.25", "2.26"):
                    assert spool.result_path(results[f"{kind}.{uid}"]).read_bytes() == f"{kind}.{uid}".encode()
        assert len(results) == 2 * len([row for row in rows.values() if row["state"] == "made"])


def test_a_spool_is_opened_while_another_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecxr.node import spool as module

    monkeypatch.setattr(module, "_BUSY", 0.1)
    with Spool(tmp_path / "state") as writing, writing.transaction(), Spool(tmp_path / "state") as looking:
        assert looking.read("SELECT count(*) FROM film")[0][0] == 0


def test_a_spool_of_before_the_web_page_gets_what_it_lacks(tmp_path: Path) -> None:
    import sqlite3

    from edgecxr.node import spool as module

    (tmp_path / "state").mkdir(mode=0o700)
    with sqlite3.connect(tmp_path / "state" / DATABASE) as database:
        database.executescript(f"{module._TABLES[0]}; PRAGMA user_version = 1")
        database.execute(
            "INSERT INTO film (uid, digest, sop_class, study, series, size, source, received, state, changed)"
            " VALUES ('1.2', '', '', '1', '1', 1, 'CR', 1e9, 'received', 1e9)"
        )
    database.close()
    for _ in range(2):
        with Spool(tmp_path / "state") as spool:
            FilmQueue(spool).set_without_result(1, "rejected", "crash")
            assert [tuple(row) for row in spool.read("SELECT film, what FROM event")] == [(1, "rejected")]
            spool.note("echo.pacs", "answered")
            assert spool.read("PRAGMA user_version")[0][0] == len(module._TABLES)

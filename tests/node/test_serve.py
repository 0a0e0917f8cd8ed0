"""The whole node: films by DCMTK's dcmsend, results at DCMTK's storescp, and whatever is killed meanwhile."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from edgecxr import resolve
from edgecxr.node import surroundings
from edgecxr.node.spool import Spool
from edgecxr.node.supervisor import ROLES
from edgecxr.workers.new_python import command
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import film, write
from tests.node.certified import certified, tls_table, until
from tests.node.running import Process, alone, configured, dcmtk, eventually, free_port, run, started
from tests.tiny_bundle import tiny_bundle

PACS = '[[destination]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 11113\n'
STOW = "[stow]\nport = 0\n"


def scan(folder: Path, number: int) -> Path:
    pixels = np.random.default_rng(number).integers(0, 60, (64, 64), np.uint8)
    pixels[:32, :32] += 150
    stated = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": f"1.5.{number}"}
    return write(film(pixels, PatientName="Quispe^Jane", PatientID="MRN-1", **stated), folder, f"{number}.dcm")


@contextmanager
def serving(prefix: list[str], config: Path) -> Iterator[Process]:
    with started(*prefix, *command("edgecxr.cli:main", "serve", "--config", str(config))) as process:
        yield process


@contextmanager
def pacs(prefix: list[str], folder: Path, *options: str) -> Iterator[Process]:
    """Provide DCMTK's storescp, which keeps each object as a file of its own name."""
    folder.mkdir(exist_ok=True)
    program = dcmtk("storescp")
    with started(*prefix, program, "-d", "-aet", "PACS", "-od", folder, "+uf", *options, "11113") as process:
        yield process


def filed(folder: Path) -> dict[str, Dataset]:
    return {path.name: dcmread(path) for path in folder.iterdir()}


def state(config: Path) -> dict[str, dict[str, int]]:
    ended = edgecxr("node", "status", "--config", config, "--json", runs=config.parent / "runs")
    assert ended.code == 0, ended
    counts: dict[str, dict[str, int]] = json.loads(ended.out)
    return counts


def test_films_arrive_and_their_results_are_filed(tmp_path: Path) -> None:
    model = tiny_bundle(tmp_path / "model").path
    config = configured(tmp_path, PACS, port=11112, model=str(model))
    films = [scan(tmp_path, number) for number in range(3)]
    with alone() as prefix, serving(prefix, config) as node:
        node.says("receive: EDGE listens on 127.0.0.1 port 11112")
        send = [*prefix, dcmtk("dcmsend"), "-aet", "MODALITY", "-aec", "EDGE", "127.0.0.1", "11112"]
        assert run(*send, *films).returncode == 0
        # The PACS is away at first: nothing is lost, and the rest goes on.
        node.says("send: pacs cannot be reached")
        eventually(lambda: state(config)["films"] == {"made": 3}, "films have results")
        assert edgecxr("node", "echo", "pacs", "--config", config, runs=tmp_path).code == 6
        with pacs(prefix, tmp_path / "pacs"):
            eventually(lambda: state(config)["films"] == {"filed": 3}, "results are filed")
        results = filed(tmp_path / "pacs")
        assert sorted(each.Modality for each in results.values()) == ["OT"] * 3 + ["SR"] * 3
        of_whom = {(each.StudyInstanceUID, str(each.PatientName)) for each in results.values()}
        assert of_whom == {("1.2.3", "Quispe^Jane")}
        # A film sent again is no second film.
        assert run(*send, *films).returncode == 0
        assert state(config)["films"] == {"filed": 3} and state(config)["results"] == {"pacs": {"sent": 6}}
        assert node.stop() == 0
        check_audit(config, films)
        with Spool(tmp_path / "state") as spool:
            for row in spool.read("SELECT id, uid FROM result"):
                assert dcmread(spool.result_path(row["id"])) == next(
                    each for each in results.values() if each.SOPInstanceUID == row["uid"]
                )


def check_audit(config: Path, films: list[Path]) -> None:
    """Check that the audit trail tells the whole story, and one film's alone if asked."""
    runs = config.parent / "runs"
    verified = edgecxr("node", "audit", "--config", config, "--verify", runs=runs)
    assert verified.code == 0 and verified.out.startswith("whole: ")
    trail = edgecxr("node", "audit", "--config", config, "--film", "1.5.0", runs=runs)
    kinds = [line.split()[3] for line in trail.out.splitlines()]
    assert kinds == ["film-received", "film-read", "result-sent", "result-sent", "film-received-again"], trail.out
    assert "MODALITY at 127.0.0.1" in trail.out and "PACS at 127.0.0.1" in trail.out
    assert edgecxr("node", "retry", "--config", config, runs=runs).code == 0
    every = edgecxr("node", "audit", "--config", config, "--since", "1d", "--json", runs=runs)
    entries = [json.loads(line) for line in every.out.splitlines()]
    event_counts = Counter(entry["EventIdentification"]["EventTypeCode"][-1]["csd-code"] for entry in entries)
    assert {
        kind: event_counts[kind] for kind in ("started", "stopped", "destination-unreachable", "retried", "trail-read")
    } == {"started": 5, "stopped": 5, "destination-unreachable": 1, "retried": 1, "trail-read": 1}
    assert event_counts["film-read"] == len(films) and event_counts["result-sent"] == 2 * len(films)
    assert edgecxr("node", "audit", "--config", config, "--since", "tomorrow", runs=runs).code == 2
    (file,) = (config.parent / "state" / "audit").glob("*.jsonl")
    file.write_text(file.read_text().replace("MODALITY", "SOMEBODY", 1))
    broken = edgecxr("node", "audit", "--config", config, "--verify", runs=runs)
    assert broken.code == 6 and re.search(r"line \d+ ", broken.error)


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=pytest.mark.long)])
def test_nothing_acknowledged_is_lost_whichever_process_is_killed(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    model = tiny_bundle(tmp_path / "model").path
    config = configured(tmp_path, PACS + STOW, port=11112, model=str(model))
    acknowledged: list[int] = []
    number = 0
    with alone() as prefix, pacs(prefix, tmp_path / "pacs"), serving(prefix, config) as node:
        send = [*prefix, dcmtk("dcmsend"), "-aet", "MODALITY", "-aec", "EDGE", "127.0.0.1", "11112"]

        def send_next() -> bool:
            nonlocal number
            sent = run(*send, scan(tmp_path, number))
            if sent.returncode == 0:
                acknowledged.append(number)
                number += 1
            return sent.returncode == 0

        for kill in range(kills):
            role = list(ROLES)[kill % len(ROLES)]
            eventually(send_next, "a film is acknowledged")
            eventually(lambda role=role: pid_of(node, role) is not None, f"{role} runs")
            time.sleep(chance.uniform(0, 0.5))
            victim = pid_of(node, role)
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
        eventually(send_next, "the last film is acknowledged")
        eventually(lambda: state(config)["films"] == {"filed": len(acknowledged)}, "all are filed")
        assert node.stop() == 0
    assert edgecxr("node", "audit", "--config", config, "--verify", runs=tmp_path / "runs").code == 0
    # The sender may be killed after the PACS has a result and before it has noted that: then it comes again, as it was.
    results: dict[str, Dataset] = {}
    for result in filed(tmp_path / "pacs").values():
        assert results.setdefault(result.SOPInstanceUID, result) == result
    films = [each.SourceImageSequence[0].ReferencedSOPInstanceUID for each in results.values() if each.Modality == "OT"]
    assert sorted(films) == sorted(f"1.5.{each}" for each in acknowledged)
    assert len(results) == 2 * len(acknowledged)


def pid_of(node: Process, role: str) -> int | None:
    """Return the process that the supervisor has started for a role."""
    children = Path(f"/proc/{node.popen.pid}/task/{node.popen.pid}/children").read_text().split()
    for child in children:
        try:
            if ROLES[role].partition(":")[0] in Path(f"/proc/{child}/cmdline").read_text():
                return int(child)
        except OSError:
            continue
    return None


def test_all_processes_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    config = configured(tmp_path, STOW, port=free_port(), model=str(tiny_bundle(tmp_path / "model").path))
    with serving([], config) as node:
        for line in (
            "receive: EDGE listens",
            "stow: listens",
            "infer: tiny-test is ready",
            "send: no destinations",
            "web: the page is at",
        ):
            node.says(line)
        pids = [pid_of(node, role) for role in ROLES]
        assert None not in pids
        os.kill(node.popen.pid, signal.SIGKILL)
        eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "no process is left")


def test_check_says_what_would_listen_where_and_starts_nothing(tmp_path: Path) -> None:
    config = configured(tmp_path, PACS, port=free_port(), model=str(tiny_bundle(tmp_path / "model").path))
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    assert ended.code == 0 and ended.err == "" and not (tmp_path / "state").exists()
    for fact in (
        "127.0.0.1 port",
        "web page",
        "without a password",
        "MODALITY at 127.0.0.0/8",
        "tiny-test",
        "PACS at 127.0.0.1 port 11113",
    ):
        assert fact in ended.out
    assert "TLS" not in ended.out


def test_no_results_are_filed_of_the_bundle_that_comes_with_edgecxr_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tiny_bundle(tmp_path / "shipped" / "first-try").path
    monkeypatch.setattr(resolve, "SHIPPED", shipped.parent)
    monkeypatch.delenv("EDGECXR_MODEL", raising=False)
    runs = tmp_path / "runs"
    assert edgecxr("serve", "--config", configured(tmp_path), "--check", runs=runs).code == 4
    assert edgecxr("serve", "--config", configured(tmp_path, model="first-try"), "--check", runs=runs).code == 0


def test_check_warns_of_an_address_that_others_reach(tmp_path: Path) -> None:
    from edgecxr.node.check import check
    from edgecxr.node.node_config import NodeConfig, Peer

    model = str(tiny_bundle(tmp_path / "model").path)
    config = NodeConfig(address="0.0.0.0", port=0, model=model, state=str(tmp_path), peer=(Peer("CR", "10.0.0.1"),))
    assert [line for line in check(config) if "TLS" in line] != []


def test_check_says_who_may_send_by_stow_and_looks_at_the_token(tmp_path: Path) -> None:
    typed = {"port": free_port(), "model": str(tiny_bundle(tmp_path / "model").path)}
    stow = f"[stow]\nport = {free_port()}\n"
    ended = edgecxr("serve", "--config", configured(tmp_path, stow, **typed), "--check", runs=tmp_path)
    assert ended.code == 0 and "every program" in ended.out
    config = configured(tmp_path, stow + 'token_file = "token"\n', **typed)
    assert "/token" in edgecxr("serve", "--config", config, "--check", runs=tmp_path).error
    (tmp_path / "token").write_text("a" * 40)
    (tmp_path / "token").chmod(0o600)
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    assert ended.code == 0 and "shows the token" in ended.out


def test_check_warns_of_certificates_that_end_and_refuses_those_that_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "synchronised", lambda: True)
    folder = certified(tmp_path / "c", "node")
    model = str(tiny_bundle(tmp_path / "model").path)
    config = configured(tmp_path, tls_table(folder), port=free_port(), model=model)
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    assert ended.code == 0 and "over TLS" in ended.out and "certificate" not in ended.out
    until(folder, "node", 29)
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    (line,) = [line for line in ended.out.splitlines() if "warning: the certificate" in line]
    assert ended.code == 0 and "node.pem ends on" in line
    config = configured(tmp_path, tls_table(folder, mutual=False), port=free_port(), model=model)
    assert "[tls] has no `ca`" in edgecxr("serve", "--config", config, "--check", runs=tmp_path).out
    (folder / "node.key").write_text("")
    ended = edgecxr("serve", "--config", config, "--check", runs=tmp_path)
    assert ended.code == 2 and "node.key" in ended.error


@pytest.mark.parametrize(
    ("change", "code", "named"),
    [
        ({"model": "nowhere"}, 4, "nowhere"), ({"state": "/proc/node"}, 2, "/proc/node"),
        ({"precision": "int8"}, 4, "int8"), ({"address": "203.0.113.9"}, 2, "203.0.113.9"),
        ({"ae_titel": "X"}, 2, "ae_title"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_one_line_with_its_exit_code(
    tmp_path: Path, change: dict[str, str], code: int, named: str
) -> None:
    keys = {"port": free_port(), "model": str(tiny_bundle(tmp_path / "model").path)} | change
    ended = edgecxr("serve", "--config", configured(tmp_path, **keys), runs=tmp_path)
    assert ended.code == code and named in ended.error


def test_a_node_that_has_never_run_has_no_status(tmp_path: Path) -> None:
    config = configured(tmp_path)
    for typed in (("status",), ("retry",), ("audit",), ("audit", "--verify"), ("audit", "--anchor", "1:2")):
        assert edgecxr("node", *typed, "--config", config, runs=tmp_path).code == 2
    assert edgecxr("node", "echo", "nobody", "--config", config, runs=tmp_path).code == 2
    assert not (tmp_path / "state").exists()

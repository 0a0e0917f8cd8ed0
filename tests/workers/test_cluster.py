"""A cluster that edgecxr starts itself is for this machine alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgecxr.workers import cluster
from tests.on_a_cluster import ran

ROOT = str(Path(__file__).parents[2])

# Prints the addresses on which the processes of this session listen, and what its workers import from.
LISTENERS = """
import os, sys
from pathlib import Path
{before}
from edgecxr.workers.cluster import connected
with connected() as ray:
    def look():
        import os, sys
        return sys.path, os.environ.get("RAY_AUTH_MODE"), len(os.environ.get("RAY_AUTH_TOKEN", ""))
    path, mode, token = ray.get(ray.remote(look).remote())
    sockets = {{}}
    for family in ("tcp", "tcp6"):
        for line in Path("/proc/net/" + family).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                sockets["socket:[" + words[9] + "]"] = words[1].partition(":")[0]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(process.name)) == os.getsid(0):
                for entry in (process / "fd").iterdir():
                    address = sockets.get(os.readlink(entry))
                    if address:
                        print("listens", address)
        except OSError:
            pass
    print("mode", mode, token)
    print("here", os.getcwd() in path or "" in path)
"""
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.slow
def test_a_cluster_of_one_s_own_listens_to_this_machine_alone_and_asks_for_a_token(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = ran([sys.executable, "-c", LISTENERS.format(before="")], tmp_path, PYTHONPATH=ROOT)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    listening = {words[1] for words in lines if words[0] == "listens"}
    assert listening and listening <= LOOPBACK
    assert ["mode", "token", "64"] in lines and ["here", "False"] in lines
    assert "warning" not in done.stderr


@pytest.mark.long
def test_where_ray_was_imported_before_strangers_are_told_of(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    program = LISTENERS.format(before="import ray")
    done = ran([sys.executable, "-c", program], tmp_path, PYTHONPATH=ROOT, RAY_AUTH_MODE="disabled")
    assert done.returncode == 0 and done.stderr.count("warning") == 1, done.stderr


@pytest.mark.parametrize(
    ("loopback", "mode", "kept"), [(True, "", True), (False, "token", True), (False, "disabled", False)]
)
def test_strangers_reach_a_cluster_without_a_token_on_other_interfaces(
    loopback: bool, mode: str, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", not loopback)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    assert cluster._kept() is kept

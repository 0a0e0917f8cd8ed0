"""A process of the node does not go on without the threads that do its work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from edgecxr.errors import EdgeCxrError
from edgecxr.node.http.http_listener import HttpListener
from edgecxr.node.limits import Limits
from edgecxr.node.node_config import NodeConfig, Watch
from edgecxr.node.node_process import Stop
from edgecxr.node.receiving import guard, receive, stow
from edgecxr.node.receiving.stow_settings import Stow
from edgecxr.node.spool import Spool
from edgecxr.node.watched_folder import WatchedFolder, watching
from tests.node.running import PATIENCE


def fails(*_: object) -> None:
    raise RuntimeError("nobody foresaw this")


def test_work_that_fails_ends_the_process_with_its_name() -> None:
    stop = Stop()
    stop.background("the work", fails)
    assert stop.wait(PATIENCE)
    with pytest.raises(EdgeCxrError, match=r"the work has ended \(RuntimeError: nobody foresaw this\)"):
        stop.check()


def test_work_that_returns_too_early_ends_it_as_well() -> None:
    stop = Stop()
    stop.background("the work", lambda: None)
    assert stop.wait(PATIENCE)
    with pytest.raises(EdgeCxrError, match="the work has ended"):
        stop.check()


def test_work_that_ends_when_the_process_is_to_stop_is_no_failure() -> None:
    stop = Stop()
    thread = stop.background("the work", stop.wait)
    stop.request()
    thread.join(PATIENCE)
    stop.check()


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    folder = tmp_path / "in"
    folder.mkdir()
    watch = Watch(folder=str(folder))
    return NodeConfig(state=str(tmp_path / "state"), port=0, watch=(watch,), limits=Limits(free_mib=0, free_percent=0))


@pytest.mark.parametrize("role", ["receive", "stow", "watch"])
def test_a_listener_or_a_look_at_folders_that_fails_ends_its_process(
    config: NodeConfig, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    monkeypatch.setattr(guard.GuardedServer, "service_actions", fails)
    monkeypatch.setattr(HttpListener, "_look", fails)
    monkeypatch.setattr(WatchedFolder, "look", fails)
    stop = Stop()
    with Spool(config.folder) as spool:
        listening = {
            "receive": lambda: receive.listening(config, spool, stop),
            "stow": lambda: stow.listening(config, Stow(port=0), spool, stop),
            "watch": lambda: watching(config, spool, stop),
        }[role]()
        with listening:  # type: ignore[attr-defined]
            assert stop.wait(PATIENCE)
    with pytest.raises(EdgeCxrError, match="has ended"):
        stop.check()
    assert threading.active_count() < 50

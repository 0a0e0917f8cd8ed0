"""A node that gets phantoms and files results until it ends."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgecxr import NOTICE, resolve
from edgecxr.errors import ModelError
from edgecxr.node.check import check
from edgecxr.node.demo.film_sender import FilmSender, described
from edgecxr.node.demo.result_receiver import receiving
from edgecxr.node.node_config import read_config
from edgecxr.node.spool import DATABASE, Spool
from edgecxr.node.supervisor import serve
from edgecxr.storage.json_values import parse_json
from edgecxr.storage.permissions import PRIVATE, umask
from edgecxr.terminal import say

PAUSE = 5.0
"""Seconds between two films."""

_LOOK = 0.2
_START = 120.0  # seconds after which a node that takes no film is given up

_CONFIG = """
ae_title = "EDGECXR"
port = {port}
model = {model}
state = "state"
[[peer]]
ae_title = "DEMO"
address = "127.0.0.1"
[[destination]]
name = "archive"
ae_title = "ARCHIVE"
host = "127.0.0.1"
port = {archive}

[web]
port = 0
[limits]
free_mib = 64
free_percent = 0.0
"""


def demonstrate(films: int | None = None) -> None:
    """Run a node on loopback, send it phantoms, and receive its results.

    Everything lies in a temporary folder, which is removed at the end.

    Args:
        films: number of films after which the sender stops; None is none.

    Raises:
        ModelError: no bundle comes with this installation.
        MissingPackage: a package is not installed.
        UsageError: the folder cannot be used.
    """
    model = next(iter(resolve.shipped()), None)
    if model is None:
        raise ModelError("no bundle comes with this installation: give one to a node with --config")
    ended = threading.Event()
    with umask(PRIVATE), _folder() as folder, ExitStack() as stack:
        archive = stack.enter_context(receiving("ARCHIVE"))
        port = _free_port()
        path = folder / "node.toml"
        path.write_text(_CONFIG.format(port=port, archive=archive, model=json.dumps(str(model))))
        config = read_config(path)
        for line in check(config):
            say(f"demo: {line}")
        say(f"demo: films are phantoms, which show no patient. {NOTICE} Ctrl-C ends it, and leaves nothing behind")
        thread = threading.Thread(target=_send, args=(port, config.folder, films, ended), daemon=True)
        thread.start()
        try:
            serve(path, config)
        finally:
            ended.set()
            thread.join(timeout=_LOOK * 50)
    say("demo: ended, and its folder is removed")


def _send(port: int, state: Path, films: int | None, ended: threading.Event) -> None:
    """Send films one after the other, and say what becomes of them."""
    sender, number = FilmSender("DEMO", "EDGECXR", port), 0
    while not ended.is_set() and number != films:
        dataset, description = described(number)
        began = time.monotonic()
        while not ended.is_set():
            problem = sender.send(dataset)
            if not problem:
                break
            if time.monotonic() - began > _START:
                say(f"demo: the node takes no film: {problem}")
                return
            ended.wait(_LOOK)
        number += 1
        say(f"demo: film {number}, {description}, is sent")
        while not ended.wait(_LOOK):
            row = _film(state, str(dataset.SOPInstanceUID))
            if row is not None and row["state"] in ("filed", "refused", "rejected"):
                say(f"demo: film {number}: {_outcome(row)}, {time.time() - row['received']:.1f} s after it came")
                break
        ended.wait(PAUSE)


def _film(state: Path, uid: str) -> dict[str, Any] | None:
    if not (state / DATABASE).exists():
        return None
    with Spool(state) as spool:
        rows = spool.read("SELECT state, reason, prediction, received FROM film WHERE uid = ?", uid)
    return dict(rows[0]) if rows else None


def _outcome(row: dict[str, Any]) -> str:
    if row["state"] != "filed":
        return f"{row['state']}, and not analysed ({row['reason']})"
    prediction = parse_json(row["prediction"])
    positives = [
        f"{name} {each['probability']:.2f}" for name, each in prediction["findings"].items() if each["decision"]
    ]
    abnormal = "abnormal" if prediction["abnormal"]["decision"] else "not abnormal"
    findings = f"; {', '.join(positives)}" if positives else ""
    return f"{abnormal} ({prediction['abnormal']['probability']:.2f}){findings}; report and picture are in the archive"


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="edgecxr-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

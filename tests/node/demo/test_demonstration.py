"""`serve --demo`: a node, a modality and an archive on loopback, of which nothing stays."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path
from urllib.request import urlopen

import pytest

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from pydicom.uid import DigitalXRayImageStorageForPresentation

from edgecxr import resolve
from edgecxr.node.demo.film_sender import described
from edgecxr.workers.new_python import command
from tests.cli_workspace import edgecxr
from tests.node.running import PATIENCE, eventually, started


def test_films_are_sent_and_results_received_until_ctrl_c_and_nothing_is_left(tmp_path: Path) -> None:
    with started(*command("edgecxr.cli:main", "serve", "--demo"), TMPDIR=str(tmp_path)) as node:
        page = node.says(r"web: the page is at (http://127.0.0.1:\d+/)")[1]
        node.says("demo: film 1, a phantom with .* is sent")
        node.says(r"demo: film 1: (abnormal|not abnormal|refused)")
        # Of a film that the gate takes; it refuses some phantoms, and another film comes every five seconds.
        node.says("demo: the archive has a report about PHANTOM-")
        with urlopen(page, timeout=PATIENCE) as answer:
            assert answer.status == 200 and b"Research use only" in answer.read()
        (folder,) = tmp_path.glob("edgecxr-demo-*")
        assert folder.stat().st_mode & 0o077 == 0
        os.killpg(node.popen.pid, signal.SIGINT)  # as a terminal does
        assert node.popen.wait(timeout=PATIENCE) == 0
        eventually(lambda: not [line for line in processes() if str(tmp_path) in line], "no process is left")
        assert list(tmp_path.iterdir()) == []
        assert not [line for line in node.lines if re.search("Traceback|cannot be reached", line)], node.lines


def processes() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            continue
    return lines


def test_films_are_phantoms_and_one_is_no_frontal_film() -> None:
    first, description = described(0)
    assert first.SOPClassUID == DigitalXRayImageStorageForPresentation and "phantom" in description
    assert str(first.PatientName).startswith("PHANTOM")
    again, _ = described(0)
    assert again.SOPInstanceUID == first.SOPInstanceUID
    lateral, _ = described(3)
    assert lateral.ViewPosition == "LL" and lateral.SOPInstanceUID != first.SOPInstanceUID


def test_a_demo_takes_no_configuration_and_needs_its_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edgecxr("serve", "--demo", "--check", runs=tmp_path).code == 2
    assert edgecxr("serve", "--demo", "--config", tmp_path / "node.toml", runs=tmp_path).code == 2
    monkeypatch.setattr(resolve, "SHIPPED", tmp_path)
    assert edgecxr("serve", "--demo", runs=tmp_path).code == 4

"""Worker processes do not outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from edgecxr.data.phantom import films

PROGRAM = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from edgecxr.data.workers import follow_parent
if __name__ == "__main__":
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), follow_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    parent = subprocess.Popen([sys.executable, tmp_path / "program.py"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = Path("/proc", parent.stdout.readline().strip())
    assert worker.name.isdigit() and worker.exists()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 20
    while worker.exists() and (worker / "cmdline").read_bytes() and time.monotonic() < until:
        time.sleep(0.05)
    gone = not worker.exists() or not (worker / "cmdline").read_bytes()
    if not gone:
        os.kill(int(worker.name), signal.SIGKILL)
    assert gone


def test_phantoms_go_on_in_a_folder_whose_marker_was_being_written(tmp_path: Path) -> None:
    (tmp_path / f".{films.MARKER}.tmp").write_text('{"pha')
    films.write_phantom(tmp_path, 8, workers=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations", "phantom.json", "test", "train"]

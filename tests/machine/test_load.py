from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgecxr.machine import load


def put(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_the_work_of_others_is_what_is_left_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tick = os.sysconf("SC_CLK_TCK")

    def write(busy: float, own: float) -> None:
        put(tmp_path, "proc/stat", f"cpu  {int(busy * tick)} 0 0 999 5 0 0 0 0 0\ncpu0 1 2 3\n")
        fields = ["S", *["0"] * 10, str(int(own * tick)), "0", "0"]
        put(tmp_path, "proc/77/stat", f"77 (a worker) {' '.join(fields)}")

    clock = iter([100.0, 110.0])
    monkeypatch.setattr(load.time, "monotonic", lambda: next(clock))
    write(50, 30)
    others = load.OtherProcesses([77], tmp_path)
    write(68, 40)  # in 10 s, 18 s of work on all cores, 10 s of them by the worker
    assert others.busy() == pytest.approx(0.8)
    assert load.OtherProcesses([], tmp_path / "nowhere").busy() is None

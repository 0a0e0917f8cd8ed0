"""A killed or stopped run goes on where it was, on the same inputs only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.data.adapters.folder import folder
from edgecxr.data.prepare.prepare import prepare
from edgecxr.films.resize import to_base
from tests.data.noise import COUNT, contents, interrupt, marked

KILLED = """
import os, signal, sys
from edgecxr.data.prepare import journal
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.adapters.folder import folder
journal.COMMIT_SECONDS = 0
def progress(done, total):
    if done == 12:
        os.kill(os.getpid(), signal.SIGKILL)
films, out, workers, size = sys.argv[1:]
prepare(folder(films, boxes=films + "/boxes.csv"), out, int(workers), progress, int(size))
"""


@pytest.mark.parametrize(("workers", "size"), [(1, 224), (2, 224), (2, 448)])
def test_a_killed_run_goes_on_where_it_was(source: Path, tmp_path: Path, workers: int, size: int) -> None:
    out = tmp_path / "out"
    words = [str(word) for word in (source, out, workers, size)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], capture_output=True)
    assert killed.returncode == -9
    assert not out.exists()
    with (tmp_path / ".out.partial" / "journal.jsonl").open("a") as file:
        file.write('[20, "", "')  # a line that the crash cut off
    counts: list[int] = []
    resumed = prepare(marked(source), out, 1, lambda done, total: counts.append(done), size)
    # All but the rejected of the first twelve are done; those are tried again, since their cause may have been mended.
    assert 9 <= counts[0] <= 12
    assert counts == list(range(counts[0], COUNT + 1))
    assert contents(resumed.path) == contents(prepare(marked(source), tmp_path / "whole", 1, size=size).path)
    assert len(resumed.boxes) == 5
    assert not (tmp_path / ".out.partial").exists()


def test_work_on_other_inputs_is_thrown_away(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(source, out, monkeypatch)
    Image.effect_noise((240, 240), 50).save(source / "0.png")
    counts: list[int] = []
    prepared = prepare(folder(source), out, 1, lambda done, total: counts.append(done))
    assert counts[0] == 0
    np.testing.assert_array_equal(prepared.images[0], to_base(folder(source).reader(0)().pixels))


def test_work_of_before_the_sizes_of_films_were_kept_counts_as_not_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    interrupt(source, out, monkeypatch)
    journal = tmp_path / ".out.partial" / "journal.jsonl"
    done = [json.loads(line) for line in journal.read_text().split("\n") if line]
    assert [line[4] for line in done if line[0] in (0, 3, 7, 8)] == [[240, 240], None, [100, 100], [240, 480]]
    journal.write_text("".join(json.dumps(line[:4]) + "\n" for line in done))
    counts: list[int] = []
    prepare(folder(source), out, 1, lambda done, total: counts.append(done))
    assert counts[0] == 0


def test_work_on_one_size_is_not_taken_for_work_on_the_other(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(source, tmp_path / "out", monkeypatch)
    counts: list[int] = []
    prepared = prepare(folder(source), tmp_path / "out", 1, lambda done, total: counts.append(done), 448)
    assert counts[0] == 0
    assert contents(prepared.path) == contents(prepare(folder(source), tmp_path / "whole", 1, size=448).path)


def test_what_an_interrupted_retry_leaves_is_removed_and_work_on_another_size_is_not(
    source: Path, tmp_path: Path
) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    out, work = tmp_path / "out", tmp_path / ".out.partial"
    prepare(folder(source), out, 1)
    with pytest.raises(KeyboardInterrupt):
        prepare(folder(source), out, 1, stop, 448)
    prepare(folder(source), out, 1)
    assert work.exists(), "who wants 448 px goes on there"
    prepare(folder(source), out, 1, size=448)
    assert not work.exists()
    with pytest.raises(KeyboardInterrupt):
        prepare(folder(source), out, 1, stop, retry=True)
    assert work.exists()
    assert prepare(folder(source), out, 1).large is not None and not work.exists()

"""`edgecxr demo`, as small as it gets: everything from making films to drawing on them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edgecxr import NOTICE
from tests.cli_workspace import edgecxr


@pytest.mark.slow
def test_the_demo_makes_everything_and_a_second_run_makes_nothing_again(tmp_path: Path) -> None:
    runs = tmp_path / "a demo"
    first = edgecxr("demo", "--out", runs, "--n", "40", "--epochs", "1", runs=tmp_path / "unused")
    assert first.code == 0, first
    assert [line[:3] for line in first.err.splitlines() if line[1:4] == "/5 "] == [
        "1/5",
        "2/5",
        "3/5",
        "3/5",
        "4/5",
        "5/5",
    ]
    assert NOTICE in first.err and "is done" not in first.err

    names = ["teacher-tiny-224-phantom-40", *(f"student-tiny-28-{method}-phantom-40" for method in ("mlcak", "none"))]
    assert sorted(path.name for path in runs.glob("*-tiny-*")) == sorted(names)
    assert sorted(path.name for path in (runs / "export").iterdir()) == sorted(names)
    pictures = list((runs / "overlays").iterdir())
    assert len(pictures) == 3 and (runs / "data" / "phantom-40" / "contact_sheet.png").exists()
    assert not (tmp_path / "unused").exists()

    summary = first.out[first.out.index("40 synthetic phantom films") :].splitlines()
    assert re.match(r"40 synthetic phantom films, test .*: 8 films of 6 patients", summary[0])
    megabytes = {}
    for title, *shape in (("teacher", 224, 49, 6), ("student, MLCAK", 28, 16, 3), ("student, undistilled", 28, 16, 3)):
        (row,) = [line for line in summary if line.startswith(f"{title} ")]
        px, tokens, blocks, megabytes[title], unit, _, ms = row.split()[-7:]
        assert [px, tokens, blocks] == list(map(str, shape)) and (unit, ms) == ("MB", "ms")
    # The student is visibly smaller than its teacher.
    assert all(float(megabytes[title]) < 0.6 * float(megabytes["teacher"]) for title in megabytes if title != "teacher")
    assert max(len(line) for line in summary[:5]) <= 110
    assert any(line.startswith("MLCAK against undistilled, findings: ") for line in summary)
    assert "Learnt from synthetic films" in first.out
    assert first.out.endswith(f"{NOTICE}\n")

    # The summary ends with a command that works as it stands, though the workspace is not the usual one.
    (following,) = [line for line in summary if line.startswith("Next: ")]
    assert f"EDGECXR_RUNS='{runs}' edgecxr infer " in following
    film = following.partition("edgecxr infer '")[2].partition("'")[0]
    shown = edgecxr("infer", film, "--json", runs=runs)
    assert shown.code == 0 and json.loads(shown.out)["model"] == "student-tiny-28-mlcak-phantom-40"

    weights = {path: path.stat().st_mtime_ns for path in runs.glob("*/best.safetensors")}
    second = edgecxr("demo", "--out", runs, "--n", "40", "--epochs", "1", runs=tmp_path / "unused")
    assert second.code == 0, second
    done = [*(runs / name for name in names), *(runs / "export" / name for name in names)]
    assert [path for path in done if f"{path} is done" not in second.err] == []
    assert "train: " not in second.err and "distill: " not in second.err and "films: 0/40" not in second.err
    assert len(weights) == 3 and {path: path.stat().st_mtime_ns for path in weights} == weights
    scores = [line for line in summary if line.startswith(("student", "teacher"))]
    repeated = [line for line in second.out.splitlines() if line.startswith(("student", "teacher"))]
    assert len(scores) == 3 and [line[:70] for line in repeated] == [line[:70] for line in scores]

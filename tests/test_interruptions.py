"""Kills, full disks and commands beside each other: every command, as it is typed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecxr.data.adapters.folder import folder
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.prepared import Prepared
from tests.cli_workspace import CommandResult, edgecxr, image_folder

ROOT = Path(__file__).parents[1]
SMALL = ("--epochs", "2", "--batch", "16")
TRAIN = ("train", "--init", "random", "--patch", "56", "--depth", "2", *SMALL)
DISTILL = ("distill", "--res", "28", *SMALL)
# One method of calibration instead of three: the writes are of the same kinds.
EXPORT = ("export", "--recipe", str(ROOT / "export" / "recipes" / "quick.toml"))
TEACHER, STUDENT = "teacher-tiny-224-films", "student-tiny-28-mlcak-films"


def typed(*command: str | Path, runs: Path) -> CommandResult:
    done = edgecxr(*command, runs=runs)
    assert done.code == 0, done
    return done


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A workspace after each command; not to be changed."""
    base = tmp_path_factory.mktemp("stages")
    films = image_folder(base / "films")
    places = {"films": films, "empty": base / "empty"}
    places["empty"].mkdir()
    before = places["empty"]
    commands = {"data": ("prepare", "folder", films, "--workers", "1"), "teacher": TRAIN, "student": DISTILL}
    for name, command in (commands | {"bundle": EXPORT}).items():
        before = shutil.copytree(before, base / name)
        typed(*command, runs=before)
        places[name] = before
    return places


# Every step-th moment; `python -m tests.kill_points` tries every one.
@pytest.mark.parametrize(
    ("stage", "command", "step"),
    [
        ("empty", ("prepare", "folder", "FILMS", "--workers", "1"), 9),
        ("data", ("prepare", "folder", "FILMS", "--workers", "1", "--seed", "1"), 12),
        ("data", TRAIN, 9),
        pytest.param("teacher", DISTILL, 13, marks=pytest.mark.long),
        pytest.param("student", EXPORT, 19, marks=pytest.mark.long),
        # Other precisions than there are: the same export again would have nothing to do.
        pytest.param("bundle", (*EXPORT, "--fp16"), 5, marks=pytest.mark.long),
    ],
    ids=["prepare", "prepare anew", "train", "distill", "export", "export anew"],
)
@pytest.mark.long
def test_a_kill_at_any_moment_costs_nothing_but_time(
    stages: dict[str, Path], tmp_path: Path, stage: str, command: tuple[str, ...], step: int
) -> None:
    filled_in = [str(stages["films"]) if word == "FILMS" else word for word in command]
    report = tmp_path / "report.json"
    arguments = [sys.executable, "-m", "tests.kill_points", stages[stage], report, str(step), str(step), *filled_in]
    subprocess.run(arguments, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    attempts = json.loads(report.read_text())
    assert sum(attempt["signal"] == signal.SIGKILL for attempt in attempts) >= 2
    for attempt in attempts:
        # Between the card, which ends a run, and the end of the process: the next command begins another run.
        after = {name for name in attempt["others"] if name.startswith((f"{TEACHER}-2", f"{STUDENT}-2"))}
        assert not after or f"{Path(min(after)).parts[0]}/card.json" in after, attempt
        left = {Path(name).name for name in set(attempt["others"]) - after}
        assert left <= {"lock", ".films.lock", f".{STUDENT}.lock", f".{TEACHER}.lock"}, attempt
        assert (attempt["half"], attempt["again"], attempt["differ"]) == ([], "", []), attempt


class Disk:
    """A small file system that can be made to have room."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.runs = place / "runs"

    def resize(self, size: int, option: str = "remount,") -> bool:
        command = ["mount", "-t", "tmpfs", "-o", f"{option}size={size}", "tmpfs", str(self.place)]
        return shutil.which("mount") is not None and not subprocess.run(command, capture_output=True).returncode

    def leave_free(self, size: int) -> None:
        state = os.statvfs(self.place)
        assert self.resize((state.f_blocks - state.f_bfree) * state.f_frsize + size)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    (tmp_path / "disk").mkdir()
    small_disk = Disk(tmp_path / "disk")
    if not small_disk.resize(1 << 28, ""):
        pytest.skip("mounting a small file system takes rights that this process has not")
    try:
        yield small_disk
    finally:
        subprocess.run(["umount", "-l", str(small_disk.place)], check=True)


def names(runs: Path) -> set[str]:
    return {str(path.relative_to(runs)) for path in runs.rglob("*")}


@pytest.mark.parametrize(
    ("stage", "command", "free"),
    [
        ("empty", ("prepare", "folder", "FILMS", "--workers", "1"), (4_096, 300_000, 1_300_000)),
        ("data", TRAIN, (4_096, 19_000_000, 7_000_000)),
        ("teacher", DISTILL, (12_288, 12_000_000)),
        ("student", EXPORT, (200_000, 5_000_000)),
        ("bundle", ("infer", "FILM", "--force", "--overlay", "OUT"), (4_096,)),
        ("bundle", ("evaluate", "--replicates", "100"), (0,)),
        pytest.param(
            "empty", ("prepare", "folder", "FILMS", "--workers", "1"), (400_000, 1_000_000), marks=pytest.mark.long
        ),
        pytest.param("data", TRAIN, (8_000_000, 1_000_000), marks=pytest.mark.long),
        pytest.param("student", EXPORT, (2_500_000, 9_000_000), marks=pytest.mark.long),
    ],
    ids=["prepare", "train", "distill", "export", "infer", "evaluate", "prepare-more", "train-more", "export-more"],
)
def test_a_full_disk_is_one_line_and_with_room_the_command_goes_on(
    stages: dict[str, Path], disk: Disk, stage: str, command: tuple[str, ...], free: tuple[int, ...]
) -> None:
    words = {"FILMS": stages["films"], "FILM": stages["films"] / "0.png", "OUT": disk.runs / "overlays"}
    filled_in = [words.get(word, word) for word in command]
    shutil.copytree(stages[stage], disk.runs)
    before = names(disk.runs)
    for size in free:
        disk.leave_free(size)
        full = edgecxr(*filled_in, runs=disk.runs)
        assert full.code == 2, (size, full)
        assert str(disk.place) in full.error
        assert re.search(r"\(No space left on device\): make room .*same command", full.error)
        # What may stay is what the next attempt goes on with.
        new = {Path(name).name for name in names(disk.runs) - before if "." in Path(name).name}
        going_on = {"config.json", "last.pt", "best.safetensors", "history.csv"}
        assert new <= going_on | {".films.partial", "pixels.raw", "journal.jsonl"}, (size, new)
        if stage != "empty":
            Prepared.open(disk.runs / "data" / "films").check()
    disk.resize(1 << 28)
    typed(*filled_in, runs=disk.runs)
    assert [name for name in names(disk.runs) if Path(name).name.startswith(".") or name.endswith("lock")] == []
    if command[0] == "train":
        weights = [runs / TEACHER / "best.safetensors" for runs in (disk.runs, stages["teacher"])]
        assert weights[0].read_bytes() == weights[1].read_bytes()


def test_an_export_needs_no_room_elsewhere(
    stages: dict[str, Path], disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.leave_free(0)
    monkeypatch.setattr(tempfile, "tempdir", str(disk.place))
    runs = shutil.copytree(stages["student"], tmp_path / "runs")
    typed(*EXPORT, runs=runs)
    assert (runs / "export" / STUDENT / "model.onnx").exists()


@pytest.mark.long
def test_of_two_trainings_with_the_same_settings_one_is_refused(stages: dict[str, Path], tmp_path: Path) -> None:
    runs = shutil.copytree(stages["data"], tmp_path / "runs")
    code = "import sys; from edgecxr.cli import main; main()"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *TRAIN[:-4], "--epochs", "6", "--batch", "16"],
            env=os.environ | {"EDGECXR_RUNS": str(runs), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [process.communicate()[1] for process in processes]
    refused = [process.returncode == 2 for process in processes]
    if refused == [False, False]:  # they did not meet: the first had finished
        assert sorted(path.name for path in runs.glob("teacher*")) == [TEACHER, f"{TEACHER}-2"]
    else:
        assert sorted(process.returncode for process in processes) == [0, 2], outputs
        line = outputs[refused.index(True)].splitlines()[-1]
        other = processes[refused.index(False)].pid
        assert line.startswith(f"error: process {other} on ") and f"is training {runs / TEACHER} with the" in line
        assert re.search(r"wait for it, .* --fresh$", line)
        assert [path.name for path in runs.glob("teacher*")] == [TEACHER]


def test_a_data_set_that_is_prepared_anew_while_others_open_it_is_never_mixed(tmp_path: Path) -> None:
    films = image_folder(tmp_path / "films", 8)
    out = tmp_path / "data" / "films"
    prepare(folder(films), out, 1)

    def prepare_others() -> None:
        for seed in range(1, 8):
            prepare(folder(films, seed=seed), out, 1)

    preparing = threading.Thread(target=prepare_others)
    preparing.start()
    splits: dict[str, set[str]] = {}
    while preparing.is_alive():
        opened = Prepared.open(out)
        splits.setdefault(opened.hash, set()).add(" ".join(opened.splits))
    preparing.join()
    assert len(splits) > 2
    assert all(len(values) == 1 for values in splits.values())


def test_two_evaluations_at_once_both_reach_the_card(stages: dict[str, Path], tmp_path: Path) -> None:
    from edgecxr.evaluate.evaluation import evaluate_model
    from edgecxr.workspace import Workspace

    runs = shutil.copytree(stages["teacher"], tmp_path / "runs")
    splits = ("train", "val", "test")
    threads = [
        threading.Thread(target=evaluate_model, args=(Workspace(runs), TEACHER, None, split, 100)) for split in splits
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    card = json.loads((runs / TEACHER / "card.json").read_text())
    assert set(card["metrics"]) == {f"films/{split}" for split in splits}

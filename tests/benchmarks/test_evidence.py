"""benchmarks/evidence.py: what a plan may say, what is refused, and trainings that are killed and go on."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from evidence import check_records, record_of
from evidence_plan import read_plan
from evidence_status import paired
from gap import Sample

from edgecxr.errors import EdgeCxrError, UsageError

ROOT = Path(__file__).parents[2]
PLAN = """
[data.films]
prepare = ["phantom", "--n", "40"]
[settings]
start = "random"
stem = "conv"
depth = 2
tokens = 49
epochs = 30
batch = 16
[[run]]
name = "mlcak"
data = "films"
method = "mlcak"
res = 28
teacher = "teacher-s0"
seeds = [0, 1]
turn = 2
against = "none"
[[run]]
name = "vanilla"
data = "films"
method = "vanilla"
res = 28
teacher = "teacher-s0"
seeds = [0, 1]
turn = 2
against = "none"
[[run]]
name = "teacher"
data = "films"
method = "teacher"
res = 224
keep_weights = true
against = "none"
[[run]]
name = "none"
data = "films"
method = "none"
res = 28
seeds = [0, 1]
"""


@pytest.fixture
def plan(tmp_path):
    """Return a function that reads the plan above, changed."""

    def read(before: str = "", after: str = ""):
        assert before in PLAN
        (tmp_path / "plan.toml").write_text(PLAN.replace(before, after, 1) if before else PLAN)
        return read_plan(tmp_path / "plan.toml")

    return read


def test_runs_come_by_turn_and_then_seed_by_seed(plan):
    ids = [run.id for run in plan().runs]
    assert ids == ["teacher-s0", "none-s0", "none-s1", "mlcak-s0", "vanilla-s0", "mlcak-s1", "vanilla-s1"]
    assert plan().runs[0].settings["epochs"] == 30


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("[data.films]", "[data.films", "not a TOML file"),
        ('"teacher-s0"', '"teacher-s1"', "teacher of mlcak is 'teacher-s1'"),
        ('"teacher-s0"', '"none-s0"', "teacher of mlcak is no teacher"),
        ('against = "none"', 'against = "nobody"', "'nobody'"),
        ('data = "films"', 'data = "others"', r"no \[data.others\]"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "two runs mlcak-s0"),
        ("seeds = [0, 1]", 'seeds = ["0"]', "a seed of mlcak is '0', not of type int"),
        ('name = "mlcak"', 'name = "../mlcak"', "cannot be the name of a run"),
        ("epochs = 30", "epochs = 30.5", "epochs of mlcak is 30.5"),
        ("epochs = 30", "epoch = 30", r"\[settings\] has epoch"),
        ("turn = 2", "trun = 2", r"\[\[run\]\] mlcak has trun"),
        ('method = "mlcak"\n', "", "'method' is missing"),
        ("[[run]]", "[[runs]]", "the file has runs"),
    ],
)
def test_what_a_plan_cannot_say_is_named(plan, before, after, message):
    with pytest.raises(UsageError, match=message):
        plan(before, after)


def test_a_plan_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"none\.toml cannot be read"):
        read_plan(tmp_path / "none.toml")


def test_differences_are_paired_by_seed_and_a_single_teacher_stands_beside_all(plan):
    replicates = np.zeros(100)
    ours = {0: Sample(0.8, replicates), 1: Sample(0.7, replicates), 5: Sample(0.1, replicates)}
    theirs = {0: Sample(0.7, replicates), 1: Sample(0.6, replicates), 2: Sample(0.9, replicates)}
    found = paired(ours, theirs, 0)
    assert found is not None and found.value == pytest.approx(0.1)
    # The differences are alike though the seeds are not: pairing leaves no chance of the training.
    assert (found.interval.low, found.interval.high) == pytest.approx((0, 0), abs=1e-9)
    alone = paired({0: Sample(0.9, replicates)}, theirs, 0)
    assert alone is not None and alone.value == pytest.approx(0.9 - (0.7 + 0.6 + 0.9) / 3)
    assert alone.interval.high > alone.value > alone.interval.low
    assert paired(ours | {7: ours[0]}, {8: theirs[0], 9: theirs[1]}, 0) is None


@pytest.fixture
def recorded(plan, tmp_path):
    """A plan with the records of its teacher and of a student."""
    asked = plan()
    for run in asked.runs:
        if run.id in ("teacher-s0", "mlcak-s0"):
            teacher = {"run": run.teacher, "sha256": "weights of teacher-s0"} if run.teacher else None
            record = {
                "run": run.id, "status": "done", "spec": run.spec, "data": {"hash": "films"}, "teacher": teacher,
                "weights": {"sha256": f"weights of {run.id}"},
            }  # fmt: skip
            (tmp_path / f"{run.id}.json").write_text(json.dumps(record))
    return asked, tmp_path


def test_records_of_the_same_settings_data_and_teacher_are_taken(recorded):
    check_records(*recorded, {"films": "films"})
    assert record_of(recorded[1], "none-s0") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"hash": "others"}}, "another data set films"),
        ({"teacher": {"run": "teacher-s0", "sha256": "others"}}, "another weights of teacher-s0"),
        ({"spec": {}}, "another name"),
    ],
)
def test_records_of_others_are_refused(recorded, changes, message):
    asked, folder = recorded
    path = folder / "mlcak-s0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UsageError, match=message) as error:
        check_records(asked, folder, {"films": "films"})
    assert "mlcak-s0.json" in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"run": "other-s0", "status": "done"}', '{"run": "none-s0"}'])
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "none-s0.json").write_text(text)
    with pytest.raises(EdgeCxrError, match=r"none-s0\.json is no record"):
        record_of(tmp_path, "none-s0")


def run(repository: Path, *words: str, **more) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/evidence.py", "plan.toml", "--jobs", "2", *words]
    return subprocess.run(command, cwd=repository, env=environment(repository), capture_output=True, text=True, **more)


def environment(repository: Path) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(repository)}


@pytest.fixture
def repository(tmp_path) -> Path:
    """A repository of its own that holds what trains, and a plan."""
    folder = tmp_path / "repository"
    ignored = shutil.ignore_patterns("__pycache__", "results")
    for part in ("edgecxr", "benchmarks"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    (folder / "plan.toml").write_text(PLAN)
    (folder / ".gitignore").write_text("build/\n__pycache__/\n")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-C", str(folder)]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *words], check=True)
    return folder


def workers(folder: Path) -> list[str]:
    return subprocess.run(["pgrep", "-f", f"evidence_work.py {folder}"], capture_output=True, text=True).stdout.split()


def wait_for(what, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


@pytest.mark.long
def test_trainings_outlive_kills_changes_of_the_code_and_the_loss_of_their_folder(repository):
    pytest.importorskip("torch")
    folder, records = repository / "build" / "evidence", repository / "benchmarks" / "results" / "evidence" / "plan"
    begun = run(repository, "--background")
    assert begun.returncode == 0, begun.stderr
    wait_for(lambda: list(folder.glob("work/*/*/history.csv")))
    second = run(repository)
    assert second.returncode == 2 and "--stop" in second.stderr, second.stderr
    os.kill(int((folder / "process").read_text()), signal.SIGKILL)
    wait_for(lambda: not workers(folder), 20)  # its trainings end with it
    assert not list(records.glob("none-s1.json"))

    # What happens to the files makes no difference to the runs, nor does a worker that is killed.
    (repository / "edgecxr" / "train" / "loop.py").write_text("raise SystemExit('changed')\n")
    again = run(repository, "--background")
    assert again.returncode == 0, again.stderr
    wait_for(lambda: workers(folder))
    os.kill(int(workers(folder)[0]), signal.SIGKILL)
    wait_for(lambda: len(list(records.glob("*.json"))) == 7, 400)
    assert "was ended by signal 9: it goes on" in (folder / "log").read_text()
    wait_for(lambda: not (folder / "lock").exists(), 20)
    made = {path.stem: json.loads(path.read_text()) for path in records.glob("*.json")}
    assert len({record["commit"] for record in made.values()}) == 1
    assert all(record["status"] == "done" and len(record["history"]) == 30 for record in made.values())
    assert {record["teacher"]["sha256"] for record in made.values() if record["teacher"]} == {
        made["teacher-s0"]["weights"]["sha256"]
    }
    status = run(repository, "--status", "--replicates", "50")
    assert status.returncode == 0, status.stderr
    assert "7 of 7 done" in status.stdout
    for row in ("findings (macro)", "normal/abnormal", "attention hits"):
        (line,) = (line for line in status.stdout.splitlines() if line.startswith(row))
        assert line.count("[none]") == 3 and not math.isnan(float(line.split("  ")[-1].split()[0])), line

    # On a machine that has the records alone, the teacher is made of what lies beside its own.
    shutil.rmtree(folder)
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "edgecxr"], check=True)
    before = np.load(records / "vanilla-s1.npz")["findings"]
    (records / "vanilla-s1.json").unlink()
    last = run(repository)
    assert last.returncode == 0, last.stderr
    assert "1 of 7 runs are left" in last.stderr
    assert record_of(records, "vanilla-s1")["teacher"]["sha256"] == made["teacher-s0"]["weights"]["sha256"]
    assert np.array_equal(np.load(records / "vanilla-s1.npz")["findings"], before)

    # Other settings, films or weights are another plan.
    (repository / "plan.toml").write_text(PLAN.replace("epochs = 30", "epochs = 31"))
    assert_refused(run(repository), "was made with another settings")
    (repository / "plan.toml").write_text(PLAN.replace("[data.films]", '[data.films]\nhash = "0"'))
    assert_refused(run(repository), "is not the data set of the plan", code=3)
    (repository / "plan.toml").write_text(PLAN)
    (records / "vanilla-s1.json").unlink()
    weights = next(folder.glob("work/teacher-s0/*/best.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    assert_refused(run(repository), "vanilla-s1 failed")


def assert_refused(done: subprocess.CompletedProcess[str], message: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr


@pytest.mark.long
def test_a_full_disk_ends_a_run_with_a_line_and_the_rest_goes_on(repository, tmp_path):
    pytest.importorskip("torch")
    (repository / "plan.toml").write_text(PLAN.split("[[run]]")[0] + "[[run]]" + PLAN.split("[[run]]")[-1])
    records = tmp_path / "records"
    records.mkdir()
    (records / "none-s0.npz").mkdir()  # what cannot be written
    done = run(repository, "--records", str(records))
    assert done.returncode == 2
    assert "none-s0 failed: exit code 2, error:" in done.stderr and "cannot be written" in done.stderr
    assert [path.name for path in records.glob("*.json")] == ["none-s1.json"]

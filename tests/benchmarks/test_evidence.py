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

from evidence_figure import differences as differences_of
from evidence_figure import picture
from evidence_plan import read_plan
from evidence_records import check_records, record_of
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
    assert [run.keep_weights for run in plan().runs] == [True, *[False] * 6]


def test_a_run_may_start_from_the_weights_of_another(plan):
    runs = {run.id: run for run in plan('method = "none"\n', 'method = "none"\nstart = "teacher-s0"\n').runs}
    assert runs["none-s1"].needs == ["teacher-s0"] and runs["teacher-s0"].needs == []
    assert runs["teacher-s0"].keep_weights and runs["mlcak-s0"].needs == ["teacher-s0"]


def test_a_start_without_a_seed_is_the_run_of_the_same_seed(plan):
    runs = {run.id: run for run in plan('method = "none"\n', 'method = "none"\nstart = "vanilla"\n').runs}
    assert [runs[f"none-s{seed}"].start for seed in (0, 1)] == ["vanilla-s0", "vanilla-s1"]
    assert runs["vanilla-s1"].keep_weights and not runs["mlcak-s1"].keep_weights
    assert runs["none-s1"].spec["settings"]["start"] == "vanilla-s1"


def test_all_runs_but_one_may_start_from_that_one(tmp_path):
    of_all = PLAN.replace('start = "random"', 'start = "none-s0"') + 'start = "random"\n'
    (tmp_path / "plan.toml").write_text(of_all.replace("seeds = [0, 1]", "seeds = [0]"))
    runs = {run.id: run for run in read_plan(tmp_path / "plan.toml").runs}
    assert runs["none-s0"].keep_weights and runs["none-s0"].needs == []
    assert runs["teacher-s0"].needs == ["none-s0"] and runs["mlcak-s0"].needs == ["teacher-s0", "none-s0"]


def test_runs_that_wait_for_each_other_are_named(tmp_path):
    circle = PLAN.replace("res = 224", 'res = 224\nstart = "mlcak-s0"')
    (tmp_path / "plan.toml").write_text(circle)
    with pytest.raises(UsageError, match=r"teacher-s0, .*mlcak-s0, .*wait for each other"):
        read_plan(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('start = "random"', 'start = "teacher-s0"', "start of teacher is 'teacher-s0'"),
        ("[data.films]", "[data.films", "cannot be read as TOML"),
        ('"teacher-s0"', '"teacher-s1"', "teacher of mlcak is 'teacher-s1'"),
        ('"teacher-s0"', '"none-s0"', "teacher of mlcak is no teacher"),
        ('against = "none"', 'against = "nobody"', "'nobody'"),
        ('against = "none"', 'against = "mlcak"', "'mlcak'"),
        ('method = "mlcak"', 'method = "mlcka"', "method of mlcak is 'mlcka'"),
        ("res = 28", "res = 30", "res of mlcak is 30"),
        ("res = 28", "res = 448", "res of mlcak is 448"),
        ("tokens = 49", "tokens = 50", "tokens of teacher is 50"),
        ('start = "random"', 'start = "chance"', "start of teacher is .chance."),
        ("seeds = [0, 1]", "seeds = []", "mlcak has no seeds"),
        ("seeds = [0, 1]", "seeds = 3", "seeds of mlcak is 3"),
        ('name = "vanilla"', 'name = "mlcak"', r"two \[\[run\]\] mlcak"),
        ("[data.films]", "commit = 3\n[data.films]", "commit is 3"),
        ("[data.films]", "[data]\nfilms = 3\n[data.others]", "data.films is 3"),
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
    with pytest.raises(UsageError, match=r"none\.toml does not exist"):
        read_plan(tmp_path / "none.toml")


def differences(ours: dict[int, float], theirs: dict[int, float], unlike: bool) -> list[float]:
    sides = ({seed: Sample(value, np.zeros(2)) for seed, value in side.items()} for side in (ours, theirs))
    return [round(difference.value, 6) for difference in paired(*sides, unlike)]


def test_differences_are_paired_by_seed_and_a_teacher_stands_beside_all():
    none = {0: 0.7, 1: 0.6, 2: 0.9}
    assert differences({0: 0.8, 1: 0.7, 5: 0.1}, none, unlike=False) == [0.1, 0.1]
    # A run that is alone, since the others are not done, is compared with that of its seed and no other.
    assert differences({1: 0.65}, none, unlike=False) == [0.05]
    assert differences({7: 0.65}, none, unlike=False) == []
    assert differences({0: 0.95}, none, unlike=True) == [0.25, 0.35, 0.05]


def test_the_figure_shows_each_run_at_its_difference():
    draw = np.random.default_rng(0).normal
    samples = {
        name: {row: Sample(value, draw(value, 0.01, 500)) for row in ("findings (macro)", "Nodule/Mass")}
        for name, value in (("teacher", 0.08), ("mlcak", -0.02))
    }
    (axes,) = picture(samples, "films").axes
    points = {tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"}
    assert points == {(0.08,), (-0.02,)} and len([line for line in axes.lines if line.get_marker() == "o"]) == 4
    assert axes.get_legend_handles_labels()[1] == ["teacher", "mlcak"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["findings (macro)", "Nodule/Mass"]


def test_a_figure_of_nothing_is_refused(plan, tmp_path, clinic):
    with pytest.raises(UsageError):
        differences_of(plan(), clinic, tmp_path, 10)


@pytest.fixture
def recorded(plan, tmp_path):
    """A plan with the records of its teacher and of a student."""
    plan_of_runs = plan()
    for run in plan_of_runs.runs:
        if run.id in ("teacher-s0", "mlcak-s0"):
            teacher = {"run": run.teacher, "sha256": "weights of teacher-s0"} if run.teacher else None
            record = {
                "run": run.id, "status": "done", "spec": run.spec, "data": {"hash": "films"}, "teacher": teacher,
                "weights": {"sha256": f"weights of {run.id}"}, "commit": "c",
                "test": {"findings": 0.5, "abnormal": 0.5},
            }  # fmt: skip
            (tmp_path / f"{run.id}.npz").touch()
            (tmp_path / f"{run.id}.json").write_text(json.dumps(record))
    return plan_of_runs, tmp_path


def test_records_of_the_same_settings_data_and_teacher_are_taken(recorded):
    check_records(*recorded, {"films": "films"})
    assert record_of(recorded[1], "none-s0") is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"hash": "others"}}, "another data set films"),
        ({"teacher": {"run": "teacher-s0", "sha256": "others"}}, "another weights of teacher-s0"),
        ({"spec": {"name": "mlcak"}}, "another seed, another data"),
    ],
)
def test_records_of_others_are_refused(recorded, changes, message):
    plan_of_runs, folder = recorded
    path = folder / "mlcak-s0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(UsageError, match=message) as error:
        check_records(plan_of_runs, folder, {"films": "films"})
    assert "mlcak-s0.json" in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"run": "other-s0", "status": "done"}',
        '{"run": "none-s0"}',
        '{"run": "none-s0", "status": "done"}',
    ],
)
def test_a_damaged_record_is_named(tmp_path, text):
    (tmp_path / "none-s0.json").write_text(text)
    with pytest.raises(EdgeCxrError, match=r"none-s0\.json is no whole record"):
        record_of(tmp_path, "none-s0")


def run(repository: Path, *words: str, plan: str = "plan.toml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/evidence.py", plan, "--jobs", "2", *words]
    return subprocess.run(command, cwd=repository, env=environment(repository), capture_output=True, text=True)


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
    subprocess.run(["git", "init", "-q", str(folder)], check=True)
    commit(folder)
    return folder


def commit(repository: Path) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@localhost", "-C", str(repository)]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)


def workers(folder: Path) -> list[str]:
    return subprocess.run(["pgrep", "-f", f"evidence_work.py {folder}"], capture_output=True, text=True).stdout.split()


def wait_for(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


@pytest.mark.long
def test_trainings_outlive_kills_changes_of_the_code_and_the_loss_of_their_folder(repository):
    pytest.importorskip("torch")
    folder = repository / "build" / "evidence" / "plan"
    records = repository / "benchmarks" / "results" / "evidence" / "plan"
    begun = run(repository, "--background")
    assert begun.returncode == 0, begun.stderr
    wait_for(lambda: list(folder.glob("work/*/*/history.csv")))
    second = run(repository)
    assert second.returncode == 2 and "--stop" in second.stderr, second.stderr
    os.kill(int((folder / "lock").read_text().split()[1]), signal.SIGKILL)
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
    by_run = {path.stem: json.loads(path.read_text()) for path in records.glob("*.json")}
    assert len({record["commit"] for record in by_run.values()}) == 1
    assert all(record["status"] == "done" and len(record["history"]) == 30 for record in by_run.values())
    assert {record["teacher"]["sha256"] for record in by_run.values() if record["teacher"]} == {
        by_run["teacher-s0"]["weights"]["sha256"]
    }
    status = run(repository, "--status", "--replicates", "50")
    assert status.returncode == 0, status.stderr
    assert "7 of 7 done" in status.stdout
    table = status.stdout.partition("share of the gap")[0]
    for row in ("findings (macro)", "normal/abnormal", "attention hits"):
        (line,) = (line for line in table.splitlines() if line.startswith(row))
        assert line.count("[none, 2 seeds]") == 3 and not math.isnan(float(line.split("  ")[-1].split()[0])), line

    # On a machine that has the records alone, the teacher is made of what lies beside its own.
    shutil.rmtree(folder.parent)
    subprocess.run(["git", "-C", str(repository), "checkout", "-q", "edgecxr"], check=True)
    before = np.load(records / "vanilla-s1.npz")["findings"]
    (records / "vanilla-s1.json").unlink()
    last = run(repository)
    assert last.returncode == 0, last.stderr
    assert "1 of 7 runs are left" in last.stderr
    assert record_of(records, "vanilla-s1")["teacher"]["sha256"] == by_run["teacher-s0"]["weights"]["sha256"]
    assert np.array_equal(np.load(records / "vanilla-s1.npz")["findings"], before)

    # Other settings, films or weights are another plan.
    (repository / "plan.toml").write_text(PLAN.replace("epochs = 30", "epochs = 31"))
    assert_refused(run(repository), "was made with another settings")
    assert_refused(run(repository, "--status"), "was made with another settings")
    (repository / "plan.toml").write_text(PLAN.replace("[data.films]", '[data.films]\nhash = "0"'))
    assert_refused(run(repository), "is not the data set of the plan", code=3)
    assert_refused(run(repository, "--status"), "is not the data set of the plan", code=3)
    (repository / "plan.toml").write_text(PLAN)
    (records / "vanilla-s1.json").unlink()
    shutil.rmtree(folder / "work" / "vanilla-s1")
    weights = next(folder.glob("taught/*/best.safetensors"))
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\0\0\0")
    assert_refused(run(repository), "vanilla-s1 failed")
    weights.write_bytes(whole)

    # A plan of another name has runs of its own, though they are called the same.
    (repository / "other.toml").write_text(
        PLAN.replace("epochs = 30", "epochs = 1").replace("seeds = [0, 1]", "seeds = [0]")
        + 'start = "teacher-s0"\n'  # of the last run, none
    )
    other = run(repository, plan="other.toml")
    assert other.returncode == 0, other.stderr
    theirs = json.loads((records.parent / "other" / "mlcak-s0.json").read_text())
    assert len(theirs["history"]) == 1 and theirs["teacher"]["sha256"] != by_run["teacher-s0"]["weights"]["sha256"]
    started = json.loads((records.parent / "other" / "none-s0.json").read_text())
    taught = json.loads((records.parent / "other" / "teacher-s0.json").read_text())["weights"]["sha256"]
    assert started["start"] == {"run": "teacher-s0", "sha256": taught}
    (config,) = (repository / "build" / "evidence" / "other" / "work" / "none-s0").glob("*/config.json")
    assert json.loads(config.read_text())["init_sha256"] == taught

    # A commit that fails is not held on to.
    shutil.rmtree(folder.parent / "other" / "work" / "mlcak-s0")
    loop = repository / "edgecxr" / "train" / "loop.py"
    right = loop.read_text()
    for text, message, code in (
        ("raise SystemExit('a bug')\n", "failed: exit code 1", 2),
        (right, "mlcak-s0: test", 0),
    ):
        loop.write_text(text)
        commit(repository)
        (records.parent / "other" / "mlcak-s0.json").unlink(missing_ok=True)
        assert_refused(run(repository, "--commit", "HEAD", plan="other.toml"), message, code)


def assert_refused(done: subprocess.CompletedProcess[str], message: str, code: int = 2) -> None:
    assert done.returncode == code, done.stderr
    assert message in done.stderr


@pytest.mark.long
def test_what_cannot_be_written_ends_a_run_with_a_line_and_the_rest_goes_on(repository, tmp_path):
    pytest.importorskip("torch")
    (repository / "plan.toml").write_text(PLAN.split("[[run]]")[0] + "[[run]]" + PLAN.split("[[run]]")[-1])
    records = tmp_path / "records"
    records.mkdir()
    (records / "none-s0.npz").mkdir()  # what cannot be written
    done = run(repository, "--records", str(records))
    assert done.returncode == 2
    assert "none-s0 failed: exit code 2, error:" in done.stderr and "cannot be written" in done.stderr
    assert [path.name for path in records.glob("*.json")] == ["none-s1.json"]

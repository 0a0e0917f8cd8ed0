"""Two gloo processes on the CPU, as people start them: their result is that of one."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.cli_workspace import edgecxr

PYTHON = [sys.executable, "-m", "edgecxr"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "edgecxr"]
TEACHER = ["train", "--init", "random", "--patch", "56", "--depth", "2", "--device", "cpu"]
# Batches of 11 divide unevenly, and the last one of 24 films has two: one for each process.
RUN = "teacher-tiny-224-clinic"
QUICK = ["--epochs", "2", "--batch", "11", "--augment", "0.5"]
AVERAGED = [*QUICK, "--ema", "0.9", "--class-weights", "balanced", "--patience", "5", "--max-hours", "2"]


@pytest.fixture
def start(clinic, tmp_path):
    """Start a command in a workspace of its own that has the data set; films there lack labels."""
    shutil.copytree(clinic.path, tmp_path / "runs" / "data" / clinic.name)
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"EDGECXR_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}

    def begin(*command: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # A shell lets what it starts in the background ignore SIGINT, these tests perhaps among it.
        heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(command, text=True, env=environment, cwd=tmp_path, preexec_fn=heed, **pipes)

    return begin


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def finished(process: subprocess.Popen[str]) -> Path:
    code, out, err = ended(process)
    assert code == 0, err
    assert len(out.splitlines()) == 1, out  # one process speaks for all
    return Path(out.strip())


@pytest.fixture
def here(start, tmp_path, monkeypatch):
    """Train in this process, which has torch already, in the workspace of `start`; return the run."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)

    def train(*command: str) -> Path:
        typed = edgecxr(*command, runs=tmp_path / "runs")
        assert typed.code == 0, typed.err
        return Path(typed.out.strip())

    return train


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open() as file:
        return [
            {name: float(value) for name, value in row.items() if name not in ("seconds", "images_per_s", "data_share")}
            for row in csv.DictReader(file)
        ]


def assert_same(a: Path, b: Path) -> None:
    """Losses, AUROCs and weights of two runs agree but for the order of float32 sums."""
    ours, theirs = history(a), history(b)
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-4, abs=1e-6)
    weights, two = load_file(a / "best.safetensors"), load_file(b / "best.safetensors")
    assert weights.keys() == two.keys()
    for name, value in weights.items():
        if name.endswith("attn.qkv.bias"):
            # Softmax does not change when all keys move alike: their bias has no gradient but rounding, which AdamW
            # scales up to a step.
            value, two[name] = (torch.cat([bias.chunk(3)[0], bias.chunk(3)[2]]) for bias in (value, two[name]))
        # As a whole: AdamW scales single gradients up that are next to nothing.
        assert (value - two[name]).norm() <= 2e-3 * two[name].norm(), name


def processes_of(root: Path) -> dict[int, int]:
    """Return rank -> process of the commands that train in a workspace."""
    by_rank = {}
    for folder in Path("/proc").iterdir():
        try:
            values = dict(line.split("=", 1) for line in (folder / "environ").read_text().split("\0") if "=" in line)
        except (OSError, UnicodeDecodeError):
            continue
        if values.get("EDGECXR_RUNS") == str(root) and "RANK" in values:
            by_rank[int(values["RANK"])] = int(folder.name)
    return by_rank


@pytest.mark.long
def test_two_processes_learn_what_one_learns_and_torchrun_is_another_way(start, here):
    alone = here(*TEACHER, *QUICK)
    both = finished(start(*PYTHON, *TEACHER, *QUICK, "--devices", "2", "--fresh"))
    assert (alone.name, both.name) == (RUN, f"{RUN}-2")
    assert_same(both, alone)
    distil = ["distill", "--res", "28", "--teacher", alone.name, "--device", "cpu", *AVERAGED]
    alone = here(*distil)
    assert_same(finished(start(*TORCHRUN, *distil, "--fresh")), alone)


@pytest.mark.long
@pytest.mark.parametrize("killed", ["a process", "the launcher"])
def test_a_kill_ends_all_and_another_number_of_processes_goes_on(start, tmp_path, killed):
    training = [*TEACHER, "--epochs", "400", "--batch", "11"]
    process = start(*PYTHON, *training, "--devices", "2")
    run = tmp_path / "runs" / RUN
    deadline = time.monotonic() + 300
    while not (run / "history.csv").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    ranks = processes_of(tmp_path / "runs")
    assert set(ranks) == {0, 1}
    os.kill(ranks[1] if killed == "a process" else process.pid, signal.SIGKILL)
    code, out, err = ended(process)
    assert out == ""
    if killed == "a process":
        assert code == 1
        errors = [line for line in err.splitlines() if line.startswith("error")]
        assert len(errors) == 1
        assert re.match(r"error: process 1 of 2 .*ended by SIGKILL, .*: the same command", errors[0])
        assert "Traceback" not in err
    while processes_of(tmp_path / "runs"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    done = len(history(run))
    assert done < 400
    # The settings are those of the run, so that it goes on; few epochs would be another run.
    resumed = start(*PYTHON, *training)
    while len(history(run)) < done + 2:
        assert resumed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    resumed.send_signal(signal.SIGINT)
    assert ended(resumed)[0] == 130
    assert [entry.name for entry in (tmp_path / "runs").glob("teacher*")] == [run.name]
    rows = history(run)
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))


@pytest.mark.long
def test_an_interruption_ends_all_and_is_said_once(start, tmp_path):
    process = start(*PYTHON, *TEACHER, "--epochs", "400", "--batch", "11", "--devices", "2")
    deadline = time.monotonic() + 300
    while not (tmp_path / "runs" / RUN / "history.csv").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    code, out, err = ended(process)
    assert (code, out, err.splitlines()[-1]) == (130, "", "interrupted")
    assert err.count("interrupted") == 1 and "error" not in err and "signal" not in err
    assert not processes_of(tmp_path / "runs")


@pytest.mark.long
def test_a_run_that_changes_the_number_of_its_processes_ends_as_any_other(start, here, tmp_path):
    training = [*TEACHER, "--epochs", "6", "--batch", "11"]
    whole = here(*training)
    first = start(*PYTHON, *training, "--fresh", "--devices", "2")
    run = tmp_path / "runs" / f"{RUN}-2"
    deadline = time.monotonic() + 300
    while not (run / "last.pt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    first.kill()
    ended(first)
    while processes_of(tmp_path / "runs"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (run / "card.json").exists()
    assert here(*training) == run
    assert_same(run, whole)


@pytest.mark.slow
@pytest.mark.long
def test_an_error_of_all_is_said_once_with_its_own_exit_code(start):
    code, out, err = ended(start(*PYTHON, *TEACHER, *QUICK, "--lr", "1e30", "--devices", "2"))
    assert (code, out) == (6, "")
    assert [line for line in err.splitlines() if line.startswith("error")] == [err.splitlines()[-1]]
    assert "not finite from step" in err
    code, out, err = ended(start(*PYTHON, "distill", "--res", "28", "--devices", "2", "--device", "cpu"))
    assert code == 4
    assert err.count("error: ") == 1
    assert "`edgecxr train --data clinic`" in err


def test_what_cannot_be_launched_is_refused(here, tmp_path):
    def refused(*command: str) -> str:
        typed = edgecxr(*command, runs=tmp_path / "runs")
        assert typed.code == 2
        return typed.error

    assert "--rendezvous HOST[:PORT]" in refused("distill", "--res", "28", "--devices", "2", "--nodes", "2")
    assert re.search(r"say how many .*--nodes", refused("distill", "--res", "28", "--rendezvous", "here"))
    assert "names one GPU" in refused("distill", "--res", "28", "--devices", "2", "--device", "cuda:1")
    if not torch.cuda.is_available():
        assert "this machine has 0 GPUs" in refused("train", "--devices", "2", "--device", "cuda")


STATISTICS = """
import pathlib
import torch
from torch import nn
from edgecxr.train.device import Device

class Learner(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.BatchNorm2d(1)
    def forward(self, images):
        return self.model(images).sum()

# What a module holds ends only after torch's threads, which may abort the process then.
def train():
    device = Device.choose("cpu", "fp32")
    learner = Learner()
    step = device.distributed(learner)
    rank = device.fabric.global_rank
    for _ in range(200):
        device.fabric.backward(step(torch.randn(8, 1, 4, 4) + 10 * rank))
    device.average_statistics(learner.model)
    pathlib.Path(f"mean-{rank}").write_text(str(learner.model.running_mean.item()))
    device.leave()

train()
"""


@pytest.mark.slow
def test_batch_norms_of_several_processes_keep_the_statistics_of_all(tmp_path):
    (tmp_path / "norms.py").write_text(STATISTICS)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(tmp_path / "norms.py")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    means = [float((tmp_path / f"mean-{rank}").read_text()) for rank in (0, 1)]
    assert means == pytest.approx([5, 5], abs=0.3)

"""Patience and --max-hours: when a run ends, what it keeps, and that it goes on."""

from __future__ import annotations

import csv
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import read_card
from edgecxr.bundle.describe import _training
from edgecxr.cli.options import resumable
from edgecxr.errors import TimeIsUp, UsageError
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epochs import stopping
from edgecxr.train.epochs.stopping import TimeLimit, ended
from edgecxr.train.run_training import distill, train
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace

CPU = Device(torch.device("cpu"), "fp32")


def rows(*scores: float) -> list[dict[str, float]]:
    return [{"epoch": number + 1, "score": score} for number, score in enumerate(scores)]


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        timed = ("seconds", "images_per_s", "data_share")
        return [{key: value for key, value in row.items() if key not in timed} for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("scores", "patience", "expected"),
    [
        ([], 1, None),
        ([0.5], 1, None),
        ([0.5, 0.5], 1, ("patience", 2, 1)),  # as high as before is not higher
        ([0.5, 0.4, 0.6], 2, None),
        ([0.5, 0.6, 0.5], 2, None),
        ([0.5, 0.6, 0.5, 0.5], 2, ("patience", 4, 2)),
        ([0.5, 0.4, 0.4, 0.4], None, None),
        ([0.5, 0.4, 0.4, 0.4, 0.4], None, ("epochs", 5, 1)),
        ([0.5, 0.6, 0.5, 0.5, 0.5], 3, ("epochs", 5, 2)),
        ([math.nan] * 4, 1, None),  # no validation can tell
        ([math.nan] * 5, 1, ("epochs", 5, 5)),
    ],
)
def test_a_run_ends_after_all_epochs_or_when_none_of_the_last_was_better(scores, patience, expected):
    ending = ended(rows(*scores), 5, patience)
    assert ending == (None if expected is None else dict(zip(("reason", "epochs", "kept"), expected, strict=True)))


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set, in hours."""

    class Clock:
        hours = 100.0

        def monotonic(self) -> float:
            return self.hours * 3600

    clock = Clock()
    monkeypatch.setattr(stopping, "time", clock)
    return clock


def test_an_epoch_begins_only_if_it_would_end_in_time(clock):
    limit, run = TimeLimit(2.0, CPU.fabric), Path("runs/x")
    for done, hours in enumerate((100.0, 100.5, 101.1)):  # the longest took 0.6
        clock.hours = hours
        limit.begin_epoch(run, done)
        limit.check_step(run, done, 0)
    clock.hours = 101.5
    with pytest.raises(TimeIsUp, match=r"epoch 4 would end .*2 hours .*epochs 1 to 3 .*runs/x"):
        limit.begin_epoch(run, 3)


def test_an_epoch_that_takes_longer_than_was_foreseen_ends_in_its_middle(clock):
    limit, run = TimeLimit(2.0, CPU.fabric), Path("runs/x")
    limit.begin_epoch(run, 0)
    clock.hours = 102.1
    with pytest.raises(TimeIsUp, match=r"middle of epoch 1.*nothing is kept yet; .*give more"):
        limit.check_step(run, 0, 7)
    limit = TimeLimit(2.0, CPU.fabric)
    for done, hours in enumerate((102.1, 102.5)):
        clock.hours = hours
        limit.begin_epoch(run, done)
    clock.hours = 104.2
    with pytest.raises(TimeIsUp, match=r"middle of epoch 2: epoch 1 is kept in runs/x$"):
        limit.check_step(run, 1, 7)


def test_several_processes_ask_the_first_one_and_not_at_every_step(clock):
    class Fabric:
        world_size, answers = 2, 0

        def broadcast(self, own: bool) -> bool:
            self.answers += 1
            return not own  # the first one's clock says something else

    fabric = Fabric()
    limit = TimeLimit(2.0, fabric)
    clock.hours = 103
    limit.begin_epoch(Path("x"), 0)
    clock.hours = 101
    for step in range(1, 10):
        limit.check_step(Path("x"), 0, step)
    assert fabric.answers == 1
    with pytest.raises(TimeIsUp):
        limit.check_step(Path("x"), 0, 10)


def test_without_a_limit_nobody_is_asked(clock):
    limit = TimeLimit(None, None or type("Fabric", (), {"world_size": 2})())
    clock.hours = 1e6
    limit.begin_epoch(Path("x"), 0)
    limit.check_step(Path("x"), 0, 0)


@pytest.mark.parametrize("hours", [0, -1, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused_before_any_work(tmp_path, prepared, hours):
    with pytest.raises(UsageError, match="--max-hours"):
        train(Workspace(tmp_path / "runs"), prepared, {"init": "random"}, max_hours=hours)
    assert not list((tmp_path / "runs").glob("teacher*"))


QUICK = {"init": "random", "patch": 56, "depth": 2, "batch": 15, "augment": 0.0}


def test_out_of_time_a_run_keeps_its_epochs_and_ends_as_any_other_when_repeated(tmp_path, prepared, clock, monkeypatch):
    whole = train(Workspace(tmp_path / "other"), prepared, QUICK | {"epochs": 3}, "cpu")
    workspace = Workspace(tmp_path / "runs")
    monkeypatch.setattr(sys, "argv", ["edgecxr", "train", "--max-hours", "2", "--fresh"])

    def slow(done: int, total: int, note: str) -> None:
        clock.hours += 0.5  # two steps an epoch: an hour

    config = TrainConfig(prepared.name, prepared.hash, **QUICK | {"epochs": 3})
    with pytest.raises(TimeIsUp, match=r"epoch 3 would end .*epochs 1 to 2 are kept"):
        train_teacher(workspace, prepared, config, CPU, slow, max_hours=2.5)
    run = workspace.root / whole.name
    assert len(history(run)) == 2 and not (run / "card.json").exists()
    # It counts its own hours only: the third epoch, of an hour, is begun.
    assert train_teacher(workspace, prepared, config, CPU, slow, max_hours=1.5) == run
    assert history(run) == history(whole)
    assert read_card(run).ended == read_card(whole).ended and read_card(run).ended["reason"] == "epochs"
    resumed, two = (load_file(folder / "best.safetensors") for folder in (run, whole))
    assert all(torch.equal(resumed[name], two[name]) for name in two)


def test_out_of_time_the_command_that_goes_on_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["edgecxr", "train", "--max-hours", "2", "--fresh"])
    with pytest.raises(TimeIsUp), resumable():
        raise TimeIsUp("over")
    assert capsys.readouterr().err.endswith(": edgecxr train --max-hours 2\n")


def test_out_of_patience_a_run_ends_with_a_card_that_says_so(tmp_path, prepared, capsys):
    workspace = Workspace(tmp_path / "runs")
    # Next to nothing is learnt, so that no epoch is better than the first.
    typed = QUICK | {"epochs": 50, "patience": 2, "lr": 1e-12}
    run = train(workspace, prepared, typed, "cpu")
    card = read_card(run)
    assert card.ended == {"reason": "patience", "epochs": 3, "kept": 1} and card.training["patience"] == 2
    assert len(history(run)) == 3
    assert "kept epoch 1 of 3, ended by --patience 2" in capsys.readouterr().err
    assert re.match(r"3 of 50 epochs.*--patience.*after epoch 1$", _training(card)[0])
    # A kill may come between the last epoch and the card: no further epoch is trained.
    (run / "card.json").unlink()
    assert train(workspace, prepared, typed, "cpu") == run
    assert len(history(run)) == 3 and read_card(run) == card
    student = distill(workspace, prepared, {**typed, "res": 28, "init": "teacher"} | {"patch": None}, teacher=run.name)
    assert read_card(student).ended["reason"] == "patience"


def test_a_bundle_shows_how_long_its_model_was_trained(bundled: Bundle):
    assert _training(bundled.card)[0].startswith("all 2 epochs; ")

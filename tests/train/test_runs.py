"""Teacher and student runs: what they leave, how they resume, what they refuse."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgecxr.bundle.card import read_card
from edgecxr.errors import CheckFailed, InputError, ModelError, UsageError
from edgecxr.train import checkpoint
from edgecxr.train.config import TrainConfig, patch_of
from edgecxr.train.device import Device
from edgecxr.train.loop import learning_rate
from edgecxr.train.student import distil_student
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace
from tests.conftest import striped, write_prepared

CPU = Device(torch.device("cpu"), "fp32")


def quiet(done: int, total: int, note: str) -> None:
    pass


def settings(prepared, **changes) -> TrainConfig:
    small = {"patch": 56, "depth": 2, "init": "random", "epochs": 3, "batch": 8, "augment": 0.3}
    return TrainConfig(data=prepared.name, data_hash=prepared.hash, **small | changes)


def teach(workspace: Workspace, prepared, progress=quiet, fresh=False, **changes) -> Path:
    return train_teacher(workspace, prepared, settings(prepared, **changes), CPU, progress, fresh)


def student_settings(prepared, **changes) -> TrainConfig:
    return settings(prepared, **{"size": 28, "patch": 4, "method": "mlcak", "init": "teacher"} | changes)


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "runs")


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_s", "data_share")}
            for row in csv.DictReader(file)
        ]


def same_weights(a: Path, b: Path) -> bool:
    weights, two = load_file(a / "best.safetensors"), load_file(b / "best.safetensors")
    return weights.keys() == two.keys() and all(torch.equal(weights[key], two[key]) for key in weights)


def test_teacher_and_student_learn_and_leave_their_files(workspace, prepared):
    run = teach(workspace, prepared, epochs=6, lr=1e-3)
    assert run.name == "teacher-tiny-224-striped"
    assert {p.name for p in run.iterdir()} == {
        "config.json", "last.pt", "best.safetensors", "card.json", "history.csv", "curves.png"
    }  # fmt: skip
    rows = history(run)
    assert len(rows) == 6
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert max(float(row["val_auroc_findings"]) for row in rows) > 0.9
    student = distil_student(workspace, prepared, student_settings(prepared, epochs=2), run, CPU, quiet)
    card = checkpoint.finished_card(student)
    assert (card.name, card.size, card.tokens, card.method) == ("student-tiny-28-mlcak-striped", 28, 49, "mlcak")
    assert card.phantom
    assert set(card.operating_points["youden"]) == {*prepared.labels, "abnormal"}
    assert {"kd_findings", "kd_abnormal", "kd_knowledge", "bce_findings"} <= set(history(student)[0])


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [1, 6, 11])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(workspace, tmp_path, prepared, step):
    whole = teach(Workspace(tmp_path / "other"), prepared)

    def kill(done: int, total: int, note: str) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        teach(workspace, prepared, kill)
    assert not (workspace.root / "teacher-tiny-224-striped" / "card.json").exists()
    resumed = teach(workspace, prepared)
    assert resumed == workspace.root / "teacher-tiny-224-striped"
    assert history(resumed) == history(whole)
    assert same_weights(resumed, whole)


def test_auto_is_stored_as_what_it_meant(workspace, prepared):
    run = teach(workspace, prepared, epochs=1, precision="auto")
    assert json.loads((run / "config.json").read_text())["precision"] == "fp32"
    assert read_card(run).training["precision"] == "fp32"


def test_a_second_run_of_the_same_name_is_announced(workspace, prepared, capsys):
    teach(workspace, prepared, epochs=1)
    assert "is there already" not in capsys.readouterr().err
    second = teach(workspace, prepared, epochs=1)
    message = capsys.readouterr().err.splitlines()[0]
    assert second.name == "teacher-tiny-224-striped-2"
    assert "is there already" in message and message.endswith("teacher-tiny-224-striped-2")


def test_a_name_goes_on_with_its_run_and_is_refused_once_it_is_taken(workspace, prepared):
    def kill(done: int, total: int, note: str) -> None:
        raise Killed

    def named(progress=quiet, fresh=False, **changes):
        return train_teacher(workspace, prepared, settings(prepared, **changes), CPU, progress, fresh, name="mine")

    with pytest.raises(Killed):
        named(kill)
    assert [run.name for run in workspace.unfinished_runs()] == ["mine"]
    for changes in ({"lr": 1e-4}, {"fresh": True}):
        with pytest.raises(UsageError, match="--name"):
            named(**changes)
    assert named().name == "mine"
    with pytest.raises(UsageError, match="--name"):
        named()
    assert [run.name for run in workspace.finished_runs()] == ["mine"] and not workspace.unfinished_runs()


def test_other_settings_or_fresh_begin_another_run(workspace, prepared):
    def kill(done: int, total: int, note: str) -> None:
        raise Killed

    for changes in ({}, {"lr": 1e-4}, {"fresh": True}):
        with pytest.raises(Killed):
            teach(workspace, prepared, kill, **changes)
    assert len(workspace.runs("teacher-tiny-224-striped")) == 3
    finished = teach(workspace, prepared, lr=1e-4, epochs=1)
    again = teach(workspace, prepared, lr=1e-4, epochs=1)
    assert finished != again
    assert same_weights(finished, again)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_epoch(workspace, prepared):
    with pytest.raises(CheckFailed, match="lower --lr"):
        teach(workspace, prepared, lr=1e25, warmup=0.0)
    run = workspace.root / "teacher-tiny-224-striped"
    assert not (run / "card.json").exists()
    if (run / "last.pt").exists():
        kept = checkpoint.load_last(run, torch.device("cpu"))
        assert all(np.isfinite(row["loss"]) for row in kept["history"])


def test_nothing_to_learn_is_refused_before_a_run_is_made(tmp_path, workspace):
    images, targets, abnormal, splits = striped(24)
    constant = write_prepared(tmp_path / "constant", images, np.ones_like(targets), np.ones_like(abnormal), splits)
    with pytest.raises(InputError, match="only one class"):
        teach(workspace, constant)
    no_val = write_prepared(tmp_path / "noval", images, targets, abnormal, ["train"] * 24)
    with pytest.raises(InputError, match="no images in its val split"):
        teach(workspace, no_val)
    assert not workspace.root.exists()


def test_a_student_refuses_the_wrong_teacher(tmp_path, workspace, prepared):
    run = teach(workspace, prepared, epochs=1)
    other = write_prepared(tmp_path / "other", *striped(24), labels=("Edema", "Fibrosis"))
    with pytest.raises(UsageError, match="trained for other labels"):
        distil_student(workspace, other, student_settings(other), run, CPU, quiet)
    with pytest.raises(ModelError, match="another architecture"):
        distil_student(workspace, prepared, student_settings(prepared, arch="small"), run, CPU, quiet)
    with pytest.raises(UsageError, match="needs a teacher"):
        distil_student(workspace, prepared, student_settings(prepared, init="random"), None, CPU, quiet)
    undistilled = student_settings(prepared, init="random", method="none", epochs=1)
    assert checkpoint.finished_card(distil_student(workspace, prepared, undistilled, None, CPU, quiet)).method == "none"


def test_damaged_files_are_named(workspace, prepared):
    run = teach(workspace, prepared, epochs=1)
    weights = bytearray((run / "best.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "best.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match=r"best\.safetensors has changed"):
        checkpoint.load_run(run)
    (run / "best.safetensors").unlink()
    with pytest.raises(ModelError, match=r"best\.safetensors does not exist"):
        checkpoint.load_run(run)
    (run / "card.json").unlink()
    with pytest.raises(ModelError, match="no finished training run"):
        checkpoint.load_run(run)
    (run / "last.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="--fresh"):
        checkpoint.load_last(run, torch.device("cpu"))


def test_weights_that_do_not_fit_their_card_are_refused(workspace, prepared):
    run = teach(workspace, prepared, epochs=1)
    card = checkpoint.finished_card(run)
    (run / "card.json").write_text(dataclasses.replace(card, arch="small").to_json())
    with pytest.raises(ModelError, match=r"does not fit .*of its card"):
        checkpoint.load_run(run)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch executed",))


def test_resuming_never_executes_a_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"history": Bomb()}, tmp_path / "last.pt")
    with pytest.raises(ModelError):
        checkpoint.load_last(tmp_path, torch.device("cpu"))
    (tmp_path / "last.pt").write_bytes(pickle.dumps(Bomb(), protocol=2))
    with pytest.raises(ModelError):
        checkpoint.load_last(tmp_path, torch.device("cpu"))
    assert not (tmp_path / "executed").exists()


def test_the_learning_rate_warms_up_and_falls_to_zero(prepared):
    config = settings(prepared, warmup=0.1, lr=1.0)
    rates = [learning_rate(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 0.001


def test_wrong_settings_are_all_named_at_once(prepared):
    with pytest.raises(UsageError) as error:
        settings(prepared, arch="huge", epochs=0, lr=-1)
    assert all(flag in str(error.value) for flag in ("--arch huge", "--epochs 0", "--lr -1"))
    with pytest.raises(UsageError, match="--tokens 50"):
        patch_of(28, 50)


def test_a_config_that_is_not_one_is_refused():
    with pytest.raises(ModelError, match=r"config\.json is not the configuration"):
        TrainConfig.from_json(json.dumps({"speed": "high"}), "config.json")

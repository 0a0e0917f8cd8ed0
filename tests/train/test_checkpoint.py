from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import time

import numpy as np
import pytest
import torch
from torch import nn

from edgecxr.engines.backend import open_backend
from edgecxr.errors import EdgeCxrError, ModelError, UsageError
from edgecxr.models.vit import build
from edgecxr.train import checkpoint
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.workspace import Workspace
from tests.conftest import LABELS

CPU = torch.device("cpu")
ON_CPU = Device(CPU, "fp32")
CONFIG = TrainConfig("data", "hash", patch=56, depth=2, init="random")


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("executed",))


def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
    module = nn.Linear(2, 3)
    return module, torch.optim.AdamW(module.parameters())


def saved(run, **changes):
    """Write last.pt of a small learner; `changes` replace what it holds."""
    module, optimizer = learner()
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"learner": module.state_dict(), "optimizer": optimizer.state_dict(), "scaler": {}, "history": [{"a": 1}]}
    checkpoint.save_last(run, state | changes)
    return module


def opened(workspace, config=CONFIG, fresh=False, name="teacher"):
    """Open a run and let go of it at once, as a process does that is killed."""
    with checkpoint.open_run(workspace, name, config, fresh, ON_CPU.fabric) as run:
        return run


def resume(run, module=None, optimizer=None):
    if module is None:
        module, optimizer = learner()
    return checkpoint.resume(run, ON_CPU, {"learner": module, "optimizer": optimizer, "scaler": ON_CPU.scaler()})


def test_a_run_comes_back_as_it_was_saved(tmp_path):
    before = saved(tmp_path)
    module, optimizer = learner()
    assert resume(tmp_path, module, optimizer) == [{"a": 1}]
    assert torch.equal(module.weight, before.weight)
    assert {float(entry["step"]) for entry in optimizer.state_dict()["state"].values()} == {1.0}


@pytest.mark.parametrize(
    "changes",
    [
        {"learner": {"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}},
        {"learner": {}},
        {"learner": None},
        {"optimizer": {}},
        {"optimizer": 3},
        {"history": None},
    ],
    ids=["other shape", "nothing learnt", "no learner", "no groups", "no optimizer", "no history"],
)
def test_a_state_of_something_else_is_refused_with_the_way_out(tmp_path, changes):
    saved(tmp_path, **changes)
    with pytest.raises(ModelError, match=r"last\.pt does not fit .*--fresh"):
        resume(tmp_path)


def test_a_run_of_another_device_goes_on_here(tmp_path):
    """On the CPU nothing is scaled, on an old GPU it is; how a step is computed is the device's own matter."""
    saved(tmp_path, scaler={})
    module, _ = learner()
    optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    parts = {"learner": module, "optimizer": optimizer, "scaler": scaler}
    assert checkpoint.resume(tmp_path, ON_CPU, parts) == [{"a": 1}]
    assert scaler.get_scale() == 8
    assert [group["fused"] for group in optimizer.param_groups] == [True]
    assert {float(entry["step"]) for entry in optimizer.state_dict()["state"].values()} == {1.0}


@pytest.mark.parametrize("fused", [True, False])
def test_a_run_goes_on_where_this_device_keeps_the_steps(tmp_path, fused):
    """A fused AdamW, as GPUs use, counts its steps on the device; the meta device stands in for one."""
    module, optimizer = learner()
    optimizer = torch.optim.AdamW(module.parameters(), fused=not fused)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = {"learner": module.state_dict(), "optimizer": optimizer.state_dict(), "scaler": {}, "history": [{"a": 1}]}
    checkpoint.save_last(tmp_path, state)
    there = nn.Linear(2, 3, device="meta" if fused else "cpu")
    optimizer = torch.optim.AdamW(there.parameters(), fused=fused)
    assert resume(tmp_path, there, optimizer) == [{"a": 1}]
    assert [group["fused"] for group in optimizer.param_groups] == [fused]
    for entry in optimizer.state.values():
        assert {value.device.type for value in entry.values()} == {"meta" if fused else "cpu"}
        assert entry["step"].dtype == torch.float32
    if not fused:  # and it can step
        there(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        assert {float(entry["step"]) for entry in optimizer.state.values()} == {2.0}


def test_a_run_keeps_the_precision_it_was_begun_in(tmp_path):
    workspace = Workspace(tmp_path)
    auto = dataclasses.replace(CONFIG, precision="auto")
    assert checkpoint.begun_precision(workspace, "teacher", auto) is None
    first = opened(workspace, dataclasses.replace(CONFIG, precision="bf16"))
    assert checkpoint.begun_precision(workspace, "teacher", auto) == "bf16"
    assert checkpoint.begun_precision(workspace, "teacher", dataclasses.replace(auto, seed=1)) is None
    assert opened(workspace, dataclasses.replace(CONFIG, precision="fp32")) != first
    (first / "card.json").write_text("{}")  # finished
    assert checkpoint.begun_precision(workspace, "teacher", auto) == "fp32"


def test_a_run_that_only_says_auto_goes_on_in_what_that_means_here(tmp_path):
    workspace = Workspace(tmp_path)
    first = opened(workspace, dataclasses.replace(CONFIG, precision="auto"))
    assert checkpoint.begun_precision(workspace, "teacher", dataclasses.replace(CONFIG, precision="auto")) is None
    assert opened(workspace, dataclasses.replace(CONFIG, precision="fp32")) == first


def test_a_state_of_another_version_is_refused_with_the_way_out(tmp_path):
    saved(tmp_path)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    del state["format"]  # as the first version wrote it
    torch.save(state, tmp_path / "last.pt")
    with pytest.raises(ModelError, match=r"last\.pt is of another version .*format is 1.*--fresh"):
        resume(tmp_path)


def test_damage_of_any_kind_is_one_line_with_the_way_out(tmp_path):
    saved(tmp_path)
    whole = (tmp_path / "last.pt").read_bytes()
    rng, refused = random.Random(0), 0
    for number in range(150):
        damaged = bytearray(whole)
        if number % 3 == 0:
            damaged = damaged[: rng.randrange(len(whole))]
        else:
            damaged[rng.randrange(len(whole))] ^= rng.randrange(1, 256)
        (tmp_path / "last.pt").write_bytes(damaged)
        try:
            resume(tmp_path)
        except ModelError as error:
            refused += 1
            assert str(error).startswith(str(tmp_path / "last.pt"))
            assert str(error).endswith("start again with --fresh")
    assert refused >= 50  # the files that were cut, at least


def test_a_pickle_in_the_place_of_the_weights_is_not_executed(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bomb = pickle.dumps(Bomb(), protocol=2)
    card = checkpoint.finished_card(finished.student)
    card = dataclasses.replace(card, sha256=hashlib.sha256(bomb).hexdigest())
    (tmp_path / "best.safetensors").write_bytes(bomb)
    (tmp_path / "card.json").write_text(card.to_json())
    with pytest.raises(ModelError, match=r"best\.safetensors is not a safetensors"):
        checkpoint.load_run(tmp_path)
    (tmp_path / "last.pt").write_bytes(bomb)
    with pytest.raises(ModelError, match="--fresh"):
        resume(tmp_path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(bomb)
    assert (tmp_path / "executed").exists()  # it would have worked


def test_the_settings_decide_whether_a_run_goes_on(tmp_path):
    workspace = Workspace(tmp_path)
    first = opened(workspace)
    assert first.name == "teacher"
    assert opened(workspace, dataclasses.replace(CONFIG, seed=1)).name == "teacher-2"
    assert opened(workspace) == first
    assert opened(workspace, fresh=True).name == "teacher-3"
    assert opened(workspace, fresh=True).name == "teacher-4"
    (opened(workspace) / "card.json").write_text("{}")  # finished
    assert [opened(workspace).name, opened(workspace, fresh=True).name] == ["teacher-3", "teacher-5"]
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"config.json", "card.json"}


class OtherRank:
    """What a process that is not the first one sees of Fabric."""

    is_global_zero = False

    def __init__(self, name, settings) -> None:
        self._first = (name, settings)

    def broadcast(self, value):
        return self._first


def test_processes_train_together_only_on_the_same_things(tmp_path):
    workspace = Workspace(tmp_path)
    with checkpoint.open_run(workspace, "teacher", CONFIG, False, OtherRank("teacher-3", CONFIG.to_dict())) as run:
        assert run == tmp_path / "teacher-3"
    other = CONFIG.to_dict() | {"data_hash": "of another machine", "lr": 1}
    with (
        pytest.raises(UsageError, match=r"differs from the first .* data_hash, lr: "),
        checkpoint.open_run(workspace, "teacher", CONFIG, False, OtherRank("teacher", other)),
    ):
        pass
    assert list(tmp_path.iterdir()) == []  # the first process makes folders


def test_a_run_has_one_process_at_a_time(tmp_path):
    workspace = Workspace(tmp_path)
    with checkpoint.open_run(workspace, "teacher", CONFIG, False, ON_CPU.fabric) as run:
        with pytest.raises(UsageError) as caught:
            opened(workspace)
        assert re.fullmatch(
            rf"process {os.getpid()} on .* is training {run} with the same .*: wait for it, .* --fresh",
            str(caught.value),
        )
        assert opened(workspace, fresh=True).name == "teacher-2"
        assert opened(workspace, dataclasses.replace(CONFIG, seed=1)).name == "teacher-3"
    (tmp_path / "teacher-2" / "card.json").write_text("{}")
    assert opened(workspace) == run


def test_a_run_that_ends_while_another_process_reaches_for_it_is_not_opened_again(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path)
    first, lock = opened(workspace), checkpoint.locked

    def finishes_first(path, doing):
        (path.parent / "card.json").write_text("{}")
        return lock(path, doing)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "locked", finishes_first)
        assert opened(workspace).name == "teacher-2"
    assert sorted(path.name for path in first.iterdir()) == ["card.json", "config.json"]


@pytest.mark.parametrize("left", [[], ["lock"], [".edgecxr-0123456789abcdef.tmp", "lock"]])
def test_a_folder_that_a_kill_left_empty_is_used(tmp_path, left):
    run = Workspace(tmp_path).new_run("teacher")
    for name in left:
        (run / name).write_text("half")
    assert opened(Workspace(tmp_path)) == run
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_a_folder_of_somebody_else_is_not_used(tmp_path):
    (Workspace(tmp_path).new_run("teacher") / "thesis.tex").write_text("years of work")
    assert opened(Workspace(tmp_path)).name == "teacher-2"


@pytest.mark.parametrize("text", [b"", b"\xff", b'{"speed": 1}', b'{"data": "x", "data_hash": "y", "arch": "huge"}'])
def test_an_interrupted_run_of_another_version_is_left_alone(tmp_path, text):
    workspace = Workspace(tmp_path)
    old = workspace.new_run("teacher")
    (old / "config.json").write_bytes(text)
    assert opened(workspace).name == "teacher-2"
    assert (old / "config.json").read_bytes() == text


def test_a_finished_run_opens_as_a_backend(finished):
    model, card = checkpoint.load_run(finished.student)
    assert not model.training
    assert card.labels == (*LABELS, "Edema")
    assert card.sha256 == hashlib.sha256((finished.student / "best.safetensors").read_bytes()).hexdigest()
    images = np.random.default_rng(0).random((2, 1, 28, 28), dtype=np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images))[0].numpy()
    assert np.array_equal(open_backend("torch", finished.student).run(images).findings, expected)


def test_a_run_that_is_not_finished_says_how_to_finish_it(tmp_path):
    with pytest.raises(ModelError, match=r"no card\.json.*type the command .*once more"):
        open_backend("torch", tmp_path)


def test_settings_that_cannot_be_do_not_leave_a_folder(tmp_path):
    with pytest.raises(UsageError):
        opened(Workspace(tmp_path), name="../outside")
    assert list(tmp_path.iterdir()) == []


ENDLESS = {
    "depth": {"depth": 10**6}, "many blocks": {"depth": 100}, "wide": {"arch": "base"}, "no such width": {"arch": "x"},
    "large image": {"size": 1 << 20, "patch": 1 << 19, "tokens": 4}, "many tokens": {"patch": 1, "tokens": 784},
    "one large patch": {"size": 1 << 30, "patch": 1 << 30, "tokens": 1},
    "upsampled": {"input": "upsample", "patch": 1}, "labels": {"labels": [str(number) for number in range(900)]},
    "stem": {"stem": "conv"},
}  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
def test_a_card_of_a_larger_model_than_the_file_s_takes_neither_memory_nor_time(finished, tmp_path, monkeypatch, kind):
    run = shutil.copytree(finished.student, tmp_path / "run")
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps(card | ENDLESS[kind]))
    built = []
    monkeypatch.setattr(checkpoint, "build", lambda *args: built.append(build(*args)) or built[-1])
    start = time.process_time()
    with pytest.raises(EdgeCxrError):
        checkpoint.load_run(run)
    assert time.process_time() - start < 5
    assert all(value.is_meta for model in built for value in model.parameters())


def test_weights_larger_than_any_are_not_hashed(finished, tmp_path, monkeypatch):
    run = shutil.copytree(finished.student, tmp_path / "run")
    monkeypatch.setattr(checkpoint, "sha256_of", lambda path: pytest.fail("read"))
    os.truncate(run / "best.safetensors", 1 << 40)
    with pytest.raises(ModelError, match="larger than any model"):
        checkpoint.load_run(run)

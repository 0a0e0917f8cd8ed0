from __future__ import annotations

import csv
import math
import re
import weakref

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgecxr.distill.base import supervised
from edgecxr.errors import CheckFailed, InputError, UsageError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train import batches, loop
from edgecxr.train.batches import Batches, view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epochs.validation import check_splits, val_aurocs, val_logits
from edgecxr.train.loop import fit, learning_rate
from tests.conftest import striped, write_prepared

CPU = Device(torch.device("cpu"), "fp32")
SETTINGS = {"size": 28, "patch": 14, "depth": 2, "init": "random", "epochs": 3, "batch": 10, "augment": 0.0}


def run_fit(run, prepared, spoil=None, progress=lambda *_: None, tensorboard=False, **changes) -> TwoHeadViT:
    """Train a small model; `spoil(step, model, loss)` may change the loss or the weights."""
    run.mkdir(exist_ok=True)
    config = TrainConfig(prepared.name, prepared.hash, **SETTINGS | changes)
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 14, len(prepared.labels), 2)
    train, val = (Batches(prepared, split, config.batch, CPU.torch) for split in ("train", "val"))
    learner = Learner(model, spoil)
    fit(run, config, CPU, learner, train, val, progress, tensorboard)
    return model


class Learner(nn.Module):
    """Supervised training whose loss or weights `spoil(step, model, loss)` may change, steps counted from 1."""

    def __init__(self, model: TwoHeadViT, spoil=None) -> None:
        super().__init__()
        self.model = model
        self.spoil = spoil
        self.step = 0

    def forward(self, batch):
        parts = supervised(self.model.trace(view(batch.base, 28)), batch.targets, batch.abnormal)
        loss = parts["bce_findings"] + parts["bce_abnormal"]
        self.step += 1
        return {"loss": self.spoil(self.step, self.model, loss) if self.spoil else loss} | parts


def history(run):
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_rate_rises_over_the_warm_up_and_ends_near_zero():
    config = TrainConfig("d", "h", lr=2.0, warmup=0.25)
    rates = [learning_rate(config, step, 8) for step in range(9)]
    cosine = [1 + math.cos(math.pi * i / 6) for i in range(7)]
    assert rates == pytest.approx([1.0, 2.0, *cosine])
    assert rates[-1] == 0
    plain = TrainConfig("d", "h", lr=2.0, warmup=0.0)
    assert learning_rate(plain, 0, 8) == 2.0
    assert learning_rate(plain, 4, 8) == pytest.approx(1.0)
    assert learning_rate(plain, 0, 1) == 2.0  # one step in all


def test_validation_by_hand(tmp_path):
    images, _, _, _ = striped(8)
    nan = math.nan
    targets = np.array([[1, 0], [1, 0], [0, 0], [0, nan]] * 2, np.float32)
    abnormal = np.array([1, 0, 1, nan] * 2, np.float32)
    prepared = write_prepared(tmp_path / "x", images, targets, abnormal, ["val"] * 4 + ["train"] * 4)
    val = Batches(prepared, "val", 4, CPU.torch)
    logits = np.array([[3, 9, 0], [1, 8, 1], [2, 7, 2], [0, 6, 3]], np.float32)
    # Label 1: three of four pairs; label 2 has one class; abnormal: scores 0 and 2 against 1.
    assert val_aurocs(val, logits) == (0.75, 0.5)


def test_validation_sees_the_films_in_order_and_leaves_dropout_and_gradients_out(clinic):
    model = TwoHeadViT("tiny", 28, 14, len(clinic.labels), 2).train()
    logits = val_logits(model, Batches(clinic, "val", 5, CPU.torch), 28, CPU)
    rows = clinic.rows("val")
    with torch.no_grad():
        findings, abnormal, *_ = model(view(torch.from_numpy(clinic.images[rows]).float().unsqueeze(1), 28))
    assert logits.shape == (len(rows), 4)
    assert np.allclose(logits[:, :3], findings.numpy(), atol=1e-5)
    assert np.allclose(logits[:, 3], abnormal.numpy(), atol=1e-5)


@pytest.mark.parametrize(("clip", "largest"), [(0.0, None), (0.5, 0.5), (1e9, None)])
def test_a_step_s_gradient_is_scaled_down_to_the_largest_norm(tmp_path, prepared, monkeypatch, clip, largest):
    norms = []
    step = torch.optim.AdamW.step

    def watched(optimizer, *args, **kwargs):
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])).item())
        return step(optimizer, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    run_fit(tmp_path / "run", prepared, lambda step, model, loss: 100 * loss, epochs=1, clip=clip)
    assert len(norms) == 3
    if largest:
        assert norms == pytest.approx([largest] * 3, rel=1e-4)
    else:
        assert min(norms) > 10


def test_history_has_the_means_of_an_epoch(tmp_path, prepared):
    losses = []

    def note(step, model, loss):
        losses.append(loss.item())
        return loss

    run_fit(tmp_path / "run", prepared, note, epochs=2)
    rows = history(tmp_path / "run")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert len(losses) == 6  # thirty films in batches of ten, twice
    assert [float(row["loss"]) for row in rows] == pytest.approx([np.mean(losses[:3]), np.mean(losses[3:])], rel=1e-6)
    for row in rows:
        assert float(row["bce_findings"]) + float(row["bce_abnormal"]) == pytest.approx(float(row["loss"]), rel=1e-5)
        both = float(row["val_auroc_findings"]), float(row["val_auroc_abnormal"])
        assert float(row["score"]) == pytest.approx(np.mean(both))


def test_the_weights_of_the_best_epoch_are_kept_not_the_last(tmp_path, prepared):
    kept = {}

    def spoil(step, model, loss):
        if step == 4:  # after the first epoch
            kept.update({name: value.clone() for name, value in model.state_dict().items()})
        # What is learnt in the first epoch is unlearnt in the others.
        return loss if step <= 3 else -loss

    run_fit(tmp_path / "run", prepared, spoil, lr=2e-3, warmup=0.0, epochs=3)
    rows = history(tmp_path / "run")
    assert float(rows[0]["score"]) > max(float(row["score"]) for row in rows[1:])
    best = load_file(tmp_path / "run" / "best.safetensors")
    assert best.keys() == kept.keys()
    assert all(torch.equal(best[name], kept[name]) for name in best)


def test_weight_decay_shrinks_matrices_and_no_embedding_bias_or_norm(tmp_path, prepared):
    torch.manual_seed(0)
    before = TwoHeadViT("tiny", 28, 14, len(prepared.labels), 2).state_dict()
    # Without a gradient, decay is all that happens.
    model = run_fit(tmp_path / "run", prepared, lambda step, model, loss: loss * 0, lr=0.01, weight_decay=0.1)
    for name, value in model.state_dict().items():
        if name in ("vit.cls_token", "vit.pos_embed") or value.ndim == 1:
            assert torch.equal(value, before[name]), name
        else:
            assert 0.99 < (value.norm() / before[name].norm()).item() < 0.9999, name


def test_a_loss_that_turns_nan_leaves_the_epochs_before_it(tmp_path, prepared):
    run = tmp_path / "run"
    with pytest.raises(CheckFailed, match=r"step 5 on \(epoch 2, .*step 2 of 3; epoch 1 .*kept in .*run\): lower"):
        run_fit(run, prepared, lambda step, model, loss: loss * math.nan if step == 5 else loss)
    assert len(history(run)) == 1
    state = torch.load(run / "last.pt", weights_only=True)["learner"]
    for weights in (state, load_file(run / "best.safetensors")):
        assert all(value.isfinite().all() for value in weights.values())


def test_weights_that_the_last_update_of_an_epoch_spoils_are_not_kept(tmp_path, prepared):
    run = tmp_path / "run"

    def spoil(step, model, loss):
        # The loss of the sixth step, the last of epoch 2, is fine; its gradient is not.
        if step == 6:
            model.findings_head.weight.register_hook(lambda gradient: gradient * math.nan)
        return loss

    with pytest.raises(CheckFailed, match=r"step 6 on \(epoch 2, .*step 3 of 3; epoch 1 .*kept"):
        run_fit(run, prepared, spoil)
    assert len(history(run)) == 1
    state = torch.load(run / "last.pt", weights_only=True)["learner"]
    for weights in (state, load_file(run / "best.safetensors")):
        assert all(value.isfinite().all() for value in weights.values())


def test_without_two_classes_in_validation_the_latest_weights_are_kept(tmp_path):
    images, targets, abnormal, splits = striped(40)
    inside = np.array(splits) == "val"
    targets[inside], abnormal[inside] = 0, 0
    prepared = write_prepared(tmp_path / "x", images, targets, abnormal, splits)
    model = run_fit(tmp_path / "run", prepared, epochs=2)
    assert [row["score"] for row in history(tmp_path / "run")] == ["nan", "nan"]
    best = load_file(tmp_path / "run" / "best.safetensors")
    assert all(torch.equal(best[name], value) for name, value in model.state_dict().items())


def test_progress_counts_the_steps_and_names_the_epoch(tmp_path, prepared):
    calls = []
    run_fit(tmp_path / "run", prepared, progress=lambda *call: calls.append(call), epochs=2)
    assert [done for done, _, _ in calls] == [1, 2, 3, 4, 5, 6]
    assert {total for _, total, _ in calls} == {6}
    assert [note.split(" loss")[0] for _, _, note in calls] == ["epoch 1/2"] * 3 + ["epoch 2/2"] * 3
    losses = [float(row["loss"]) for row in history(tmp_path / "run")]
    assert [float(calls[at][2].split()[-1]) for at in (2, 5)] == pytest.approx(losses, abs=6e-4)


def test_abnormal_alone_is_something_to_learn(tmp_path):
    images, targets, abnormal, splits = striped(24)
    for name, column, learnable in (("some", abnormal, True), ("none", abnormal * math.nan, False)):
        prepared = write_prepared(tmp_path / name, images, targets * math.nan, column, splits)
        train, val = (Batches(prepared, split, 8, CPU.torch) for split in ("train", "val"))
        if learnable:
            check_splits(train, val, name)
        else:
            with pytest.raises(InputError, match=r"data set none has only one class .*training split") as error:
                check_splits(train, val, name)
            assert error.value.reason == "dataset"


def test_a_long_epoch_of_nan_is_not_trained_to_its_end(tmp_path, prepared, monkeypatch):
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    done = []
    with pytest.raises(CheckFailed, match="from step 1 on"):
        run_fit(tmp_path / "run", prepared, lambda step, model, loss: loss * math.nan, lambda *call: done.append(call))
    assert len(done) == 1  # two of three steps, the second not reported


def test_a_batch_that_does_not_fit_into_memory_names_one_that_does(tmp_path, prepared):
    class Small(Learner):
        def forward(self, batch):
            if len(batch.base) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().forward(batch)

    config = TrainConfig(prepared.name, prepared.hash, **SETTINGS)
    train, val = (Batches(prepared, split, config.batch, CPU.torch) for split in ("train", "val"))
    learner = Small(TwoHeadViT("tiny", 28, 14, len(prepared.labels), 2))
    with pytest.raises(UsageError) as caught:
        fit(tmp_path, config, CPU, learner, train, val, lambda *_: None)
    assert re.fullmatch(r"a batch .*not fit .* cpu: --batch 2 does, as tried.*", str(caught.value))
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert not list(tmp_path.glob("*.pt"))


class Full(torch.autograd.Function):
    """Lets a batch of up to three through, and has no memory for the gradients of a larger one."""

    @staticmethod
    def forward(context, loss, count, graphs):
        graphs.append(weakref.ref(context))
        context.count = count
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        if context.count > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return gradient, None, None


def test_a_backward_pass_that_does_not_fit_lets_go_of_its_batch_before_smaller_ones_are_tried(tmp_path, prepared):
    graphs = []

    class Small(Learner):
        def forward(self, batch):
            assert not any(graph() for graph in graphs), "an earlier batch still fills the memory"
            parts = super().forward(batch)
            return parts | {"loss": Full.apply(parts["loss"], len(batch.base), graphs)}

    config = TrainConfig(prepared.name, prepared.hash, **SETTINGS)
    train, val = (Batches(prepared, split, config.batch, CPU.torch) for split in ("train", "val"))
    learner = Small(TwoHeadViT("tiny", 28, 14, len(prepared.labels), 2))
    with pytest.raises(UsageError, match="--batch 2 does, as tried"):
        fit(tmp_path, config, CPU, learner, train, val, lambda *_: None)
    assert len(graphs) == 3  # ten films, five, two


def test_images_that_do_not_fit_by_themselves_give_a_smaller_batch_to_try(tmp_path, prepared, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(batches, "augment", full)
    with pytest.raises(UsageError, match=r"images of a batch .*memory of cpu: try --batch 5"):
        run_fit(tmp_path / "run", prepared, augment=1.0)


def test_the_cpu_s_own_words_for_no_memory_are_understood_and_other_errors_are_not_hidden(tmp_path, prepared):
    def full(step, model, loss):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes.")

    with pytest.raises(UsageError, match="not even one image"):
        run_fit(tmp_path / "run", prepared, full)

    def broken(step, model, loss):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_fit(tmp_path / "other", prepared, broken)


def test_each_epoch_has_a_line_with_its_own_numbers(tmp_path, prepared, capsys):
    run_fit(tmp_path / "run", prepared, epochs=3)
    heads, *lines = capsys.readouterr().err.splitlines()[2:]
    assert heads.split() == ["epoch", "loss", "findings", "abnormal", "images/s", "waiting"]
    rows = history(tmp_path / "run")
    assert len(lines) == len(rows) == 3
    best = max(rows, key=lambda row: float(row["score"]))
    for line, row in zip(lines, rows, strict=True):
        epoch, loss, findings, abnormal, speed, waiting, *_ = line.split()
        assert epoch == f"{row['epoch']}/3" and len(line) <= 60
        assert float(loss) == pytest.approx(float(row["loss"]), abs=6e-4)
        assert float(findings) == pytest.approx(float(row["val_auroc_findings"]), abs=6e-4)
        assert float(abnormal) == pytest.approx(float(row["val_auroc_abnormal"]), abs=6e-4)
        assert float(speed) == pytest.approx(float(row["images_per_s"]), abs=0.6)
        assert 0 < float(row["data_share"]) < 1 and waiting == f"{float(row['data_share']):.0%}"
    assert lines[0].endswith("*") and lines[int(best["epoch"]) - 1].endswith("*")
    assert not any(line.endswith("*") for line in lines[int(best["epoch"]) :])


@pytest.mark.parametrize(("steps", "kept"), [(1, "nothing"), (4, "epoch 1 is kept"), (7, "epochs 1 to 2")])
def test_an_interrupted_run_says_what_it_keeps(tmp_path, prepared, capsys, steps, kept):
    def interrupt(done, total, note):
        if done == steps:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(tmp_path / "run", prepared, progress=interrupt, epochs=3)
    line = capsys.readouterr().err.splitlines()[-1]
    assert kept in line and (str(tmp_path / "run") in line) == (steps > 3)


def test_tensorboard_gets_every_epoch_once_however_often_the_run_is_begun(tmp_path, prepared):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def interrupt(done, total, note):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(tmp_path / "run", prepared, progress=interrupt, tensorboard=True, epochs=3)
    run_fit(tmp_path / "run", prepared, tensorboard=True, epochs=3)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = history(tmp_path / "run")
    for column in ("loss", "val_auroc_findings", "lr"):
        scalars = events.Scalars(column)
        assert [scalar.step for scalar in scalars] == [1, 2, 3]
        assert [scalar.value for scalar in scalars] == pytest.approx([float(row[column]) for row in rows], rel=1e-5)

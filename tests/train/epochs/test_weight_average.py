"""--ema: the average is what is validated, kept and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.train.batches import Batches
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.epochs.validation import val_aurocs, val_logits
from edgecxr.train.epochs.weight_average import WeightAverage
from edgecxr.train.loop import fit
from edgecxr.train.teacher import Supervised, train_teacher
from edgecxr.workspace import Workspace

CPU = Device(torch.device("cpu"), "fp32")


def test_the_average_is_that_of_the_formula_and_its_memory_grows_from_nothing():
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 14, 2, 2)
    average = WeightAverage(model, 0.3, CPU)
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    for step, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 0.3, 0.3)):
        with torch.no_grad():
            for value in model.parameters():
                value.add_(torch.randn_like(value))
        average.update(model, step)
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in average.model.state_dict().items():
        assert torch.allclose(value, expected[name], atol=1e-6), name
    assert not any(value.requires_grad for value in average.model.parameters())
    assert not average.model.training


class RecordingLearner(nn.Module):
    """Learner that records its model's weights after each step, in the next one."""

    def __init__(self, model: TwoHeadViT, size: int) -> None:
        super().__init__()
        self.step = Supervised(model, size)
        self.model = model
        self.states: list[dict[str, torch.Tensor]] = []

    def forward(self, batch):
        self.states.append({name: value.detach().clone() for name, value in self.model.state_dict().items()})
        return self.step(batch)


@pytest.mark.parametrize("stem", ["patch", "conv"])
def test_what_is_validated_and_kept_is_the_average(tmp_path, prepared, stem):
    config = TrainConfig(prepared.name, prepared.hash, size=28, patch=4, depth=2, init="random", epochs=1, batch=6,
                         augment=0.0, ema=0.5, stem=stem, lr=5e-3)  # fmt: skip
    torch.manual_seed(0)
    model = build(config, len(prepared.labels))
    train, val = (Batches(prepared, split, config.batch, CPU.torch) for split in ("train", "val"))
    learner = RecordingLearner(model, 28)
    fit(tmp_path, config, CPU, learner, train, val, lambda *_: None)
    values = [*learner.states, dict(model.state_dict())]
    expected = {name: value.float() for name, value in values[0].items()}
    for step, value in enumerate(values[1:]):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {name: decay * expected[name] + (1 - decay) * value[name].float() for name in expected}
    kept = load_file(tmp_path / "best.safetensors")
    counters = [name for name in kept if not kept[name].is_floating_point()]
    assert bool(counters) == (stem == "conv") and all(kept[name] == len(values) - 1 for name in counters)
    for name in kept.keys() - set(counters):
        assert torch.allclose(kept[name], expected[name], atol=1e-5), name
    assert not torch.allclose(kept["findings_head.weight"], model.state_dict()["findings_head.weight"], atol=1e-4)
    judge = build(config, len(prepared.labels))
    judge.load_state_dict(kept)
    row = (tmp_path / "history.csv").read_text().splitlines()[1].split(",")
    columns = (tmp_path / "history.csv").read_text().splitlines()[0].split(",")
    of_average = val_aurocs(val, val_logits(judge, val, 28, CPU))
    assert float(row[columns.index("val_auroc_findings")]) == pytest.approx(of_average[0])


def test_an_interrupted_run_goes_on_with_its_average(tmp_path, prepared):
    config = TrainConfig(prepared.name, prepared.hash, patch=56, depth=2, init="random", epochs=2, batch=15,
                         augment=0.0, ema=0.9, lr=5e-3)  # fmt: skip

    def kill(done: int, total: int, note: str) -> None:
        if done == 3:
            raise InterruptedError

    def kept(run: Path) -> dict[str, torch.Tensor]:
        return load_file(run / "best.safetensors")

    whole = train_teacher(Workspace(tmp_path / "whole"), prepared, config, CPU, lambda *_: None)
    workspace = Workspace(tmp_path / "parts")
    with pytest.raises(InterruptedError):
        train_teacher(workspace, prepared, config, CPU, kill)
    resumed = train_teacher(workspace, prepared, config, CPU, lambda *_: None)
    ours, two = kept(whole), kept(resumed)
    assert all(torch.equal(ours[name], two[name]) for name in ours)
    average = torch.load(whole / "last.pt", weights_only=True)["average"]
    again = torch.load(resumed / "last.pt", weights_only=True)["average"]
    assert all(torch.equal(average[name], again[name]) for name in average)

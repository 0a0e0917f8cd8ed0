"""The convolutional stem: its shapes, what its batch norms become, and from whom it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from edgecxr.errors import UsageError
from edgecxr.models.stem import LEARNED, LEARNED_EPOCHS, learned_from_random, stages_of, without_batch_norm
from edgecxr.models.vit import TwoHeadViT
from edgecxr.models.weights import start_from


def convolutional(size: int, patch: int, **changes) -> TwoHeadViT:
    """Return a model whose batch norms have seen films."""
    model = TwoHeadViT("tiny", size, patch, labels=2, depth=2, stem="conv", **changes)
    for _ in range(3):
        model.trace(torch.rand(8, 1, size, size))
    return model.eval()


def widths(model: TwoHeadViT) -> list[int]:
    return [layer.out_channels for layer in model.vit.patch_embed.modules() if isinstance(layer, nn.Conv2d)]


@pytest.mark.parametrize(
    ("size", "patch", "grid", "expected"),
    [
        (224, 32, 7, [12, 24, 48, 96, 192, 192]),
        (224, 16, 14, [24, 48, 96, 192, 192]),
        (112, 16, 7, [24, 48, 96, 192, 192]),
        (56, 8, 7, [48, 96, 192, 192]),
        (28, 4, 7, [96, 192, 192]),
        (28, 2, 14, [192, 192]),
        (448, 64, 7, [6, 12, 24, 48, 96, 192, 192]),
    ],
)
def test_each_stage_halves_the_image_and_doubles_the_channels(size, patch, grid, expected):
    model = convolutional(size, patch)
    assert widths(model) == expected
    trace = model.trace(torch.rand(2, 1, size, size))
    assert [block.shape for block in trace.blocks] == [(2, 1 + grid**2, 192)] * 2
    findings, abnormal, attention, features = model(torch.rand(2, 1, size, size))
    assert (findings.shape, abnormal.shape, attention.shape) == ((2, 2), (2,), (2, grid, grid))
    assert features.shape == (2, 4 * 192)


def test_an_upsampling_model_has_the_stages_of_the_enlarged_image():
    assert widths(convolutional(28, 32, input="upsample")) == [12, 24, 48, 96, 192, 192]


def test_stages_make_tokens_of_powers_of_two_only():
    by_patch = {patch: stages for patch in range(-3, 300) if (stages := stages_of(patch)) is not None}
    assert by_patch == {2: 1, 4: 2, 8: 3, 16: 4, 32: 5, 64: 6, 128: 7, 256: 8}


@pytest.mark.parametrize(
    ("run", "films"),
    [
        ("kermany-28", "4,628 children's films at 28 px"),
        ("kermany-224", "the same at 224 px"),
        ("phantom-28", "7,195 synthetic films at 28 px"),
    ],
)
def test_what_is_said_of_the_stems_is_what_the_records_say(run, films):
    records = Path(__file__).parents[2] / "benchmarks" / "results" / "evidence" / "stem"
    read = {stem: json.loads((records / f"{run}-{stem}-s0.json").read_text()) for stem in ("patch", "conv")}
    assert LEARNED[films] == tuple(round(read[stem]["test"]["findings"], 3) for stem in ("patch", "conv"))
    for stem, record in read.items():
        settings = record["spec"]["settings"]
        assert (settings["stem"], settings["start"], settings["epochs"]) == (stem, "random", LEARNED_EPOCHS)
        assert (settings["arch"], settings["depth"], settings["tokens"]) == ("tiny", 6, 49)
        assert f"{record['data']['counts']['train']['images']:,}" in films or films.startswith("the same")
    assert len(LEARNED) == 3 and films in learned_from_random(802) and "802 training films" in learned_from_random(802)


@pytest.mark.parametrize(("size", "patch"), [(28, 28), (28, 7), (28, 1), (224, 56)])
def test_a_grid_that_no_number_of_stages_reaches_is_a_usage_error(size, patch):
    with pytest.raises(UsageError, match=f"tokens of {patch} px"):
        TwoHeadViT("tiny", size, patch, labels=2, depth=2, stem="conv")


def test_more_stages_than_the_width_can_be_halved_are_a_usage_error():
    with pytest.raises(UsageError, match="tokens of 256 px"):
        TwoHeadViT("tiny", 512, 256, labels=2, depth=2, stem="conv")


@pytest.mark.parametrize(("size", "patch"), [(224, 32), (28, 4)])
def test_without_batch_norm_the_answers_are_the_same_and_the_model_is_as_it_was(size, patch):
    model = convolutional(size, patch)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = without_batch_norm(model)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    film = torch.rand(3, 1, size, size)
    for ours, theirs in zip(folded(film), model(film), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_model_with_as_many_stages_starts_from_the_whole_stem():
    teacher, student = convolutional(224, 32), convolutional(224, 32)
    assert start_from(student, teacher.state_dict(), "teacher")
    film = torch.rand(2, 1, 224, 224)
    assert torch.equal(student(film)[0], teacher(film)[0])


@pytest.mark.parametrize(("theirs", "ours"), [("conv", "conv"), ("conv", "patch"), ("patch", "conv")])
def test_of_another_stem_blocks_and_heads_are_taken_and_the_stem_is_left(theirs, ours):
    teacher = TwoHeadViT("tiny", 224, 16, labels=2, depth=4, stem=theirs)
    student = TwoHeadViT("tiny", 28, 4, labels=2, depth=2, stem=ours)
    before = {key: value.clone() for key, value in student.vit.patch_embed.state_dict().items()}
    assert not start_from(student, teacher.state_dict(), "teacher")
    after = student.vit.patch_embed.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in after.items())
    assert torch.equal(student.vit.blocks[1].mlp.fc2.weight, teacher.vit.blocks[3].mlp.fc2.weight)
    assert torch.equal(student.abnormal_head.weight, teacher.abnormal_head.weight)
    assert student.vit.pos_embed.shape == (1, 50, 192)
    assert torch.equal(student.vit.pos_embed[:, 0], teacher.vit.pos_embed[:, 0])

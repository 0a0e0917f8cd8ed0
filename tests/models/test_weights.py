from __future__ import annotations

import json
import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file

from edgecxr.errors import ModelError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.models.weights import pretrained_state, start_from


def test_a_teacher_of_another_resolution_starts_a_student():
    teacher = TwoHeadViT("tiny", 224, 32, labels=2, depth=2)
    student = TwoHeadViT("tiny", 28, 4, labels=2, depth=2)
    start_from(student, teacher.state_dict(), "teacher")
    assert torch.equal(student.vit.blocks[0].attn.qkv.weight, teacher.vit.blocks[0].attn.qkv.weight)
    assert torch.equal(student.findings_head.weight, teacher.findings_head.weight)
    assert student.vit.patch_embed.proj.weight.shape == (192, 1, 4, 4)
    # A flat grey film looks the same at every resolution, and the resampled embedding sees it nearly so.
    grey = (torch.full((1, 1, side, side), 0.7) for side in (28, 224))
    embedded = [m.vit.patch_embed((x - 0.5) / 0.5) for m, x in zip((student, teacher), grey, strict=True)]
    alike = torch.nn.functional.cosine_similarity(embedded[0].flatten(), embedded[1].flatten(), dim=0)
    assert alike > 0.97


def test_colour_weights_answer_a_grey_film_as_before(tmp_path):
    colour = timm.create_model("vit_tiny_patch16_224", num_classes=5).eval()
    save_file(colour.state_dict(), tmp_path / "model.safetensors")
    model = TwoHeadViT("tiny", 224, 16, labels=2).eval()
    start_from(model, pretrained_state("tiny", tmp_path / "model.safetensors"), "file")
    film = torch.rand(1, 1, 224, 224)
    expected = colour.forward_features(((film - 0.5) / 0.5).expand(1, 3, 224, 224))[:, 0]
    assert torch.allclose(model.vit.norm(model.trace(film).blocks[-1])[:, 0], expected, atol=1e-4)


def test_weights_of_another_architecture_are_refused():
    small = TwoHeadViT("small", 28, 4, labels=2, depth=2)
    with pytest.raises(ModelError, match=r"weights of some\.file belong to another architecture"):
        start_from(TwoHeadViT("tiny", 28, 4, labels=2, depth=2), small.state_dict(), "some.file")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_pretrained_takes_safetensors_and_never_a_pickle(tmp_path):
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match=r"weights\.pth is not a safetensors"):
        pretrained_state("tiny", tmp_path / "weights.pth")
    with pytest.raises(ModelError, match=r"none\.safetensors does not exist"):
        pretrained_state("tiny", tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors does not hold .*ViT"):
        pretrained_state("tiny", tmp_path / "other.safetensors")


def test_an_unreachable_hub_offers_the_two_other_ways(monkeypatch):
    monkeypatch.setattr("edgecxr.models.weights._reach_hub", lambda: None)

    def unreachable(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ModelError, match=r"--pretrained FILE, .*--init random"):
        pretrained_state("tiny", None)


def test_a_model_started_from_itself_is_the_same():
    model, copy = (TwoHeadViT("tiny", 56, 14, labels=2, depth=2).eval() for _ in range(2))
    film = torch.rand(2, 1, 56, 56)
    assert not torch.equal(model(film)[0], copy(film)[0])
    start_from(copy, model.state_dict(), "itself")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(model(film), copy(film), strict=True))


def test_heads_of_other_labels_are_left_as_they_are():
    teacher, student = TwoHeadViT("tiny", 28, 14, labels=5, depth=2), TwoHeadViT("tiny", 28, 14, labels=3, depth=2)
    before = student.findings_head.weight.clone()
    start_from(student, teacher.state_dict(), "teacher")
    assert torch.equal(student.findings_head.weight, before)
    assert torch.equal(student.abnormal_head.weight, teacher.abnormal_head.weight)


def test_timm_s_own_weights_fit_a_student_s_grid(tmp_path):
    source = timm.create_model("vit_tiny_patch16_224", depth=2)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    student = TwoHeadViT("tiny", 28, 4, labels=2, depth=2)
    start_from(student, pretrained_state("tiny", tmp_path / "model.safetensors"), "file")
    assert student.vit.pos_embed.shape == (1, 50, 192)
    assert torch.equal(student.vit.pos_embed[:, 0], source.pos_embed[:, 0])  # that of the class token
    assert torch.equal(student.vit.blocks[1].mlp.fc2.weight, source.blocks[1].mlp.fc2.weight)


@pytest.mark.parametrize(
    "changes",
    [
        {"pos_embed": torch.zeros(1, 198, 192)},  # a second token of its own, as distilled DeiT has
        {"pos_embed": torch.zeros(1, 196, 192)},  # no class token
        {"pos_embed": torch.zeros(3)},
        {"patch_embed.proj.weight": torch.zeros(192)},
        {"patch_embed.proj.weight": torch.zeros(192, 3 * 16 * 16)},
        {"blocks.0.ls1.gamma": torch.zeros(192)},
        {"blocks.0.attn.qkv.weight": torch.zeros(3 * 384, 384)},
    ],
    ids=lambda changes: "-".join(f"{name}{tuple(value.shape)}" for name, value in changes.items()),
)
def test_a_file_of_a_relative_is_refused_by_name(tmp_path, changes):
    file = tmp_path / "relative.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", depth=2).state_dict() | changes, file)
    with pytest.raises(ModelError, match=r"relative\.safetensors"):
        start_from(TwoHeadViT("tiny", 28, 4, labels=2, depth=2), pretrained_state("tiny", file), str(file))


@pytest.mark.parametrize(
    ("config", "taken"),
    [
        ({"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}, True),
        ({"mean": [0.5] * 3, "std": [0.5] * 3}, True),
        ({"data": "phantom", "seed": 0}, True),
        ({"pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}}, False),
        ({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}}, False),
        ({"mean": [0.485, 0.456, 0.406]}, False),
        ({"mean": 3}, False),
        ([1], False),
    ],
)
def test_weights_for_images_of_another_normalisation_are_refused(tmp_path, config, taken):
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", depth=2).state_dict(), file)
    (tmp_path / "config.json").write_text(json.dumps(config))
    if taken:
        assert pretrained_state("tiny", file)
        return
    with pytest.raises(ModelError, match=r"config\.json"):
        pretrained_state("tiny", file)


@pytest.mark.parametrize(("depth", "expected"), [(6, [1, 3, 5, 7, 9, 11]), (4, [2, 5, 8, 11]), (12, list(range(12)))])
def test_a_shallower_model_starts_from_every_nth_block(depth, expected):
    deep, shallow = (TwoHeadViT("tiny", 28, 14, labels=2, depth=blocks) for blocks in (12, depth))
    start_from(shallow, deep.state_dict(), "the teacher")
    for block, number in zip(shallow.vit.blocks, expected, strict=True):
        assert torch.equal(block.mlp.fc1.weight, deep.vit.blocks[number].mlp.fc1.weight)
    assert torch.equal(shallow.vit.norm.weight, deep.vit.norm.weight)
    assert torch.equal(shallow.findings_head.weight, deep.findings_head.weight)


def test_a_deeper_model_cannot_start_from_fewer_blocks():
    deep, shallow = (TwoHeadViT("tiny", 28, 14, labels=2, depth=blocks) for blocks in (4, 2))
    with pytest.raises(ModelError, match="matching --arch and --depth"):
        start_from(deep, shallow.state_dict(), "the teacher")

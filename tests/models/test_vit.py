from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from edgecxr.errors import UsageError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train.config import patch_of


@pytest.mark.parametrize("size", [224, 112, 56, 28])
@pytest.mark.parametrize("tokens", [196, 49, 16])
def test_every_resolution_has_its_token_grid(size, tokens):
    model = TwoHeadViT("tiny", size, patch_of(size, tokens), labels=3, depth=2).eval()
    trace = model.trace(torch.rand(2, 1, size, size))
    assert [block.shape for block in trace.blocks] == [(2, 1 + tokens, 192)] * 2
    assert trace.findings.shape == (2, 3)
    assert trace.abnormal.shape == (2,)
    findings, _, attention, features = model(torch.rand(2, 1, size, size))
    assert attention.shape == (2, model.grid, model.grid)
    assert torch.allclose(attention.sum((1, 2)), torch.ones(2))
    assert findings.shape == (2, 3)
    assert features.shape == (2, 4 * 192)


@pytest.mark.parametrize("patch", [4, 7, 28, 2])
def test_features_are_the_first_block_s_output_averaged_over_each_quarter(patch):
    model = TwoHeadViT("tiny", 28, patch, labels=2, depth=3).eval()
    film = torch.rand(2, 1, 28, 28)
    grid, half = model.grid, (model.grid + 1) // 2
    tokens = model.trace(film).blocks[0][:, 1:].reshape(2, grid, grid, 192)
    ends = [slice(0, half), slice(grid - half, grid)]
    expected = torch.stack([tokens[:, rows, columns].mean((1, 2)) for rows in ends for columns in ends], -1)
    features = model(film)[3].reshape(2, 192, -1)
    assert torch.allclose(features, expected if grid > 1 else expected[..., :1], atol=1e-5)


def test_an_upsampling_model_sees_the_enlarged_image_as_the_teacher_would():
    small = TwoHeadViT("tiny", 28, 32, labels=2, depth=2, input="upsample").eval()
    large = TwoHeadViT("tiny", 224, 32, labels=2, depth=2).eval()
    large.load_state_dict(small.state_dict())
    film = torch.rand(2, 1, 28, 28)
    enlarged = F.interpolate(film, (224, 224), mode="bilinear", align_corners=False)
    for ours, theirs in zip(small(film), large(enlarged), strict=True):
        assert torch.equal(ours, theirs)


def test_logits_keep_float32_precision_under_autocast():
    model = TwoHeadViT("tiny", 28, 14, labels=2, depth=2).eval()
    with torch.autocast("cpu", torch.bfloat16):
        trace = model.trace(torch.rand(64, 1, 28, 28))
    assert trace.findings.dtype == trace.abnormal.dtype == torch.float32
    assert (trace.findings != trace.findings.bfloat16().float()).any()


def test_attention_is_that_of_the_last_block():
    model = TwoHeadViT("tiny", 28, 4, labels=2, depth=3).eval()
    attn = model.vit.blocks[-1].attn
    attn.fused_attn = False  # the plain path forms the matrix, which dropout then passes through
    weights = []
    attn.attn_drop.register_forward_hook(lambda module, inputs, output: weights.append(inputs[0]))
    film = torch.rand(3, 1, 28, 28)
    model.trace(film)
    _, _, attention, _ = model(film)
    row = weights[0][:, :, 0, 1:].mean(dim=1)
    expected = (row / row.sum(dim=1, keepdim=True)).reshape(3, 7, 7)
    assert torch.allclose(attention, expected, atol=1e-6)


def test_blocks_are_the_residual_stream_before_the_final_norm():
    model = TwoHeadViT("tiny", 28, 4, labels=2, depth=2).eval()
    trace = model.trace(torch.rand(2, 1, 28, 28))
    token = model.vit.norm(trace.blocks[-1])[:, 0]
    assert torch.allclose(model.findings_head(token), trace.findings, atol=1e-5)


def test_impossible_shapes_are_usage_errors():
    with pytest.raises(UsageError, match="at least 2 blocks"):
        TwoHeadViT("tiny", 28, 4, labels=2, depth=1)
    with pytest.raises(UsageError, match="no whole number"):
        TwoHeadViT("tiny", 28, 5, labels=2)
    with pytest.raises(UsageError, match="tiny, small, base"):
        TwoHeadViT("huge", 28, 4, labels=2)


def test_every_block_s_output_is_traced_and_answers_both_tasks():
    model = TwoHeadViT("tiny", 56, 8, labels=3, depth=3).eval()
    outputs = []
    for block in model.vit.blocks:
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    film = torch.rand(2, 1, 56, 56)
    trace = model.trace(film)
    assert len(trace.blocks) == len(outputs) == 3
    assert all(torch.equal(kept, output) for kept, output in zip(trace.blocks, outputs, strict=True))
    token = model.vit.norm(trace.blocks[-1])[:, 0]
    assert torch.allclose(model.abnormal_head(token)[:, 0], trace.abnormal, atol=1e-5)
    findings, abnormal, *_ = model(film)
    # To answer, the last block runs for the class token alone: the same sums in another order.
    assert torch.allclose(findings, trace.findings, atol=1e-5)
    assert torch.allclose(abnormal, trace.abnormal, atol=1e-5)


def test_attention_equals_a_full_softmax_beside_the_fused_kernel():
    model = TwoHeadViT("tiny", 28, 4, labels=2, depth=2).eval()
    film = torch.rand(2, 1, 28, 28)
    block = model.vit.blocks[-1]
    tokens = block.norm1(model.trace(film).blocks[-2])
    query, key, _ = block.attn.qkv(tokens).reshape(2, 50, 3, 3, 64).permute(2, 0, 3, 1, 4)
    full = torch.softmax(query @ key.transpose(2, 3) / 8, dim=-1)  # 8: the root of 64 dimensions per head
    row = full[:, :, 0].mean(dim=1)[:, 1:]
    assert torch.allclose(model(film)[2].flatten(1), row / row.sum(dim=1, keepdim=True), atol=1e-6)


def test_black_and_white_reach_the_patches_as_minus_one_and_one():
    model = TwoHeadViT("tiny", 28, 14, labels=2, depth=2).eval()
    inputs_of_patches = []
    model.vit.patch_embed.register_forward_pre_hook(lambda module, inputs: inputs_of_patches.append(inputs[0]))
    model.trace(torch.stack([torch.zeros(1, 28, 28), torch.ones(1, 28, 28)]))
    assert (inputs_of_patches[0][0] == -1).all()
    assert (inputs_of_patches[0][1] == 1).all()

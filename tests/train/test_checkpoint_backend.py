from __future__ import annotations

import numpy as np
import torch

from edgecxr.models.vit import TwoHeadViT
from edgecxr.train.checkpoint_backend import TorchBackend


def test_the_backend_gives_numpy_what_the_model_gives_torch():
    model = TwoHeadViT("tiny", 28, 4, labels=3, depth=2).eval()
    images = np.random.default_rng(0).random((5, 1, 28, 28), dtype=np.float32)
    outputs = TorchBackend(model).run(images)
    with torch.no_grad():
        findings, abnormal, attention, features = model(torch.from_numpy(images))
    for ours, theirs, shape in (
        (outputs.findings, findings, (5, 3)),
        (outputs.abnormal, abnormal, (5,)),
        (outputs.attention, attention, (5, 7, 7)),
        (outputs.features, features, (5, 768)),
    ):
        assert ours.dtype == np.float32
        assert ours.shape == shape
        assert np.array_equal(ours, theirs.numpy())
    assert np.allclose(outputs.attention.sum((1, 2)), 1)


def test_images_may_lie_in_any_order_in_memory_and_are_not_changed():
    backend = TorchBackend(TwoHeadViT("tiny", 28, 14, labels=2, depth=2).eval())
    images = np.random.default_rng(1).random((2, 1, 28, 28), dtype=np.float32)
    turned = images.transpose(0, 1, 3, 2)
    before = images.copy()
    assert np.array_equal(backend.run(turned).findings, backend.run(turned.copy()).findings)
    assert not np.array_equal(backend.run(turned).findings, backend.run(images).findings)
    assert np.array_equal(images, before)

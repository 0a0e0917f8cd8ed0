"""A checkpoint behind the `Backend` protocol: what every exported artefact is compared with."""

from __future__ import annotations

import numpy as np
import torch

from edgecxr.engines.backend import Outputs
from edgecxr.models.vit import TwoHeadViT
from edgecxr.vocabulary import FloatArray


class TorchBackend:
    """Runs a `TwoHeadViT` in float32.

    Args:
        model: in eval mode.
        device: where to run it.
    """

    def __init__(self, model: TwoHeadViT, device: str = "cpu") -> None:
        self.device = torch.device(device)
        # In float32: by default torch convolves with a mantissa of 10 bits where the GPU can.
        torch.backends.cudnn.allow_tf32 = False
        self.model = model.to(self.device)

    @torch.inference_mode()
    def run(self, images: FloatArray) -> Outputs:
        """Run images (N, 1, S, S) float32 in [0, 1]."""
        found = self.model(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))
        return Outputs(*(value.cpu().numpy() for value in found))

    def close(self) -> None:
        """Nothing to free."""

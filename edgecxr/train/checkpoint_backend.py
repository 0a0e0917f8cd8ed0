"""A trained checkpoint behind the `Backend` protocol.

Every exported artefact is compared with it.
"""

from __future__ import annotations

import numpy as np
import torch

from edgecxr.engines.backend import Outputs
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train.float32 import full_float32
from edgecxr.vocabulary import FloatArray


class TorchBackend:
    """Backend that runs a `TwoHeadViT` in float32.

    Args:
        model: in eval mode.
        device: torch device to run it on.
    """

    def __init__(self, model: TwoHeadViT, device: str = "cpu") -> None:
        self.device = torch.device(device)
        full_float32()
        self.model = model.to(self.device)

    @torch.inference_mode()
    def run(self, images: FloatArray) -> Outputs:
        """Run images (N, 1, S, S) float32 in [0, 1]."""
        outputs = self.model(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))
        return Outputs(*(value.cpu().numpy() for value in outputs))

    def close(self) -> None:
        """Do nothing: there is nothing to free."""

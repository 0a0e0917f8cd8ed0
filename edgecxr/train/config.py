"""Settings of a training run, checked, and saved beside the weights."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from edgecxr.errors import ModelError, UsageError
from edgecxr.models.stem import stages_of
from edgecxr.models.vit import ARCHS, GRID_OF_TOKENS, input_side
from edgecxr.storage.json_values import parse_json
from edgecxr.vocabulary import INPUTS, STEMS

INITS = ("pretrained", "teacher", "random", "run")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
MAX_DEPTH = 100

CLASS_WEIGHTS = ("none", "balanced")

BEFORE = {"stem": "patch", "clip": 0.0, "class_weights": "none", "ema": 0.0}
"""Settings of runs from before these options existed."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training run.

    The defaults of the schedule are the paper's.

    Attributes:
        data: name of the prepared data set.
        data_hash: hash of its contents; a resumed run must see the same images.
        arch: "tiny", "small" or "base".
        size: side of the image the model sees, in pixels.
        patch: side of a patch, in pixels of the image that the blocks see.
        input: "native", or "upsample": the model enlarges its image to 224 px before it cuts patches.
        stem: "patch", or "conv": convolutions make the tokens, each of `patch` x `patch` pixels.
        depth: number of blocks.
        method: "teacher", or a distillation method.
        teacher: name of the teacher's run.
        teacher_sha256: hash of the teacher's weights.
        init: "pretrained" (ImageNet), "teacher" (the teacher's own weights, resampled), "random", or "run" (those of
            another finished run, resampled).
        pretrained: safetensors file for init "pretrained", of timm or of a run, where None downloads from timm's hub;
            for init "run" the folder of that run.
        init_sha256: hash of the weights of that run.
        epochs: passes over the training split.
        patience: epochs without a better validation after which the run ends; None trains them all.
        batch: images per step.
        lr: peak learning rate of AdamW.
        warmup: share of all steps over which the rate rises linearly; the paper does not mention one.
        weight_decay: of AdamW.
        clip: largest L2 norm of a step's gradient, to which larger gradients are scaled down; 0 does not clip.
        ema: decay of the moving average of the weights that is validated and kept; 0: the weights themselves are.
        class_weights: "none", or "balanced": of each label, films with it count together as much as those without it.
        alpha, beta, gamma: weights of the distillation terms, Eq. 2.
        temperature: softens the logits in the method "hinton".
        trust: factor of the distillation of each finding's logit and of the abnormal logit, from 0 to 1; None: 1.
        labelled: number of training films whose labels are used, chosen by patient; None: all.
        augment: strength of the augmentation; 0 turns it off, 1 is the default.
        precision: "auto" is bf16 on GPUs that have it, fp16 on older ones, fp32 on the CPU.
        seed: of the initial weights, the order of the images and the augmentation.
    """

    data: str
    data_hash: str
    arch: str = "tiny"
    size: int = 224
    patch: int = 16
    input: str = "native"
    stem: str = "patch"
    depth: int = 12
    method: str = "teacher"
    teacher: str | None = None
    teacher_sha256: str | None = None
    init: str = "pretrained"
    pretrained: str | None = None
    init_sha256: str | None = None
    epochs: int = 100
    patience: int | None = None
    batch: int = 64
    lr: float = 5e-4
    warmup: float = 0.05
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    class_weights: str = "none"
    alpha: float = 1.0
    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 4.0
    trust: tuple[float, ...] | None = None
    labelled: int | None = None
    augment: float = 1.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trust is not None:  # a list, where it comes from JSON
            object.__setattr__(self, "trust", tuple(map(float, self.trust)))
        problems = [
            message
            for wrong, message in (
                (self.arch not in ARCHS, f"--arch {self.arch}: there are {', '.join(ARCHS)}"),
                (self.init not in INITS, f"--init {self.init}: there are {', '.join(INITS[:-1])}, or a run"),
                (self.input not in INPUTS, f"--input {self.input}: there are {', '.join(INPUTS)}"),
                (self.stem not in STEMS, f"--stem {self.stem}: there are {', '.join(STEMS)}"),
                (self.precision not in PRECISIONS, f"--precision {self.precision}: there are {', '.join(PRECISIONS)}"),
                (self.epochs < 1, f"--epochs {self.epochs}: at least 1"),
                (self.patience is not None and self.patience < 1, f"--patience {self.patience}: at least 1"),
                (self.batch < 1, f"--batch {self.batch}: at least 1"),
                (not 0 < self.lr < math.inf, f"--lr {self.lr}: more than 0"),
                (not 0 <= self.weight_decay < math.inf, f"weight_decay {self.weight_decay}: at least 0"),
                (not 0 <= self.clip < math.inf, f"--clip {self.clip}: at least 0"),
                (not 0 <= self.ema < 1, f"--ema {self.ema}: from 0 to below 1, such as 0.999"),
                (
                    self.class_weights not in CLASS_WEIGHTS,
                    f"--class-weights {self.class_weights}: there are {', '.join(CLASS_WEIGHTS)}",
                ),
                (not 0 <= self.warmup < 1, f"--warmup {self.warmup}: from 0 to below 1"),
                (not 2 <= self.depth <= MAX_DEPTH, f"--depth {self.depth}: from 2 to {MAX_DEPTH}"),
                (
                    self.patch < 1 or input_side(self.size, self.input) % self.patch != 0,
                    f"patches of {self.patch} px do not tile {input_side(self.size, self.input)} px",
                ),
                (
                    self.stem == "conv" and stages_of(self.patch) is None,
                    f"a convolutional stem makes tokens of 2, 4, 8, 16 ... px, never of {self.patch} px: take "
                    + ("--patch 16 or 32" if self.method == "teacher" else "--tokens 49 or 196")
                    + ", or --stem patch",
                ),
                (
                    self.stem == "conv" and self.init == "pretrained" and self.pretrained is None,
                    "--stem conv has no ImageNet weights, which --paper asks for: add --init random (a student also "
                    "--init teacher), name weights of your own with --pretrained FILE, or take --stem patch",
                ),
                (
                    not all(0 <= weight < math.inf for weight in (self.alpha, self.beta, self.gamma)),
                    "--alpha, --beta and --gamma: at least 0",
                ),
                (not 0 < self.temperature < math.inf, f"--temperature {self.temperature}: more than 0"),
                (self.labelled is not None and self.labelled < 1, f"--labelled {self.labelled}: at least 1"),
                (not all(0 <= weight <= 1 for weight in self.trust or ()), f"trust {self.trust}: from 0 to 1"),
                (not 0 <= self.augment <= 3, f"--augment {self.augment}: from 0 to 3"),
                (self.init == "run" and not self.pretrained, "--init: name the run"),
                (
                    self.pretrained is not None and self.init not in ("pretrained", "run"),
                    "--pretrained goes with --init pretrained",
                ),
            )
            if wrong
        ]
        if problems:
            raise UsageError("; ".join(problems))

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values."""
        return dataclasses.asdict(self) | {"trust": self.trust and list(self.trust)}

    @classmethod
    def from_json(cls, text: str, source: str) -> TrainConfig:
        """Parse config.json.

        Raises:
            ModelError: the text is not the settings of a run.
        """
        try:
            return cls(**(BEFORE | parse_json(text)))
        except (ValueError, TypeError) as error:
            raise ModelError(f"{source} is not the configuration of a training run ({error})") from error


def patch_of(size: int, tokens: int, input: str = "native") -> int:
    """Return the patch side that cuts an image into `tokens` patches.

    Args:
        size: side of the image, in pixels.
        tokens: number of patches; a key of `GRID_OF_TOKENS`.
        input: "native", or "upsample" to enlarge the image to 224 px first.

    Raises:
        UsageError: no such grid.
    """
    grid, side = GRID_OF_TOKENS.get(tokens), input_side(size, input)
    if grid is None or side % grid:
        raise UsageError(f"--tokens {tokens}: there are {', '.join(map(str, GRID_OF_TOKENS))}")
    return side // grid

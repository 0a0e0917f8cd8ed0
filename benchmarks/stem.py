"""What the convolutional stem costs beside the patch embedding, at equal tokens: milliseconds of one core an image.

    python benchmarks/stem.py --out benchmarks/results/cpu-2core/stem.json

Both kinds of a model take turns, each in a training step (forward, backward, clipping, AdamW, without augmentation and
teacher) and in answering images one at a time, as a device does. Ratios are convolutional over patch, of the medians of
one run. Nothing is limited: it costs what it costs, and docs/training.md says what it buys.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ratios import finish, record
from torch import nn

from edgecxr.models.stem import without_batch_norm
from edgecxr.models.vit import TwoHeadViT
from edgecxr.terminal import say
from edgecxr.train.config import patch_of
from edgecxr.train.device import Device
from edgecxr.vocabulary import STEMS

SIZES = (224, 28)
LABELS = 6
CLIP = 1.0


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each kind, after one that does not count")
    parser.add_argument("--batch", type=int, default=64, help="images of a training step")
    parser.add_argument("--single", type=int, default=32, help="images that are answered one at a time in a turn")
    parser.add_argument("--depth", type=int, default=6, help="blocks")
    parser.add_argument("--tokens", type=int, default=49, choices=(196, 49), help="patch tokens")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results = [
        result
        for size in SIZES
        for result in (
            *(compared(f"train {size} px {kind}", trainers(args, size, kind), args) for kind in ("fp32", "bf16")),
            compared(f"answer {size} px fp32", answerers(args, size), args),
        )
    ]
    settings = {key: value for key, value in vars(args).items() if key != "out"} | {"threads": 1, "arch": "tiny"}
    return finish(record("stem", settings, results), args.out)


def compared(name: str, turns: dict[str, Callable[[], int]], args: argparse.Namespace) -> dict[str, Any]:
    """Let both stems take turns; each turn returns how many images it has done."""
    times: dict[str, list[float]] = {stem: [] for stem in turns}
    for number in range(args.rounds + 1):
        for stem, turn in turns.items():
            start = time.perf_counter()
            images = turn()
            if number:
                times[stem].append(1000 * (time.perf_counter() - start) / images)
    medians = {stem: round(statistics.median(values), 3) for stem, values in times.items()}
    ratio = round(medians["conv"] / medians["patch"], 3)
    say(f"{name}: patch {medians['patch']} ms, conv {medians['conv']} ms, ratio {ratio}")
    spread = {stem: [round(min(values), 3), round(max(values), 3)] for stem, values in times.items()}
    return {"name": name, "ms_per_image": medians, "ms_min_max": spread, "conv_over_patch": ratio, "checks": []}


def model(args: argparse.Namespace, size: int, stem: str) -> TwoHeadViT:
    """Return a model from random weights."""
    return TwoHeadViT("tiny", size, patch_of(size, args.tokens), LABELS, args.depth, stem=stem)


def trainers(args: argparse.Namespace, size: int, precision: str) -> dict[str, Callable[[], int]]:
    """Return a training step for each stem."""
    images = torch.rand(args.batch, 1, size, size)
    targets = torch.randint(0, 2, (args.batch, LABELS)).float()

    def step_of(stem: str) -> Callable[[], int]:
        learner = model(args, size, stem).train()
        optimizer = torch.optim.AdamW(learner.parameters())
        device = Device(torch.device("cpu"), precision)

        def step() -> int:
            with device.autocast():
                trace = learner.trace(images)
                loss = nn.functional.binary_cross_entropy_with_logits(trace.findings, targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(learner.parameters(), CLIP)
            optimizer.step()
            return args.batch

        return step

    return {stem: step_of(stem) for stem in STEMS}


def answerers(args: argparse.Namespace, size: int) -> dict[str, Callable[[], int]]:
    """Return for each stem what answers images one at a time, batch norms folded as in an exported file."""
    image = torch.rand(1, 1, size, size)

    def answer_of(stem: str) -> Callable[[], int]:
        folded = without_batch_norm(model(args, size, stem).eval())

        @torch.inference_mode()
        def answer() -> int:
            for _ in range(args.single):
                folded(image)
            return args.single

        return answer

    return {stem: answer_of(stem) for stem in STEMS}


if __name__ == "__main__":
    sys.exit(main())

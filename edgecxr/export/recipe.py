"""Settings of an export: artefacts, tolerances, calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgecxr.bundle.card import MOST_LIMITS, ModelCard
from edgecxr.engines.target import Target
from edgecxr.errors import UsageError
from edgecxr.films.resize import INPUT_SIZES
from edgecxr.storage import settings
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import PRECISIONS

METHODS = ("minmax", "percentile", "entropy")

_MOST_IMAGES = 1_000_000
_MOST_CHOICES = 20
_MOST_LAYERS = 10_000
_LONGEST_LIMIT = 300


@dataclass(frozen=True)
class Recipe:
    """Settings for exporting a run to a bundle.

    Attributes:
        precisions: of the artefacts; "fp32" is always built, since the others are made from it.
        logit_tolerance: largest difference of an FP32 logit from the checkpoint's.
        auroc_tolerance: precision -> largest AUROC drop of either task.
        calibration_images: numbers of training images to try for INT8; a smaller data set is used whole.
        calibration_methods: methods to try for the activation ranges: "minmax", "percentile", "entropy". The pair of
            number and method with the best validation AUROC is used.
        seed: random seed for the choice of calibration images.
        keep_float: number of layers that stay floating point: those that lose most by INT8.
        size: side of the input in px that this recipe is for; None for any.
        tokens: number of patch tokens that this recipe is for; None for any.
        limits: sentences for the card, which each prediction repeats: what the model must not be used for.
    """

    precisions: tuple[str, ...] = PRECISIONS
    logit_tolerance: float = 1e-4
    auroc_tolerance: dict[str, float] = field(default_factory=lambda: {"fp16": 0.005, "int8": 0.01})
    calibration_images: tuple[int, ...] = (500,)
    calibration_methods: tuple[str, ...] = METHODS
    seed: int = 0
    keep_float: int = 0
    size: int | None = None
    tokens: int | None = None
    limits: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lower = ("fp16", "int8")
        problems = [
            message
            for wrong, message in (
                (
                    not set(self.precisions) <= set(PRECISIONS),
                    f"precisions {shown(list(self.precisions))}: there are {', '.join(PRECISIONS)}",
                ),
                (not 0 < self.logit_tolerance < math.inf, f"logit_tolerance {self.logit_tolerance}: more than 0"),
                (
                    not set(self.auroc_tolerance) <= set(lower)
                    or not all(0 <= value <= 1 for value in self.auroc_tolerance.values()),
                    f"auroc_tolerance {shown(self.auroc_tolerance)}: from 0 to 1, for {' and '.join(lower)}",
                ),
                (
                    not 1 <= len(self.calibration_images) <= _MOST_CHOICES
                    or not all(1 <= count <= _MOST_IMAGES for count in self.calibration_images),
                    f"calibration_images {shown(list(self.calibration_images))}: 1 to {_MOST_CHOICES} numbers, from 1 "
                    f"to {_MOST_IMAGES}",
                ),
                (
                    not self.calibration_methods or not set(self.calibration_methods) <= set(METHODS),
                    f"calibration_methods {shown(list(self.calibration_methods))}: there are {', '.join(METHODS)}",
                ),
                (not 0 <= self.seed < 1 << 32, f"seed {shown(self.seed)}: from 0 to {(1 << 32) - 1}"),
                (
                    not 0 <= self.keep_float <= _MOST_LAYERS,
                    f"keep_float {shown(self.keep_float)}: from 0 to {_MOST_LAYERS}",
                ),
                (
                    self.size not in (None, *INPUT_SIZES),
                    f"size {shown(self.size)}: one of {', '.join(map(str, INPUT_SIZES))}",
                ),
                (
                    self.tokens is not None and not 1 <= self.tokens <= 224**2,
                    f"tokens {shown(self.tokens)}: a number of patches",
                ),
                (
                    len(self.limits) > MOST_LIMITS
                    or not all(0 < len(limit) <= _LONGEST_LIMIT and limit.isprintable() for limit in self.limits),
                    f"limits: {MOST_LIMITS} sentences at most, each of 1 to {_LONGEST_LIMIT} printable characters",
                ),
            )
            if wrong
        ]
        if problems:
            raise UsageError("; ".join(problems))

    def tolerance(self, precision: str) -> float:
        """Return the largest AUROC drop allowed for a precision.

        A precision that the recipe does not list has the default tolerance.
        """
        return self.auroc_tolerance.get(precision, Recipe().auroc_tolerance[precision])

    def check(self, card: ModelCard) -> None:
        """Check that the recipe fits a model.

        Raises:
            UsageError: the card has another size or number of tokens.
        """
        for name in ("size", "tokens"):
            expected, actual = getattr(self, name), getattr(card, name)
            if expected not in (None, actual):
                raise UsageError(
                    f"the recipe is for models with {name} {expected}, and {card.name} has {actual}: take another "
                    f"recipe, or leave {name} out of it"
                )


def load_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        UsageError: the file cannot be read, or a key or value is wrong.
    """
    return settings.read(Recipe, path)


def choose(file: Path | None, fp16: bool, int8: bool, keep_float: int | None, target: Target | None = None) -> Recipe:
    """Return the recipe that a command line asks for.

    Args:
        file: a recipe; None means the default, with the precisions worth trying on `target`.
        fp16: build FP16; if both `fp16` and `int8` are false, the recipe decides.
        int8: build INT8.
        keep_float: overrides that of the recipe; None keeps it.
        target: the device; None for any.

    Raises:
        UsageError: the file is no recipe.
    """
    recipe = load_recipe(file) if file else Recipe(precisions=target.precisions if target else PRECISIONS)
    if fp16 or int8:
        flags = {"fp32": True, "fp16": fp16, "int8": int8}
        recipe = replace(recipe, precisions=tuple(name for name in PRECISIONS if flags[name]))
    return recipe if keep_float is None else replace(recipe, keep_float=keep_float)

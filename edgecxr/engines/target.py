"""Export targets: engine, ONNX profile and recommended precisions of a device."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgecxr.errors import UsageError
from edgecxr.storage import settings
from edgecxr.storage.settings import shown
from edgecxr.vocabulary import PRECISIONS

ENGINES = ("tensorrt", "onnxruntime", "openvino")

PROFILES = {"recent": (10, 0), "modern": (8, 6), "legacy": (8, 5)}
"""ONNX profile -> the oldest TensorRT that parses it."""
OLDEST = min(PROFILES.values())
"""The oldest TensorRT that edgecxr can build engines with."""
LARGEST_BATCH = 4096
LARGEST_MEMORY_MIB = 1 << 20

_SHIPPED = Path(__file__).parent / "targets"
_TOO_OLD = "ends at JetPack 4.6, which has Python 3.6 and TensorRT 8.2 without INT8: edgecxr does not run there"
_OUT_OF_SCOPE = {"jetson-nano": f"a Jetson Nano {_TOO_OLD}", "jetson-tx2": f"a Jetson TX2 {_TOO_OLD}"}


@dataclass(frozen=True)
class Target:
    """A device that models are exported for.

    Attributes:
        name: such as "jetson-orin-nano".
        description: one line about the device.
        engine: what runs models there: "tensorrt", "onnxruntime" or "openvino".
        profile: the ONNX that its engine parses: "recent" (opset 20, FP16 scales), "modern" (opset 17,
            LayerNormalization) or "legacy" (opset 13).
        precisions: those worth trying on the device, the recommended one last.
        int8_float: precision of the layers that an INT8 file keeps in floating point: "fp16" or "fp32".
        memory_mib: limit of the builder's workspace in MiB; 0 if no engine is built.
        tensorrt: oldest and newest supported version, such as ("8.5", "10.4"); None for another engine.
        compute_capability: of its GPU, such as "8.7".
        batches: smallest, usual and largest batch of the engine.
        notes: what a user should know before trying, one sentence each.
    """

    name: str
    description: str
    engine: str
    profile: str
    precisions: tuple[str, ...]
    int8_float: str
    memory_mib: int
    tensorrt: tuple[str, str] | None = None
    compute_capability: str | None = None
    batches: tuple[int, int, int] = (1, 8, 64)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        problems = [message for wrong, message in (*self._of_the_model(), *self._of_the_engine()) if wrong]
        if problems:
            raise UsageError("; ".join(problems))

    def _of_the_model(self) -> Iterator[tuple[bool, str]]:
        """Yield (is wrong, message) pairs about the exported files."""
        valid_name = re.fullmatch(r"\w[\w.+-]{0,63}", self.name)
        yield not valid_name, f"name {shown(self.name)}: at most 64 letters, digits, '.', '-', '_'"
        texts = (self.description, *self.notes)
        valid_texts = len(self.notes) <= 20 and all(0 < len(text) <= 500 and text.isprintable() for text in texts)
        yield not valid_texts, "description and notes: printable, 1 to 500 characters each, at most 20 notes"
        yield self.engine not in ENGINES, f"engine {shown(self.engine)}: there are {', '.join(ENGINES)}"
        yield self.profile not in PROFILES, f"profile {shown(self.profile)}: there are {', '.join(PROFILES)}"
        known_precisions = self.precisions and set(self.precisions) <= set(PRECISIONS)
        yield (
            not known_precisions or len(set(self.precisions)) < len(self.precisions),
            f"precisions {shown(list(self.precisions))}: each of {', '.join(PRECISIONS)} at most once, and not none",
        )
        yield self.int8_float not in ("fp16", "fp32"), f"int8_float {shown(self.int8_float)}: there are fp16, fp32"

    def _of_the_engine(self) -> Iterator[tuple[bool, str]]:
        """Yield (is wrong, message) pairs about the engine."""
        yield (
            not 0 <= self.memory_mib <= LARGEST_MEMORY_MIB,
            f"memory_mib {shown(self.memory_mib)}: from 0 to {LARGEST_MEMORY_MIB}",
        )
        smallest, usual, largest = self.batches
        yield (
            not 1 <= smallest <= usual <= largest <= LARGEST_BATCH,
            f"batches {shown(list(self.batches))}: smallest, usual and largest, from 1 to {LARGEST_BATCH} and rising",
        )
        capability = self.compute_capability
        yield (
            capability is not None and not _VERSION.fullmatch(capability),
            f"compute_capability {shown(capability)}: such as 8.7",
        )
        yield (
            (self.engine == "tensorrt") != (self.tensorrt is not None),
            "tensorrt: the oldest and newest version, for engine tensorrt and no other",
        )
        if self.tensorrt is None:
            return
        prefix = f"tensorrt {shown(list(self.tensorrt))}"
        if not all(_VERSION.fullmatch(version) for version in self.tensorrt):
            yield True, f"{prefix}: two versions such as 8.5"
            return
        oldest, newest = (tuple(map(int, version.split("."))) for version in self.tensorrt)
        yield not OLDEST <= oldest <= newest, f"{prefix}: the oldest, from {_dotted(OLDEST)}, then the newest"
        parsed_from = PROFILES.get(self.profile, OLDEST)
        yield (
            oldest < parsed_from,
            f"profile {self.profile!r}: TensorRT parses it from {_dotted(parsed_from)}, not {self.tensorrt[0]}",
        )


_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def target_names() -> tuple[str, ...]:
    """Return the names of the targets that come with edgecxr."""
    return tuple(sorted(path.stem for path in _SHIPPED.glob("*.toml")))


def load_target(name_or_file: str) -> Target:
    """Return a target that comes with edgecxr, or read a TOML file.

    Args:
        name_or_file: such as "jetson-orin-nano" or "my-board.toml".

    Raises:
        UsageError: there is no such target, or a key or value of the file is wrong.
    """
    if name_or_file in target_names():
        return settings.read(Target, _SHIPPED / f"{name_or_file}.toml")
    if os.path.isfile(name_or_file):
        return settings.read(Target, Path(name_or_file))
    if name_or_file in _OUT_OF_SCOPE:
        raise UsageError(f"no target {name_or_file!r}: {_OUT_OF_SCOPE[name_or_file]}")
    near = difflib.get_close_matches(name_or_file, target_names(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"no target {name_or_file!r}{hint} (there are: {', '.join(target_names())}; or a TOML file)")

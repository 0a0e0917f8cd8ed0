"""Records of TensorRT engines: their origin, and whether they may load.

An engine is code, so only engines that this user built on this machine are loaded. Each record carries a seal made with
a key that never leaves the machine, and holds the checksums of the engine and of the ONNX file it was built from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr.bundle.model_file import ModelFile
from edgecxr.errors import ModelError, brief
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.json_values import read_json
from edgecxr.storage.private import create_private, read_private, state_folder
from edgecxr.storage.reading import BadFile, read_bytes

FOLDER = "engines"

_LARGEST_ENGINE = 2 << 30
_LARGEST_RECORD = 8 << 20
_MOST_RECORDS = 200
_LONGEST = 1000
_LARGEST_CACHE = 256 << 20
_KEY_BYTES = 32


@dataclass(frozen=True)
class EngineEnvironment:
    """The machine and library that an engine depends on.

    Attributes:
        gpu: name of the GPU; None on a machine without one.
        compute_capability: such as "8.7"; None without a GPU.
        library: "tensorrt" or "tensorrt_rtx".
        version: version of that library.
    """

    gpu: str | None
    compute_capability: str | None
    library: str
    version: str

    @property
    def product(self) -> str:
        """Product name and version of the library, for messages."""
        return f"{'TensorRT-RTX' if self.library == 'tensorrt_rtx' else 'TensorRT'} {self.version}"

    @property
    def device(self) -> str:
        """Name and compute capability of the GPU, for messages."""
        if self.gpu is None:
            return "no GPU"
        return f"{self.gpu} (compute capability {self.compute_capability})"

    def file_name(self, precision: str, ending: str) -> str:
        """Return a file name specific to this machine and library.

        Such as "fp16-orin-trt10.3.0.engine".
        """
        gpu = re.sub(r"[^a-z0-9]+", "-", (self.gpu or "no-gpu").lower()).strip("-")
        kind = "trt-rtx" if self.library == "tensorrt_rtx" else "trt"
        return f"{precision}-{gpu}-{kind}{re.sub(r'[^0-9A-Za-z.]+', '-', self.version)}{ending}"


@dataclass(frozen=True)
class EngineRecord:
    """The JSON record beside an engine.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        here: the machine and library that built it; only these may run it.
        onnx: name of the ONNX file in the bundle.
        onnx_sha256: checksum of that file.
        engine_sha256: checksum of the engine.
        engine_bytes: size of the engine.
        batches: smallest, usual and largest batch.
        memory_mib: limit of the builder's workspace in MiB; None for TensorRT's default.
        build_seconds: how long the build took.
        typing: "strong" if the ONNX file alone sets the precisions; "weak" if flags do (TensorRT 8).
        float32_layers: for a weakly typed build, {"listed", "held", "confirmed", "lower"}: the number of nodes that the
            card lists, of those held to FP32, of those that the engine reports in FP32, and in a lower precision; of
            the others it reports nothing.
        layers: layer name -> type of its result, or types of a product such as "int8 x int8 -> fp16", as the engine
            reports them, or TensorRT-RTX without a GPU; None if none does.
        timing_cache_sha256: checksum of the timing cache that the build left; None if there is none.
        verified: images and file -> differences from ONNX Runtime; the engine's own have a "worst" one, which is
            allowed.
        warnings: the first few warnings of TensorRT during the build.
        version: version of edgecxr that built it.
    """

    precision: str
    here: EngineEnvironment
    onnx: str
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    batches: tuple[int, int, int]
    memory_mib: int | None
    build_seconds: float
    typing: str
    float32_layers: dict[str, int] = field(default_factory=dict)
    layers: dict[str, str] | None = None
    timing_cache_sha256: str | None = None
    verified: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    version: str = ""

    @property
    def checked(self) -> bool:
        """Whether the engine has been found to compute what its file says."""
        return any("worst" in differences for differences in self.verified.values())

    @property
    def counts(self) -> dict[str, int]:
        """Number of layers by types, the most frequent first."""
        kinds = list((self.layers or {}).values())
        return {name: kinds.count(name) for name in sorted(set(kinds), key=lambda name: (-kinds.count(name), name))}

    def write(self, path: Path) -> None:
        """Write the record with its seal.

        Raises:
            UsageError: the file, or this machine's key, cannot be written.
        """
        values = dataclasses.asdict(self)
        atomic_write(path, json.dumps({"seal": _seal(values, _own_key()), **values}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> tuple[EngineRecord, bool]:
        """Read a record, and check whether it was made on this machine.

        Returns:
            The record, and whether its seal was made with this machine's key.

        Raises:
            ModelError: the file cannot be read, or is not a record.
            UsageError: others can have written this machine's key.
        """
        try:
            key = read_private(_key_file(), _KEY_BYTES)
        except OSError:
            key = None
        try:
            values = read_json(path, _LARGEST_RECORD)
            seal = values.pop("seal")
            own = key is not None and hmac.compare_digest(str(seal).encode(), _seal(values, key).encode())
            record = cls(**values | {"here": EngineEnvironment(**values["here"]), "batches": tuple(values["batches"])})
            _check(record)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{path} is not the record of an engine ({brief(error)}): remove it") from error
        return record, own


def usable(model: ModelFile, here: EngineEnvironment) -> tuple[Path, bytes, EngineRecord]:
    """Return the engine of an ONNX file, if it was built here.

    Args:
        model: a model file in a bundle.
        here: this machine.

    Returns:
        The engine's path, content and record.

    Raises:
        ModelError: no engine may be loaded; the message gives the reason, and the command that builds one.
    """
    onnx, digest = model.path, model.sha256
    problems = [(0, f"{onnx} has no engine yet")]
    for path, record, own in _records(onnx.parent / FOLDER, problems):
        if record.onnx != onnx.name:
            continue
        rejection = _problem(path, record, own, here, digest)
        if rejection:
            problems.append(rejection)
            continue
        engine = path.with_suffix(".engine")
        try:
            content = read_bytes(engine, _LARGEST_ENGINE)
        except (OSError, BadFile) as error:
            problems.append((6, f"{engine} cannot be read ({brief(error)})"))
            continue
        if hashlib.sha256(content).hexdigest() == record.engine_sha256:
            return engine, content, record
        problems.append((6, f"{engine} has changed since it was built, and is not loaded"))
    # Report the engine that came closest to being usable.
    raise ModelError(f"{max(problems, key=lambda problem: problem[0])[1]}: {rebuild(onnx)}")


def rebuild(onnx: Path) -> str:
    """Return the command that builds the engine of a bundle's model file."""
    match = re.fullmatch(r"model\.(\w+)\.onnx", onnx.name)
    precision = match[1] if match else "fp32"
    return f"`edgecxr build {onnx.parent} --precision {precision}`"


def timing_cache(folder: Path, here: EngineEnvironment) -> bytes:
    """Return the timing cache of an earlier build on this machine.

    TensorRT trusts it like an engine, so a sealed record must name it.

    Returns:
        Its content; b"" if there is none.
    """
    path = folder / here.file_name("timing", ".cache")
    try:
        content = read_bytes(path, _LARGEST_CACHE)
    except (OSError, BadFile):
        return b""
    digest = hashlib.sha256(content).hexdigest()
    is_on_record = any(
        own and record.here == here and record.timing_cache_sha256 == digest for _, record, own in _records(folder, [])
    )
    return content if is_on_record else b""


def _records(folder: Path, problems: list[tuple[int, str]]) -> Iterator[tuple[Path, EngineRecord, bool]]:
    for path in sorted(folder.glob("*.json"))[:_MOST_RECORDS]:
        try:
            record, own = EngineRecord.read(path)
        except ModelError as error:
            problems.append((1, str(error)))
        else:
            yield path, record, own


def _problem(
    path: Path, record: EngineRecord, own: bool, here: EngineEnvironment, digest: str
) -> tuple[int, str] | None:
    """Return why an engine may not be loaded; None if it may.

    Returns:
        The number of the failed check, higher for one closer to usable, and the message.
    """
    built = record.here
    engine = path.with_suffix(".engine")
    if (built.gpu, built.compute_capability) != (here.gpu, here.compute_capability):
        return 2, f"{engine} was built for {built.device}, and here is {here.device}"
    if (built.library, built.version) != (here.library, here.version):
        return 3, f"{engine} was built by {built.product}, and here is {here.product}"
    if record.onnx_sha256 != digest:
        return 4, f"{engine} was built from another {record.onnx} than the one beside it"
    if not own:
        return 5, f"{engine} was not built by this user on this machine, and an engine is code: it is not loaded"
    if not record.checked:
        return 6, f"{engine} has not been compared with ONNX Runtime, as engines of an older edgecxr have not"
    return None


def _check(record: EngineRecord) -> None:
    """Raise ValueError for the first value of a wrong kind."""
    here = record.here
    texts = (
        record.precision, record.onnx, record.onnx_sha256, record.engine_sha256, record.typing, record.version,
        here.library, here.version,
    )  # fmt: skip
    optional = (here.gpu, here.compute_capability, record.timing_cache_sha256)
    problems = (
        (not all(map(_is_text, texts)), "a name, version or checksum is no text"),
        (not all(text is None or _is_text(text) for text in optional), "the device is not described by texts"),
        (len(record.batches) != 3 or not all(map(_is_count, record.batches)), "batches are not three whole numbers"),
        (not _is_count(record.engine_bytes), "engine_bytes is no whole number"),
        (record.memory_mib is not None and not _is_count(record.memory_mib), "memory_mib is no whole number"),
        (type(record.build_seconds) not in (int, float), "build_seconds is no number"),
        (not isinstance(record.float32_layers, dict) or not isinstance(record.verified, dict), "a table is none"),
        (record.layers is not None and not isinstance(record.layers, dict), "layers are no table"),
        (not isinstance(record.warnings, list), "warnings are no list"),
    )
    for wrong, problem in problems:
        if wrong:
            raise ValueError(problem)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _seal(values: dict[str, Any], key: bytes) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key_file() -> Path:
    """Return the path of this machine's key."""
    return state_folder() / "engine.key"


def _own_key() -> bytes:
    """Return this machine's key, created if missing.

    Raises:
        UsageError: it cannot be written, or others can have written it.
    """
    path = _key_file()
    with writing(path, "set EDGECXR_STATE to a folder that you can write and that lasts"):
        while True:
            key = read_private(path, _KEY_BYTES)
            if key is not None:
                return key
            create_private(path, secrets.token_bytes(_KEY_BYTES))  # or another process does, at this moment

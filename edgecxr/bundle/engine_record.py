"""What a TensorRT engine was built from, and whether it may be loaded here.

An engine is code. So only those are loaded that this user has built on this machine: each record carries a seal made
with a key that never leaves the machine, and holds the checksums of the engine and of the ONNX file it came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr.bundle.bundle import sha256_of
from edgecxr.errors import ModelError
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.locks import locked

FOLDER = "engines"

_LARGEST_RECORD = 8 << 20
_KEY_BYTES = 32


@dataclass(frozen=True)
class Here:
    """What an engine is tied to.

    Attributes:
        gpu: its name; None on a machine without one.
        compute_capability: such as "8.7"; None without a GPU.
        library: "tensorrt" or "tensorrt_rtx".
        version: of that library.
    """

    gpu: str | None
    compute_capability: str | None
    library: str
    version: str

    @property
    def product(self) -> str:
        """The library as people call it, with its version."""
        return f"{'TensorRT-RTX' if self.library == 'tensorrt_rtx' else 'TensorRT'} {self.version}"

    @property
    def device(self) -> str:
        """The GPU as people call it."""
        if self.gpu is None:
            return "no GPU"
        return f"{self.gpu} (compute capability {self.compute_capability})"

    def file_name(self, precision: str, ending: str) -> str:
        """Return the name of a file that belongs to this machine, such as "fp16-orin-trt10.3.0.engine"."""
        gpu = re.sub(r"[^a-z0-9]+", "-", (self.gpu or "no-gpu").lower()).strip("-")
        kind = "trt-rtx" if self.library == "tensorrt_rtx" else "trt"
        return f"{precision}-{gpu}-{kind}{re.sub(r'[^0-9A-Za-z.]+', '-', self.version)}{ending}"


@dataclass(frozen=True)
class EngineRecord:
    """What lies beside an engine, as JSON.

    Attributes:
        precision: "fp32", "fp16" or "int8".
        here: the machine and library that built it, and alone may run it.
        onnx: name of the ONNX file in the bundle.
        onnx_sha256: of that file.
        engine_sha256: of the engine.
        engine_bytes: its size.
        batches: smallest, usual and largest batch.
        memory_mib: limit of the builder's workspace; None: TensorRT's own.
        build_seconds: how long the build took.
        typing: "strong": the ONNX file alone says which precision; "weak": TensorRT 8, by flags.
        float32_layers: of a weakly typed build: {"listed", "held"}, how many nodes the card lists, and how many of
            them were held to FP32.
        layers: name of a layer -> precision of its result, as the engine says; None where it could not be run.
        timing_cache_sha256: of the timing cache that the build left; None: none.
        verified: data -> differences from ONNX Runtime, as `edgecxr build --verify` measured them.
        warnings: what TensorRT warned of while it built, the first few.
        version: the edgecxr that built it.
    """

    precision: str
    here: Here
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
    verified: dict[str, dict[str, float]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    version: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Precision -> number of layers, the most frequent first."""
        found = list((self.layers or {}).values())
        return {name: found.count(name) for name in sorted(set(found), key=lambda name: (-found.count(name), name))}

    def write(self, path: Path) -> None:
        """Write the record with its seal.

        Raises:
            UsageError: the file, or this machine's key, cannot be written.
        """
        values = dataclasses.asdict(self)
        atomic_write(path, json.dumps({"seal": _seal(values, _own_key()), **values}, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> tuple[EngineRecord, bool]:
        """Return a record, and whether its seal says that it was made on this machine.

        Raises:
            ModelError: it cannot be read, or is no record.
        """
        try:
            if not path.is_file() or path.stat().st_size > _LARGEST_RECORD:
                raise ValueError("no file of a record's size")
            values = json.loads(path.read_text(encoding="utf-8"))
            seal, key = values.pop("seal"), _read_key()
            own = key is not None and hmac.compare_digest(str(seal).encode(), _seal(values, key).encode())
            batches = tuple(int(size) for size in values["batches"])
            record = cls(**values | {"here": Here(**values["here"]), "batches": batches})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelError(f"{path} is not the record of an engine ({error}): remove it") from error
        return record, own


def usable(onnx: Path, here: Here) -> tuple[Path, bytes, EngineRecord]:
    """Return the engine of an ONNX file that was built here: its path, its content and its record.

    Args:
        onnx: a model file in a bundle.
        here: this machine.

    Raises:
        ModelError: there is none that may be loaded; the message says why, and the command that builds one.
    """
    digest = sha256_of(onnx)
    problems = [(0, f"{onnx} has no engine yet")]
    for path, record, own in _records(onnx.parent / FOLDER, problems):
        if record.onnx != onnx.name:
            continue
        found = _problem(path, record, own, here, digest)
        if found:
            problems.append(found)
            continue
        engine = path.with_suffix(".engine")
        try:
            content = engine.read_bytes()
        except OSError as error:
            problems.append((6, f"{engine} cannot be read ({error.strerror})"))
            continue
        if hashlib.sha256(content).hexdigest() == record.engine_sha256:
            return engine, content, record
        problems.append((6, f"{engine} has changed since it was built, and is not loaded"))
    # What came closest to being usable is what the user wants to hear of.
    raise ModelError(f"{max(problems, key=lambda problem: problem[0])[1]}: {rebuild(onnx)}")


def rebuild(onnx: Path) -> str:
    """Return the command that builds the engine of a model file, in a bundle."""
    match = re.fullmatch(r"model\.(\w+)\.onnx", onnx.name)
    precision = match[1] if match else "fp32"
    return f"`edgecxr build {onnx.parent} --precision {precision}`"


def timing_cache(folder: Path, here: Here) -> bytes:
    """Return the timing cache that an earlier build left on this machine, b"" where there is none.

    TensorRT reads it as trustingly as an engine, so it must be the one that a sealed record names.
    """
    path = folder / here.file_name("timing", ".cache")
    try:
        content = path.read_bytes()
    except OSError:
        return b""
    digest = hashlib.sha256(content).hexdigest()
    known = any(
        own and record.here == here and record.timing_cache_sha256 == digest for _, record, own in _records(folder, [])
    )
    return content if known else b""


def _records(folder: Path, problems: list[tuple[int, str]]) -> Iterator[tuple[Path, EngineRecord, bool]]:
    for path in sorted(folder.glob("*.json")):
        try:
            record, own = EngineRecord.read(path)
        except ModelError as error:
            problems.append((1, str(error)))
        else:
            yield path, record, own


def _problem(path: Path, record: EngineRecord, own: bool, here: Here, digest: str) -> tuple[int, str] | None:
    """Return how far a record came before it failed, and what is wrong; None if nothing is."""
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
    return None


def _seal(values: dict[str, Any], key: bytes) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _key_file() -> Path:
    """Return where this machine's key lies."""
    state = os.environ.get("EDGECXR_STATE")
    if state:
        return Path(state) / "engine.key"
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
    return Path(home) / "edgecxr" / "engine.key"


def _read_key() -> bytes | None:
    try:
        key = _key_file().read_bytes()
    except OSError:
        return None
    return key if len(key) == _KEY_BYTES else None


def _own_key() -> bytes:
    """Return this machine's key, made if need be.

    Raises:
        UsageError: it cannot be written.
    """
    path = _key_file()
    with writing(path, "set EDGECXR_STATE to a folder that you can write and that lasts"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(path.with_name(".engine.key.lock")):
            key = _read_key()
            if key is None:
                key = secrets.token_bytes(_KEY_BYTES)
                with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(key)
    return key

"""Building a TensorRT engine from ONNX, on the device that runs it.

The ONNX file alone determines the precision of each layer.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgecxr
from edgecxr.bundle import engine_record
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.engine_record import FOLDER, EngineEnvironment, EngineRecord
from edgecxr.bundle.model_file import ModelFile
from edgecxr.engines.reference import Reference
from edgecxr.engines.tensorrt import buffers as memory
from edgecxr.engines.tensorrt import library as libraries
from edgecxr.engines.tensorrt.compare_with_onnx import check_batches
from edgecxr.engines.tensorrt.engine import TensorRTBackend
from edgecxr.engines.tensorrt.layer_types import Layer, from_log, types_of
from edgecxr.engines.tensorrt.layers import confirm_float32, hold_float32, unfused_stem
from edgecxr.engines.tensorrt.library import Library
from edgecxr.engines.tensorrt.network import configure, empty_network, parser_errors, use_timing_cache
from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.locks import locked

if TYPE_CHECKING:
    from edgecxr.engines.target import Target

BATCHES = (1, 8, 64)
LARGEST_BATCH = 4096

_OUT_OF_MEMORY = re.compile(
    r"out.?of.?memory|insufficient (?:\w+ )?(?:memory|workspace)|not enough memory|memoryallocation", re.I
)
# With LayerNorm in FP16, a ViT builds and runs but gives wrong results.
_OVERFLOWS = re.compile(r"layer.?norm.*(?:fp16|half)", re.I)


def choose_precision(bundle: Bundle, target: Target | None = None) -> str:
    """Return the most recommended precision that the bundle has.

    The target recommends precisions. Without a target, FP16 comes before FP32, and INT8 must be requested, because it
    is often no faster on small models.

    Raises:
        ModelError: the bundle has none of them.
    """
    recommended = target.precisions if target else ("fp32", "fp16")
    available = {str(entry.get("precision")) for entry in bundle.card.artefacts.values()}
    for precision in reversed(recommended):
        if precision in available:
            return precision
    raise ModelError(
        f"{bundle.path} has no model of {' or '.join(recommended)} (it has: {', '.join(sorted(available)) or 'none'}): "
        "export it with one of them"
    )


def build_engine(
    bundle: Bundle,
    precision: str,
    target: Target | None = None,
    *,
    memory_mib: int | None = None,
    batches: tuple[int, int, int] | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Path:
    """Build the engine of a bundle's model file, unless already fresh.

    The engine is compared with ONNX Runtime and then written into the bundle's folder engines/. Without a GPU it is
    written without a comparison, and no machine runs it.

    Args:
        bundle: the bundle.
        precision: "fp32", "fp16" or "int8".
        target: the device's description; provides `memory_mib` and `batches` if these are None.
        memory_mib: limit of the builder's workspace in MiB; None uses the target's, or TensorRT's default.
        batches: smallest, usual and largest batch; None uses the target's, or `BATCHES`.
        force: build even if a fresh engine exists.
        say: called with each line of progress for the user.

    Returns:
        Path of the engine; its record is beside it.

    Raises:
        MissingPackage: TensorRT is not installed; or there is a GPU but no library for its buffers, or no ONNX Runtime.
        UsageError: the batches are not valid, the target does not run TensorRT, or the folder cannot be written.
        ModelError: the bundle has no such file, there is no GPU, or TensorRT cannot parse or build it.
        CheckFailed: the engine does not compute what ONNX Runtime computes from the same file; it is not written.
    """
    model = bundle.model(precision)
    verdict = bundle.card.artefacts[model.path.name].get("verdict")
    if isinstance(verdict, dict) and verdict.get("status") == "unresolved":
        say(f"warning: what the {precision} file loses is unresolved: it was compared on too few films when exported")
    library = libraries.load_tensorrt("edgecxr build")
    here = library.here(libraries.find_gpu())
    if target is not None:
        _check_target(target, here, say)
    chosen_batches = batches or (target.batches if target else None)
    memory_mib = memory_mib or (target.memory_mib if target else 0) or None
    _check_batches(chosen_batches or BATCHES)
    if not force:
        fresh = _fresh(model, here, chosen_batches, memory_mib)
        if fresh is not None:
            say(f"{fresh} is fresh: built here from this very file (--force builds it again)")
            return fresh
    folder = bundle.path / FOLDER
    if folder.is_symlink():  # a bundle of a stranger does not choose where files are written
        raise UsageError(f"{folder} is a link, and an engine is only written into its bundle: remove the link")
    with writing(folder):
        folder.mkdir(exist_ok=True)
        with locked(folder / ".build.lock", f"is building an engine in {folder}: wait for it, or end it"):
            where = f"for {here.device}" if here.gpu else "without a GPU"
            say(f"build the {precision} engine {where} with {here.product}; this can take minutes")
            return _build(library, here, bundle, model, chosen_batches or BATCHES, memory_mib, say)


def _build(
    library: Library,
    here: EngineEnvironment,
    bundle: Bundle,
    model: ModelFile,
    batches: tuple[int, int, int],
    memory_mib: int | None,
    say: Callable[[str], None],
) -> Path:
    """Build an engine, compare it and write it with its record."""
    onnx, folder = model.path, bundle.path / FOLDER
    facts = bundle.card.artefacts[onnx.name]
    path = folder / here.file_name(str(facts["precision"]), ".engine")
    reference = None
    if here.gpu is not None:
        # What the comparison needs is tried before the build, which takes minutes.
        memory.open_buffers().close()
        reference = Reference.of(bundle, str(facts["precision"]))
    engine, cache, record, layers = _compiled(library, here, model, facts, batches, memory_mib, say)
    if reference is None:
        say("the engine cannot be run here, where there is no GPU: it shows that the file parses and builds")
    else:
        try:
            built = TensorRTBackend(model, built=(path, engine, record))
        except ModelError as error:
            raise ModelError(f"{here.product} built an engine of {onnx} that cannot be used here: {error}") from error
        with closing(built) as backend:
            layers = backend.layers() or []
            float32_layers = confirm_float32(record.float32_layers, layers, facts, say)
            agreement = reference.check(backend, check_batches(batches))
        record = dataclasses.replace(
            record,
            layers=types_of(layers) or None,
            float32_layers=float32_layers,
            verified={f"{reference.name}, {onnx.name}": agreement},
        )
    unfused, stages = unfused_stem(layers)
    if unfused:
        say(
            f"{here.product} does not fuse {unfused} of the {stages} convolutions of the stem with what follows them: "
            "measure other precisions and --stem patch, too"
        )
    # Write the record last: an engine without a record is not used.
    atomic_write(path, engine)
    if cache:
        atomic_write(folder / here.file_name("timing", ".cache"), cache)
    record.write(path.with_suffix(".json"))
    summary = ", ".join(f"{count} {name}" for name, count in record.counts.items())
    say(
        f"built in {record.build_seconds:.1f} s, {len(engine) / 1e6:.1f} MB"
        + (f"; layers by type: {summary}" if summary else "")
    )
    if reference is not None:
        say(
            f"compared with ONNX Runtime on {agreement['images']} {reference.name}: logits within "
            f"{agreement['max_logit_difference']:.1e}"
        )
    return path


def _compiled(
    library: Library,
    here: EngineEnvironment,
    model: ModelFile,
    facts: dict[str, Any],
    batches: tuple[int, int, int],
    memory_mib: int | None,
    say: Callable[[str], None],
) -> tuple[bytes, bytes | None, EngineRecord, list[Layer]]:
    """Return a new engine, the timing cache, a first record and layers.

    The record lacks the comparison. The layers are those that the builder lists in its log, if it does. Its own memory
    is free again when this returns.
    """
    trt, precision = library.trt, str(facts["precision"])
    onnx, folder = model.path, model.path.parent / FOLDER
    library.forget()
    builder: Any = library.make(trt.Builder, library.logger)
    if builder is None:
        raise ModelError(
            f"{here.product} cannot build here ({library.first_error()}): it needs an NVIDIA GPU "
            "(`edgecxr doctor` says more)"
        )
    config = builder.create_builder_config()
    network, strong = empty_network(trt, builder)
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(model.content):
        raise ModelError(f"{here.product} does not take {onnx}: {parser_errors(parser) or library.first_error()}")
    configure(trt, config, builder, network, batches, memory_mib, onnx)
    float32_layers: dict[str, int] = {}
    if not strong:
        float32_layers = hold_float32(trt, config, network, facts)
        if float32_layers and float32_layers["held"] < float32_layers["listed"]:
            say("warning: only {held} of {listed} nodes could be held to FP32".format(**float32_layers))
    cached = here.library == "tensorrt"  # TensorRT-RTX no longer has a timing cache
    if cached:
        use_timing_cache(config, engine_record.timing_cache(folder, here))
    start = time.monotonic()
    plan = builder.build_serialized_network(network, config)
    seconds = time.monotonic() - start
    if plan is None:
        raise ModelError(_why_not_built(library, here, onnx, batches, memory_mib))
    engine = bytes(plan)
    warnings = [brief(text, 240) for text in library.logger.warnings[:20]]
    for text in warnings:
        if _OVERFLOWS.search(text):
            say(f"warning: TensorRT: {text}")
    cache = bytes(config.get_timing_cache().serialize()) if cached else None
    layers = from_log(library.logger.layers)
    record = EngineRecord(
        precision=precision, here=here, onnx=onnx.name, onnx_sha256=model.sha256, engine_sha256=_sha256(engine),
        engine_bytes=len(engine), batches=batches, memory_mib=memory_mib, build_seconds=round(seconds, 3),
        typing="strong" if strong else "weak", float32_layers=float32_layers,
        layers=types_of(layers) or None,
        timing_cache_sha256=_sha256(cache) if cache else None, warnings=warnings, version=edgecxr.__version__,
    )  # fmt: skip
    return engine, cache, record, layers


def _fresh(
    model: ModelFile, here: EngineEnvironment, batches: tuple[int, int, int] | None, memory_mib: int | None
) -> Path | None:
    """Return the existing engine if it need not be rebuilt, else None."""
    with suppress(ModelError):
        path, _, record = engine_record.usable(model, here)
        if batches in (None, record.batches) and memory_mib in (None, record.memory_mib):
            return path
    return None


def _check_target(target: Target, here: EngineEnvironment, say: Callable[[str], None]) -> None:
    """Warn if this machine differs from the target, and print its notes.

    Raises:
        UsageError: the target needs no engine.
    """
    if target.engine != "tensorrt":
        raise UsageError(f"target {target.name} runs models on {target.engine}, so there is no engine to build for it")
    if target.tensorrt and here.library == "tensorrt":
        version, oldest, newest = (_numbers(text) for text in (here.version, *target.tensorrt))
        # "10.4" includes all of its patch versions.
        if not oldest <= version or version[: len(newest)] > newest:
            say(f"warning: {target.name} runs TensorRT {' to '.join(target.tensorrt)}, and here is {here.version}")
    if here.gpu and target.compute_capability not in (None, here.compute_capability):
        say(f"warning: {target.name} has compute capability {target.compute_capability}, and here is {here.device}")
    for note in target.notes:
        say(f"{target.name}: {note}")


def _check_batches(batches: tuple[int, int, int]) -> None:
    smallest, usual, largest = batches
    if not 1 <= smallest <= usual <= largest <= LARGEST_BATCH:
        raise UsageError(
            f"--batches {smallest} {usual} {largest}: give the smallest, usual and largest batch, from 1 to "
            f"{LARGEST_BATCH} and rising"
        )


def _why_not_built(
    library: Library, here: EngineEnvironment, onnx: Path, batches: tuple[int, int, int], memory_mib: int | None
) -> str:
    problem = f"{here.product} could not build {onnx} ({library.first_error()})"
    if any(_OUT_OF_MEMORY.search(message) for message in (*library.logger.errors, *library.logger.warnings)):
        memory_option = f"--memory {max(memory_mib // 2, 1)}" if memory_mib else "--memory 256"
        batches_option = " or `--batches 1 1 1`" if batches != (1, 1, 1) else ""
        return f"{problem}: memory ran out; end other programs, and build with `{memory_option}`{batches_option}"
    return f"{problem}: try another precision, or export with the target's profile"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

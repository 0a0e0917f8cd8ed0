"""ONNX -> TensorRT engine, on the device that will run it. The ONNX file alone says which layer has which precision."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edgecxr
from edgecxr.bundle import engine_record
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.engine_record import FOLDER, EngineRecord, Here
from edgecxr.engines.onnx_model import INPUT, outputs_of
from edgecxr.engines.tensorrt import library as libraries
from edgecxr.engines.tensorrt.layers import hold_float32, layer_precisions
from edgecxr.engines.tensorrt.library import Library
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
# A ViT whose LayerNorm is computed in FP16 builds, runs and answers nonsense.
_OVERFLOWS = re.compile(r"layer.?norm.*(?:fp16|half)", re.I)


def choose_precision(bundle: Bundle, target: Target | None = None) -> str:
    """Return the precision that the target recommends most, of those that the bundle has.

    Without a target that is FP16: INT8 is often no faster on small models, so it is for those who ask for it.

    Raises:
        ModelError: the bundle has none of them.
    """
    worth = target.precisions if target else ("fp32", "fp16")
    there = {str(entry.get("precision")) for entry in bundle.card.artefacts.values()}
    for precision in reversed(worth):
        if precision in there:
            return precision
    raise ModelError(
        f"{bundle.path} has no model of {' or '.join(worth)} (it has: {', '.join(sorted(there)) or 'none'}): export "
        "it with one of them"
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
    """Build the engine of one of a bundle's model files into its folder engines/, unless a fresh one is there.

    Args:
        bundle: the bundle.
        precision: "fp32", "fp16" or "int8".
        target: the device's description; gives the limits that the next two leave open.
        memory_mib: limit of the builder's workspace in MiB; None: the target's, or what TensorRT takes by itself.
        batches: smallest, usual and largest batch; None: the target's, or `BATCHES`.
        force: build even if a fresh engine is there.
        say: takes a line for the user now and then.

    Returns:
        The engine; its record lies beside it.

    Raises:
        MissingPackage: TensorRT is not installed.
        UsageError: the batches do not rise, the target does not run TensorRT, or the folder cannot be written.
        ModelError: the bundle has no such file, there is no GPU, or TensorRT cannot parse or build it.
    """
    onnx = bundle.artefact(precision)
    library = libraries.load_tensorrt("edgecxr build")
    here = library.here(libraries.find_gpu())
    if target is not None:
        _check_target(target, here, say)
    wanted = batches or (target.batches if target else None)
    memory_mib = memory_mib or (target.memory_mib if target else 0) or None
    _check_batches(wanted or BATCHES)
    if not force:
        fresh = _fresh(onnx, here, wanted)
        if fresh is not None:
            say(f"{fresh} is fresh: built here from this very file (--force builds it again)")
            return fresh
    folder = onnx.parent / FOLDER
    with writing(folder):
        folder.mkdir(exist_ok=True)
        with locked(folder / ".build.lock", f"is building an engine in {folder}: wait for it, or end it"):
            where = f"for {here.device}" if here.gpu else "without a GPU"
            say(f"build the {precision} engine {where} with {here.product}; this can take minutes")
            return _build(library, here, onnx, bundle.card.artefacts[onnx.name], wanted or BATCHES, memory_mib, say)


def _build(
    library: Library,
    here: Here,
    onnx: Path,
    facts: dict[str, Any],
    batches: tuple[int, int, int],
    memory_mib: int | None,
    say: Callable[[str], None],
) -> Path:
    trt, precision, folder = library.trt, str(facts["precision"]), onnx.parent / FOLDER
    library.forget()
    builder: Any = library.make(trt.Builder, library.logger)
    if builder is None:
        raise ModelError(
            f"{here.product} cannot build here ({library.said()}): it needs an NVIDIA GPU (`edgecxr doctor` says more)"
        )
    config = builder.create_builder_config()
    content = onnx.read_bytes()
    network, strong = _network(trt, builder)
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(content):
        raise ModelError(f"{here.product} does not take {onnx}: {_parser_errors(parser) or library.said()}")
    _configure(trt, config, builder, network, batches, memory_mib, onnx)
    float32_layers: dict[str, int] = {}
    if not strong:
        float32_layers = hold_float32(trt, config, network, facts)
        if float32_layers and float32_layers["held"] < float32_layers["listed"]:
            say("warning: only {held} of {listed} nodes could be held to FP32".format(**float32_layers))
    cached = here.library == "tensorrt"  # TensorRT-RTX has no timing cache any more
    if cached:
        _use_timing_cache(config, engine_record.timing_cache(folder, here))
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
    layers = _try(library, here, onnx, engine, say)
    record = EngineRecord(
        precision=precision, here=here, onnx=onnx.name, onnx_sha256=_sha256(content), engine_sha256=_sha256(engine),
        engine_bytes=len(engine), batches=batches, memory_mib=memory_mib, build_seconds=round(seconds, 3),
        typing="strong" if strong else "weak", float32_layers=float32_layers, layers=layers,
        timing_cache_sha256=_sha256(cache) if cache else None, warnings=warnings,
        version=edgecxr.__version__,
    )  # fmt: skip
    path = folder / here.file_name(precision, ".engine")
    # The record last: it is what makes an engine one.
    atomic_write(path, engine)
    if cache:
        atomic_write(folder / here.file_name("timing", ".cache"), cache)
    record.write(path.with_suffix(".json"))
    shown = ", ".join(f"{count} {name}" for name, count in record.counts.items())
    say(f"built in {seconds:.1f} s, {len(engine) / 1e6:.1f} MB" + (f"; layers by result: {shown}" if shown else ""))
    return path


def _network(trt: Any, builder: Any) -> tuple[Any, bool]:
    """Return an empty network, and whether it takes the precisions from the ONNX file."""
    flags = trt.NetworkDefinitionCreationFlag
    strong = hasattr(flags, "STRONGLY_TYPED")
    flag = flags.STRONGLY_TYPED if strong else flags.EXPLICIT_BATCH
    return builder.create_network(1 << int(flag)), strong


def _configure(
    trt: Any,
    config: Any,
    builder: Any,
    network: Any,
    batches: tuple[int, int, int],
    memory_mib: int | None,
    onnx: Path,
) -> None:
    """Set the batch, the limit of the memory, and that the engine can say what it is made of."""
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    outputs = {network.get_output(i).name for i in range(network.num_outputs)}
    if set(inputs) != {INPUT} or outputs != set(outputs_of(outputs)):
        raise ModelError(
            f"{onnx} is not a model of edgecxr: it has the inputs {sorted(inputs)} and the outputs {sorted(outputs)}"
        )
    image = tuple(int(side) for side in tuple(inputs[INPUT].shape)[1:])
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((batch, *image) for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise ModelError(f"{onnx} cannot be built for batches of {batches}: give others with --batches")
    if memory_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, memory_mib << 20)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # FP32 means FP32: by default TensorRT multiplies FP32 matrices with a mantissa of 10 bits where the GPU can.
    config.clear_flag(trt.BuilderFlag.TF32)


def _use_timing_cache(config: Any, content: bytes) -> None:
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _try(library: Library, here: Here, onnx: Path, engine: bytes, say: Callable[[str], None]) -> dict[str, str] | None:
    """Load the new engine once, as the runner will; return the precisions of its layers."""
    if here.gpu is None:
        say("the engine cannot be run here, where there is no GPU: it shows that the file parses and builds")
        return None
    library.forget()
    runtime = library.make(library.trt.Runtime, library.logger)
    loaded = runtime and runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise ModelError(f"{here.product} built an engine of {onnx} that it cannot load ({library.said()})")
    return layer_precisions(library.trt, loaded)


def _fresh(onnx: Path, here: Here, wanted: tuple[int, int, int] | None) -> Path | None:
    """Return the engine that is there and need not be built again."""
    with suppress(ModelError):
        path, _, record = engine_record.usable(onnx, here)
        if wanted is None or record.batches == tuple(wanted):
            return path
    return None


def _check_target(target: Target, here: Here, say: Callable[[str], None]) -> None:
    """Say where this machine is another than the target; refuse a target that needs no engine."""
    if target.engine != "tensorrt":
        raise UsageError(f"target {target.name} runs models on {target.engine}, so there is no engine to build for it")
    if target.tensorrt and here.library == "tensorrt":
        version, oldest, newest = (_numbers(text) for text in (here.version, *target.tensorrt))
        # "10.4" stands for all of 10.4.
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


def _parser_errors(parser: Any) -> str:
    """Return what the parser could not take, with the name of the node, on one line."""
    said = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        # TensorRT 8.5 knows the number of the node only.
        name, kind = (
            str(getattr(error, key)()) if hasattr(error, key) else "" for key in ("node_name", "node_operator")
        )
        where = f"node {name or error.node()}" + (f" ({kind})" if kind else "")
        said.append(f"{where if name or error.node() >= 0 else 'the file'}: {brief(error.desc(), 200)}")
    return "; ".join(said)


def _why_not_built(
    library: Library, here: Here, onnx: Path, batches: tuple[int, int, int], memory_mib: int | None
) -> str:
    problem = f"{here.product} could not build {onnx} ({library.said()})"
    if any(_OUT_OF_MEMORY.search(message) for message in (*library.logger.errors, *library.logger.warnings)):
        lower = f"--memory {max(memory_mib // 2, 1)}" if memory_mib else "--memory 256"
        smaller = " or `--batches 1 1 1`" if batches != (1, 1, 1) else ""
        return f"{problem}: memory ran out; end other programs, and build with `{lower}`{smaller}"
    return f"{problem}: try another precision, or export with the target's profile"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

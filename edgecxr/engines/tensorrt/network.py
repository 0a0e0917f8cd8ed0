"""TensorRT's network and the builder's configuration for a model of edgecxr."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecxr.engines.onnx_model import INPUT, outputs_of
from edgecxr.errors import ModelError, brief


def empty_network(trt: Any, builder: Any) -> tuple[Any, bool]:
    """Return an empty network, and whether it is strongly typed.

    A strongly typed network takes its precisions from the ONNX file.
    """
    flags = trt.NetworkDefinitionCreationFlag
    strong = hasattr(flags, "STRONGLY_TYPED")
    flag = flags.STRONGLY_TYPED if strong else flags.EXPLICIT_BATCH
    return builder.create_network(1 << int(flag)), strong


def configure(
    trt: Any,
    config: Any,
    builder: Any,
    network: Any,
    batches: tuple[int, int, int],
    memory_mib: int | None,
    onnx: Path,
) -> None:
    """Check the network's tensors; set batches, memory limit, profiling and precision."""
    inputs = {network.get_input(i).name: network.get_input(i) for i in range(network.num_inputs)}
    outputs = {network.get_output(i).name for i in range(network.num_outputs)}
    if set(inputs) != {INPUT} or outputs != set(outputs_of(outputs)):
        raise ModelError(
            f"{onnx} is not a model of edgecxr: it has the inputs {sorted(inputs)} and the outputs {sorted(outputs)}"
        )
    image = tuple(int(side) for side in tuple(inputs[INPUT].shape)[1:])
    for sizes in profiles_of(batches):
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT, *((batch, *image) for batch in sizes))
        if config.add_optimization_profile(profile) < 0:
            raise ModelError(f"{onnx} cannot be built for batches of {batches}: give others with --batches")
    if memory_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, memory_mib << 20)
    # Lets the engine report the precision of its layers.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # By default, TensorRT multiplies FP32 matrices in TF32 if the GPU can, with a mantissa of 10 bits.
    config.clear_flag(trt.BuilderFlag.TF32)


def use_timing_cache(config: Any, content: bytes) -> None:
    """Use a timing cache, or an empty one where TensorRT refuses."""
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def profiles_of(batches: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """Return each optimisation profile's batches; each has its own kernels.

    A single image has a profile of its own: those for a large batch are slower for it.

    Args:
        batches: smallest, usual and largest batch of the engine.
    """
    smallest, usual, largest = batches
    return [batches] if smallest > 1 or largest == 1 else [(1, 1, 1), (2, max(usual, 2), largest)]


def parser_errors(parser: Any) -> str:
    """Return the parser's first errors with node names, on one line."""
    messages = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        # TensorRT 8.5 gives only the number of the node.
        name, kind = (
            str(getattr(error, key)()) if hasattr(error, key) else "" for key in ("node_name", "node_operator")
        )
        where = f"node {name or error.node()}" + (f" ({kind})" if kind else "")
        messages.append(f"{where if name or error.node() >= 0 else 'the file'}: {brief(error.desc(), 200)}")
    return "; ".join(messages)

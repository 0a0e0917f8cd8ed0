"""What TensorRT-RTX makes of FP16 and INT8 files, from its builder's log, without a GPU.

    python benchmarks/trt_layers.py --out benchmarks/results/no-gpu/trt_layers.json

Exports the Tiny student at 28 px, with both stems, as for TensorRT (query, key and value apart; FP16 scales with the
profile "recent") and as before (a joint product; profile "modern", whose scales are FP32). Counts layers, products by
their types, weights that are converted at every run, and bytes of constants that one run reads. Weights are random.
Ends with 6 if a file for TensorRT has a product that is not of its precision, or converts weights at run time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import tensorrt_rtx_bindings as trt
import torch
from ratios import finish, judged, record

from edgecxr.bundle.card import ModelCard
from edgecxr.engines.onnx_model import INPUT
from edgecxr.engines.tensorrt.layer_types import converted_weights, from_log, products
from edgecxr.export.lower_precision import calibrate, to_fp16, to_int8, weighted_layers
from edgecxr.export.onnx import export_fp32
from edgecxr.models.vit import TwoHeadViT

WAYS = {"separate, recent": ("recent", True), "joint, modern": ("modern", False)}


class Log(trt.ILogger):
    """Keeps all that the builder says."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.lines: list[str] = []

    def log(self, severity: Any, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--stems", nargs="+", default=["patch", "conv"], choices=("patch", "conv"))
    parser.add_argument("--out", type=Path, help="file of the record")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for stem in args.stems:
            for way, (profile, split) in WAYS.items():
                files = write_files(Path(folder), args.depth, stem, profile, split)
                results += [measured(f"{stem} stem, {way}, {name}", path, split) for name, path in files.items()]
    return finish(record("trt_layers", {"depth": args.depth, "tensorrt_rtx": trt.__version__}, results), args.out)


def write_files(folder: Path, depth: int, stem: str, profile: str, split: bool) -> dict[str, Path]:
    """Write the FP16 file and the INT8 file of a student."""
    torch.manual_seed(0)
    model = TwoHeadViT("tiny", 28, 4, labels=14, depth=depth, stem=stem).eval()
    labels = tuple(f"finding {number}" for number in range(14))
    card = ModelCard("student", labels, 28, 49, 4, "tiny", depth, "none", stem=stem)
    files = {name: folder / f"{name}.onnx" for name in ("fp32", "fp16", "int8")}
    export_fp32(model, card, files["fp32"], profile, split_attention=split)
    images = np.random.default_rng(0).random((50, 1, 28, 28), dtype=np.float32)
    to_fp16(files["fp32"], files["fp16"])
    to_int8(files["fp32"], files["int8"], calibrate(files["fp32"], images, "minmax"), "fp16")
    return {name: files[name] for name in ("fp16", "int8")}


def measured(name: str, path: Path, judge: bool) -> dict[str, Any]:
    """Build the engine of a file, and count its layers."""
    layers = from_log(built(path))
    types = products(layers, weighted_layers(path.with_name("fp32.onnx")))
    converted = list(converted_weights(layers))
    kind = "int8 x int8" if path.stem == "int8" else "fp16 x fp16 -> fp16"
    wrong = [node for node, of in types.items() if not of.startswith(kind)]
    checks = [judged(f"{name}: wrong products", len(wrong), 0), judged(f"{name}: converted", len(converted), 0)]
    return {
        "name": name,
        "layers": len(layers),
        "products": dict(Counter(types.values()).most_common()),
        "weights_converted_at_run_time": len(converted),
        "constant_bytes": sum(layer.constant_bytes for layer in layers),
        "checks": checks if judge else [],
    }


def built(path: Path) -> str:
    """Return the log of a build for a batch of 1 to 16."""
    log = Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    if not trt.OnnxParser(network, log).parse(path.read_bytes()):
        raise SystemExit(f"TensorRT-RTX does not take {path}: {log.lines[-1]}")
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((batch, 1, 28, 28) for batch in (1, 4, 16)))
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if builder.build_serialized_network(network, config) is None:
        raise SystemExit(f"TensorRT-RTX does not build {path}: {log.lines[-1]}")
    return "\n".join(log.lines)


if __name__ == "__main__":
    sys.exit(main())

"""How fast models could run at best on devices that are not here: an ESTIMATE from published peak rates, no result.

    python benchmarks/roofline.py runs/export/student-tiny-28-mlcak runs/export/teacher-tiny-224

A roofline (Williams, Waterman, Patterson 2009): a batch takes at least the time of its arithmetic at the device's peak
rate (the products of flops.py), and at least the time in which its bytes cross the memory's bus at peak bandwidth, of
which there are two counts. What must cross: the weights, once per batch, and images and answers. What crosses if
nothing stays in a cache: the weights, and what each product reads and writes. The peaks are in peaks.toml, with the
documents that they are from. An FP32 file runs on the CUDA cores, since edgecxr builds its engines without TF32; a
reduced file is counted as if all its products ran in its precision. The table goes to standard output, the record to
benchmarks/results/estimated, apart from all that was measured. Needs onnx (edgecxr[export]).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from flops import OPERATIONS, count

from edgecxr.storage.settings import read_toml

HERE = Path(__file__).resolve().parent
OUT = HERE / "results" / "estimated" / "roofline.json"
BATCHES = (1, 64)
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
REMARK = (
    "Estimated from published peak rates; nothing here was measured. Launching a kernel takes a few microseconds, and "
    "at these sizes that usually dominates, so that real latency at batch 1 will be well above these bounds."
)


@dataclass(frozen=True)
class Work:
    """What one model has to do.

    Attributes:
        model: its name.
        precision: "fp32", "fp16" or "int8".
        operations: of its products, for one image.
        weights: bytes.
        ends: bytes of one image and its answers.
        activations: bytes that its products read and write for one image, without weights.
    """

    model: str
    precision: str
    operations: int
    weights: int
    ends: int
    activations: int


@dataclass(frozen=True)
class Device:
    """A device as its vendor describes it.

    Attributes:
        title: name for people.
        rates: "fp32", "fp16", "int8" -> operations per second, as far as published.
        bandwidth: of its memory, bytes per second.
    """

    title: str
    rates: dict[str, float]
    bandwidth: float


def main() -> int:
    """Estimate, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="a bundle, or an FP32 ONNX file")
    parser.add_argument("--peaks", type=Path, default=HERE / "peaks.toml", help="TOML file of peak rates")
    parser.add_argument("--out", type=Path, default=OUT, help="file of the record")
    args = parser.parse_args()
    if missing := [str(path) for path in args.models if not path.exists()]:
        parser.error(f"{', '.join(missing)}: not there; give bundles of `edgecxr export`, or FP32 ONNX files")
    published = read_toml(args.peaks)
    works = [work for path in args.models for work in works_of(path)]
    rows = [row for device in devices(published).values() for work in works if (row := estimate(device, work))]
    record = {"estimated": True, "remark": REMARK, "peaks": published, "rows": rows}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_name(f".{args.out.name}.tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    temporary.replace(args.out)
    print(REMARK, "", *table(rows), "", *sources(published), sep="\n")
    return 0


def devices(published: dict[str, Any]) -> dict[str, Device]:
    """Return the devices of a file like peaks.toml."""
    return {
        name: Device(
            entry["name"],
            {key: entry[key]["value"] * 1e12 for key in ("fp32", "fp16", "int8") if key in entry},
            entry["memory"]["value"] * 1e9,
        )
        for name, entry in published["devices"].items()
    }


def works_of(path: Path) -> Iterator[Work]:
    """Yield what each file of a bundle, or an FP32 file, has to do; end the program where it cannot be counted."""
    name, files = path.stem, {"fp32": path}
    if path.is_dir():
        card = json.loads((path / "card.json").read_text(encoding="utf-8"))
        name = card["name"]
        files = {str(entry["precision"]): path / file for file, entry in card["artefacts"].items()}
    reduced = {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}
    if "fp32" not in files or reduced & {weight.data_type for weight in onnx.load(files["fp32"]).graph.initializer}:
        sys.exit(f"{path}: operations are counted in an FP32 model, which this has not: give a bundle or file that has")
    operations = sum(count(files["fp32"]).values())
    _, ends, values = counted(files["fp32"])
    for precision, file in files.items():
        yield Work(name, precision, operations, counted(file)[0], ends, values * BYTES[precision])


def counted(path: Path) -> tuple[int, int, int]:
    """Return the bytes of a file's weights, those of one image with its answers, and the values at its products."""
    model = onnx.load(path)
    weights = {weight.name: weight for weight in model.graph.initializer}
    (image,) = model.graph.input
    image.type.tensor_type.shape.dim[0].dim_value = 1
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    sizes = {value.name: _size(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    products = [node for node in graph.node if node.op_type in OPERATIONS]
    return (
        sum(math.prod(weight.dims) * _width(weight.data_type) for weight in weights.values()),
        sum(sizes[end.name] * _width(end.type.tensor_type.elem_type) for end in (*graph.input, *graph.output)),
        sum(sizes[name] for node in products for name in (*node.input, *node.output) if name not in weights),
    )


def _size(value: onnx.ValueInfoProto) -> int:
    return math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _width(kind: int) -> int:
    return int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)


def estimate(device: Device, work: Work) -> dict[str, Any] | None:
    """Return a row of the record; None where the device has no published rate for this precision."""
    rate = device.rates.get(work.precision)
    if rate is None:
        return None
    batches = {}
    for batch in BATCHES:
        arithmetic = 1e3 * batch * work.operations / rate
        least = 1e3 * (work.weights + batch * work.ends) / device.bandwidth
        uncached = 1e3 * (work.weights + batch * work.activations) / device.bandwidth
        batches[str(batch)] = {
            "estimated_ms_at_least": _rounded(max(arithmetic, least)),
            "estimated_limit": "compute" if arithmetic >= least else "memory",
            "estimated_ms_at_least_uncached": _rounded(max(arithmetic, uncached)),
        }
    return {
        "device": device.title, "model": work.model, "precision": work.precision, "operations": work.operations,
        "bytes": {"weights": work.weights, "ends": work.ends, "activations": work.activations}, "batches": batches,
    }  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the rows as a Markdown table, every column of numbers headed "estimated"."""
    header = ["device", "model", "precision"]
    for batch in BATCHES:
        header += [f"estimated {quantity}, batch {batch}" for quantity in ("ms at least", "limit", "ms uncached")]
    yield _line(header)
    yield _line(["---"] * len(header))
    for row in rows:
        cells = [row["device"], row["model"], row["precision"]]
        for estimate in row["batches"].values():
            cells += [
                f"{estimate['estimated_ms_at_least']:.3g}",
                estimate["estimated_limit"],
                f"{estimate['estimated_ms_at_least_uncached']:.3g}",
            ]
        yield _line(cells)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def sources(published: dict[str, Any]) -> Iterator[str]:
    """Yield where each device's peaks are from, and which files it has no rate for."""
    yield "Peaks in TFLOPS or TOPS, dense, and GB/s (r: read in the document, q: quoted from it by others, d: derived):"
    yield ""
    for entry in published["devices"].values():
        numbers = {key: value for key, value in entry.items() if isinstance(value, dict)}
        shown = ", ".join(f"{key} {number['value']:g} {number['how'][0]}" for key, number in numbers.items())
        missing = [precision for precision in BYTES if precision not in numbers]
        absent = f"; no rate of {', '.join(missing)}, so no row" if missing else ""
        named = "; ".join(dict.fromkeys(published["documents"][number["document"]] for number in numbers.values()))
        yield f"- {entry['name']}: {shown}{absent}. {named}. {entry['note']}"


if __name__ == "__main__":
    sys.exit(main())

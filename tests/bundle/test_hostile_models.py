"""Thousands of bundles as a stranger could make them: each is refused with a reason, or used rightly."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgecxr.bundle.onnx_operators import RULES
from edgecxr.errors import EdgeCxrError
from edgecxr.infer.predictor import Predictor
from tests.bundle.test_bundle import FILM, seal
from tests.bundle.test_model_file import BOMBS, OddEncoder, is_harmless, outputs_of
from tests.tiny_bundle import tiny_bundle

COUNT = 2000
SECONDS, BYTES = 5.0, 3 << 29
NUMBERS = (0, 1, -1, 2, 7, 28, 1 << 16, 1 << 31, -(1 << 31), 1 << 32, 1 << 40, (1 << 63) - 1, -(1 << 63))
OPERATORS = [*RULES, "Loop", "If", "Scan", "Tile", "Range", "Pad", "EyeLike", "RandomNormal", "NonZero", "Einsum"]


def changed(model: onnx.ModelProto, odd: random.Random) -> bytes:
    """Return a model with something else in it than an export has, or encoded in another way."""
    kind = odd.randrange(8)
    if kind == 0:
        return OddEncoder(odd.getrandbits(32), odd.choice([0.001, 0.01, 0.1])).message(model)
    if kind == 1:
        content = bytearray(model.SerializeToString())
        for _ in range(odd.randint(1, 4)):
            at = odd.randrange(len(content))
            content[at : at + odd.randint(0, 3)] = odd.randbytes(odd.randint(0, 3))
        return bytes(content)
    if kind == 2:
        nodes, constants = odd.choice(list(BOMBS.values()))
        return outputs_of(nodes, constants)
    change = (other_operator, other_input, other_constant, other_attribute, one_more_node)[kind - 3]
    for _ in range(odd.randint(1, 3)):
        change(model.graph, odd)
    return model.SerializeToString()


def other_operator(graph: onnx.GraphProto, odd: random.Random) -> None:
    odd.choice(graph.node).op_type = odd.choice(OPERATORS)


def other_input(graph: onnx.GraphProto, odd: random.Random) -> None:
    node = odd.choice(graph.node)
    names = [name for other in graph.node for name in (*other.input, *other.output)]
    node.input[odd.randrange(len(node.input))] = odd.choice(names)


def other_constant(graph: onnx.GraphProto, odd: random.Random) -> None:
    tensor = odd.choice([tensor for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT64])
    values = np.array(numpy_helper.to_array(tensor))
    values.reshape(-1)[odd.randrange(values.size)] = odd.choice(NUMBERS)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def other_attribute(graph: onnx.GraphProto, odd: random.Random) -> None:
    attribute = odd.choice([attribute for node in graph.node for attribute in node.attribute])
    if attribute.ints:
        attribute.ints[odd.randrange(len(attribute.ints))] = odd.choice(NUMBERS)
    else:
        attribute.i = odd.choice(NUMBERS)


def one_more_node(graph: onnx.GraphProto, odd: random.Random) -> None:
    extra = helper.make_node(odd.choice(OPERATORS), list(odd.choice(graph.node).input), ["extra"])
    graph.node.insert(odd.randrange(len(graph.node) + 1), extra)
    odd.choice(graph.node).input.append("extra")


def outcome(folder: Path) -> str:
    """Use a bundle as `edgecxr infer` does, in a process with little memory; return what came of it."""
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    content = (folder / "model.onnx").read_bytes()
    try:
        with Predictor(folder, threads=1) as predictor:
            prediction = predictor.predict(FILM)
    except EdgeCxrError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
        return f"refused {error.exit_code}"
    assert is_harmless(content) and 0 <= prediction.abnormal <= 1
    return "used"


def in_a_process(folder: Path) -> tuple[str, float]:
    """Return what came of a bundle, and after how many seconds."""
    read, write = os.pipe()
    start = time.monotonic()
    if not (child := os.fork()):
        try:
            os.write(write, outcome(folder).encode())
        except BaseException:
            os.write(write, traceback.format_exc().encode()[-2000:])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        answer = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return answer or f"ended with {status}", time.monotonic() - start


def main(place: Path, first: int, last: int) -> None:
    """Print what came of each bundle, as lines of JSON."""
    import onnxruntime  # noqa: F401  once, and not in each process

    folder = tiny_bundle(place / "bundle").path
    tiny = onnx.load(folder / "model.onnx")
    for seed in range(first, last):
        model: Any = onnx.ModelProto()
        model.CopyFrom(tiny)
        (folder / "model.onnx").write_bytes(changed(model, random.Random(seed)))
        print(json.dumps([seed, *in_a_process(seal(folder))]), flush=True)


def all_outcomes(place: Path, first: int, last: int) -> Counter[str]:
    # A process without torch, whose address space alone is larger than the limit.
    command = [sys.executable, "-m", "tests.bundle.test_hostile_models", str(place), str(first), str(last)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == last - first, done.stderr
    assert [line for line in lines if line[1] not in ("used", "refused 4") or line[2] > SECONDS] == []
    return Counter(answer for _, answer, _ in lines)


def test_forty_bundles_are_refused_or_used(tmp_path: Path) -> None:
    came = all_outcomes(tmp_path, 0, 40)
    assert came["used"] and came["refused 4"]


@pytest.mark.long
def test_two_thousand_bundles_are_refused_or_used(tmp_path: Path) -> None:
    came = all_outcomes(tmp_path, 0, COUNT)
    assert came["used"] > COUNT // 100 and came["refused 4"] > COUNT // 2


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""Shapes, memory and work of a stranger's model, judged before an engine sees it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgecxr.bundle.model_file import ModelFile
from edgecxr.bundle.onnx_graph import LARGEST_SIDE, MOST_SIDES, read_graph
from edgecxr.bundle.onnx_sizes import MOST_FIXED, MOST_HELD, MOST_VALUES, check_sizes
from edgecxr.errors import ModelError
from tests.bundle.test_model_file import check, node, outputs_of

NOT_OURS = r"is not a model that edgecxr"
MIB = 1 << 20


def tensor(dims: list[int], kind: int, store: str) -> TensorProto:
    proto = TensorProto(name="odd", dims=dims, data_type=kind)
    if store == "raw":
        proto.raw_data = b""
    elif store == "some":
        proto.raw_data = bytes(8)
    return proto


def as_constant(model: onnx.ModelProto, odd: TensorProto) -> None:
    model.graph.initializer.append(odd)


def as_node(model: onnx.ModelProto, odd: TensorProto) -> None:
    model.graph.node.insert(0, helper.make_node("Constant", [], ["odd"], value=odd))


def as_value(part: str) -> Callable[[onnx.ModelProto, TensorProto], None]:
    def put(model: onnx.ModelProto, odd: TensorProto) -> None:
        getattr(model.graph, part).append(helper.make_tensor_value_info("odd", odd.data_type, list(odd.dims)))

    return put


PLACES = (as_constant, as_node, as_value("input"), as_value("value_info"))
SIDES = st.one_of(st.integers(0, 3), st.sampled_from([-1, LARGEST_SIDE, LARGEST_SIDE + 1, 1 << 31, 1 << 62]))


def small() -> onnx.ModelProto:
    return onnx.load_model_from_string(outputs_of([node("Identity", "image", "y")], {}))


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(
        st.lists(SIDES, max_size=80),
        st.builds(lambda side, count: [side] * count, SIDES, st.sampled_from([8, 9, 64, 65, 60_000])),
    ),
    st.sampled_from([TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT8, TensorProto.STRING]),
    st.sampled_from(["none", "raw", "some"]),
    st.sampled_from(PLACES),
)
def test_any_shape_is_refused_with_a_reason_or_is_one_that_an_export_may_have(
    dims: list[int], kind: int, store: str, put: Callable[[onnx.ModelProto, TensorProto], None]
) -> None:
    model = small()
    put(model, tensor(dims, kind, store))
    start = time.process_time()
    try:
        check(model)
    except ModelError as error:
        assert len(str(error)) < 400
    else:
        assert len(dims) <= MOST_SIDES and all(0 <= side <= LARGEST_SIDE for side in dims)
    assert time.process_time() - start < 1


@pytest.mark.parametrize("put", PLACES)
@pytest.mark.parametrize("dims", [[1] * 9, [1] * 70, [3] * 60_000, [0, 1 << 62, 1 << 62], [0, LARGEST_SIDE + 1], [-1]])
def test_shapes_that_no_export_has_are_refused_before_they_are_multiplied(
    dims: list[int], put: Callable[[onnx.ModelProto, TensorProto], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgecxr.bundle.onnx_graph.math", None)
    model = small()
    put(model, tensor(dims, TensorProto.INT64, "none"))
    with pytest.raises(ModelError, match=NOT_OURS):
        check(model)


@pytest.mark.parametrize("error", [ValueError, OverflowError])
def test_what_python_or_numpy_says_of_a_shape_is_a_reason(monkeypatch: pytest.MonkeyPatch, error: type) -> None:
    def raises(content: bytes) -> Any:
        raise error("maximum supported dimension")

    monkeypatch.setattr("edgecxr.bundle.model_file.read_graph", raises)
    with pytest.raises(ModelError, match=NOT_OURS):
        check(small())


# ---- memory


def work_of(nodes: list[Any], constants: dict[str, Any]) -> Any:
    return check_sizes(read_graph(outputs_of(nodes, constants, ("N", 1, 512, 512))))[0]


def grown(side: int) -> tuple[list[Any], dict[str, Any]]:
    """Return nodes that make `side` x 512 x 512 numbers of an image, and their constants."""
    return [node("Expand", "image shape", "x0")], {"shape": np.array([1, side, 1, 1])}


def test_what_is_held_at_once_is_a_peak_and_what_is_computed_a_sum() -> None:
    nodes, constants = grown(16)
    chain = [node("Relu", f"x{i}", f"x{i + 1}") for i in range(10)]
    work = work_of([*nodes, *chain], constants)
    assert (work.held, work.values) == (2 * 4 * MIB, 11 * 4 * MIB)
    # The first is read once more, at the end; a result that nobody reads is dropped at once.
    skip = [node("Add", "x10 x0", "y")]
    assert work_of([*nodes, *chain, *skip], constants).held == 3 * 4 * MIB
    unread = [node("Relu", "x0", f"u{i}") for i in range(4)]
    assert work_of([*nodes, *unread, node("Relu", "x0", "y")], constants).held == 2 * 4 * MIB
    # All are read by the last.
    joined = [node("Concat", " ".join(f"u{i}" for i in range(4)), "y", axis=1)]
    assert work_of([*nodes, *unread, *joined], constants).held == (4 + 4) * 4 * MIB


@pytest.mark.parametrize(("side", "fits"), [(MOST_HELD // 2 // MIB * 4, True), (MOST_HELD // 2 // MIB * 4 + 1, False)])
def test_more_is_not_held_than_any_export_holds(side: int, fits: bool) -> None:
    nodes, constants = grown(side)
    content = outputs_of([*nodes, node("Relu", "x0", "y")], constants, ("N", 1, 512, 512))
    if fits:
        check(content)
    else:
        with pytest.raises(ModelError, match="more memory or time"):
            check(content)


def test_what_an_output_is_is_held_to_the_end() -> None:
    nodes, constants = grown(64)
    chain = [*nodes, *(node("Relu", f"x{i}", f"x{i + 1}") for i in range(6))]
    model = onnx.load_model_from_string(outputs_of(chain, constants, ("N", 1, 512, 512)))
    check(model)
    model.graph.output.extend(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, None) for i in range(5))
    with pytest.raises(ModelError, match="more memory or time"):
        check(model)


def test_many_results_one_after_another_are_too_much_in_the_end() -> None:
    nodes, constants = grown(64)
    count = MOST_VALUES // (16 * MIB)
    for more, refused in ((count - 1, False), (count, True)):
        chain = [node("Relu", f"x{i}", f"x{i + 1}") for i in range(more)]
        content = outputs_of([*nodes, *chain], constants, ("N", 1, 512, 512))
        if refused:
            with pytest.raises(ModelError, match="more memory or time"):
                check(content)
        else:
            check(content)


@pytest.mark.parametrize("shape", [[510, 1024, 1024], [1, MOST_FIXED + 2], [MOST_FIXED // 4, 5], [0, 1 << 40]])
def test_what_no_image_changes_is_no_larger_than_the_file_and_a_little(shape: list[int]) -> None:
    constants = {"one": np.float32([1]), "big": np.array(shape)}
    with pytest.raises(ModelError, match=NOT_OURS):
        check(outputs_of([node("Expand", "one big", "y")], constants))
    # Engines keep all of them, however soon they are read.
    third = {"one": np.float32([1]), "big": np.array([1, MOST_FIXED // 3])}
    parts = [node("Expand", "one big", f"b{i}") for i in range(4)]
    sums = [node("ReduceMean", f"b{i}", f"s{i}") for i in range(4)]
    check(outputs_of([*parts[:2], *sums[:2]], third))
    with pytest.raises(ModelError, match="more memory or time"):
        check(outputs_of([part for pair in zip(parts, sums, strict=True) for part in pair], third))


def test_weights_are_scaled_and_cast() -> None:
    weights = {"w": np.zeros((MOST_FIXED // 4, 5), np.int8), "scale": np.float32(0.1), "zero": np.int8(0)}
    scaled = node("DequantizeLinear", "w scale zero", "v")
    cast = node("Cast", "v", "u", to=TensorProto.FLOAT16)
    check(outputs_of([scaled, cast], weights))
    more = [node("Neg", "u", "t"), node("Neg", "t", "s")]
    with pytest.raises(ModelError, match="more memory or time"):
        check(outputs_of([scaled, cast, *more], weights))


def test_twenty_thousand_nodes_are_judged_soon() -> None:
    chain = [node("Relu", "image", f"x{i}") for i in range(19_990)]
    joined = [node("Concat", " ".join(f"x{i}" for i in range(19_990)), "y", axis=1)]
    content = outputs_of([*chain, *joined], {})
    start = time.process_time()
    check(content)
    assert time.process_time() - start < 5


def test_the_largest_teacher_is_an_export(tmp_path: Path) -> None:
    from edgecxr.bundle.card import ModelCard
    from edgecxr.export.onnx import export_fp32
    from edgecxr.models.vit import TwoHeadViT

    depth, whole = 2, 12
    model = TwoHeadViT("base", 448, 16, labels=2, depth=depth).eval()
    card = ModelCard("teacher", ("A", "B"), 448, 784, 16, "base", depth, "teacher")
    export_fp32(model, card, tmp_path / "model.onnx", "legacy")
    content = ModelFile.read(tmp_path / "model.onnx").content
    for work in check_sizes(read_graph(content)):
        assert work.held / work.batch < MOST_HELD / 2
        assert work.values / work.batch * whole / depth < MOST_VALUES

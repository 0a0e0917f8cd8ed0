"""Model files of strangers: what no export has is refused before an engine sees it."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.model_file import LARGEST, ModelFile
from edgecxr.bundle.onnx_operators import RULES
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.errors import ModelError
from edgecxr.infer.predictor import Predictor
from tests.bundle.test_bundle import FILM, seal
from tests.tiny_bundle import tiny_bundle, tiny_onnx

ELSEWHERE = r"takes weights from other"
NOT_OURS = r"is not a model that edgecxr"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """Not to be changed."""
    return onnx.load(tiny_onnx(tmp_path_factory.mktemp("tiny") / "model.onnx"))


@pytest.fixture
def model(tiny: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(tiny)
    return copy


def check(content: bytes | onnx.ModelProto) -> None:
    ModelFile(Path("m.onnx"), content if isinstance(content, bytes) else content.SerializeToString()).check()


def away(name: str = "away", place: str = "weights.bin") -> TensorProto:
    """Return a tensor that lies in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=place)
    return tensor


# ---- other files


def in_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["far"], value=away()))


def in_list(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("more", [away()]))


def in_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(away())


def in_sparse_attribute(model: onnx.ModelProto) -> None:
    attribute = model.graph.node[0].attribute.add(name="far", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(away())


def graph_with_it() -> onnx.GraphProto:
    return helper.make_graph([], "inner", [], [], [away()])


def in_subgraph(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", graph_with_it()))


def in_subgraphs(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("bodies", [graph_with_it()]))


def in_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["far"], value=away())
    model.functions.append(helper.make_function("own", "Far", [], ["far"], [node], [helper.make_opsetid("", 13)]))


def in_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(graph_with_it())


def in_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(away())


def in_memory(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(away(place="*/_ORT_MEM_ADDR_/*"))


def by_entries_alone(model: onnx.ModelProto) -> None:
    tensor = away()
    tensor.ClearField("data_location")
    model.graph.initializer.append(tensor)


def by_location_alone(model: onnx.ModelProto) -> None:
    tensor = away()
    tensor.ClearField("external_data")
    model.graph.initializer.append(tensor)


@pytest.mark.parametrize(
    "put",
    [
        in_constant, in_list, in_sparse, in_sparse_attribute, in_subgraph, in_subgraphs, in_function, in_training,
        in_initializer, in_memory, by_entries_alone, by_location_alone,
    ],
)  # fmt: skip
def test_no_tensor_lies_elsewhere(model: onnx.ModelProto, put: Callable[[onnx.ModelProto], None]) -> None:
    check(model)
    put(model)
    with pytest.raises(ModelError, match=f"{ELSEWHERE}|{NOT_OURS}"):
        check(model)


@pytest.mark.parametrize(
    "tag", [b"\x8a\x80\x80\x80\x10", b"\x8a\x00", b"\x8a\x80\x80\x00", b"\x8a" + b"\x80" * 8 + b"\x01"]
)
def test_no_other_spelling_of_a_tag_hides_one(model: onnx.ModelProto, tag: bytes) -> None:
    model.graph.initializer.append(away())
    content = model.SerializeToString()
    key = b"\n\x08location"
    assert content.count(key) == 1
    with pytest.raises(ModelError, match=ELSEWHERE):
        check(content)
    for spelled in (content.replace(key, tag + key[1:]), content.replace(key, b"\n\x88\x00location")):
        with pytest.raises(ModelError, match=NOT_OURS):
            check(spelled)


# ---- encodings


def varint(value: int, extra: int = 0) -> bytes:
    """Encode a number, with `extra` bytes more than it needs."""
    value &= (1 << 64) - 1
    groups = [value & 0x7F]
    while value := value >> 7:
        groups.append(value & 0x7F)
    groups += [0] * min(extra, 10 - len(groups))
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


class OddEncoder:
    """Encodes a message as any parser reads it, now and then in an unusual way."""

    def __init__(self, seed: int, rate: float) -> None:
        self.random, self.rate = random.Random(seed), rate

    def seldom(self) -> bool:
        return self.random.random() < self.rate

    def number(self, value: int) -> bytes:
        return varint(value, self.random.randint(1, 9) if self.seldom() else 0)

    def block(self, field: FieldDescriptor, data: bytes) -> bytes:
        return self.number(field.number << 3 | 2) + self.number(len(data)) + data

    def encoded(self, field: FieldDescriptor, value: Any) -> bytes:
        if field.message_type and self.seldom():  # a parser joins what comes in pieces
            pieces = type(value)(), type(value)()
            for piece in pieces:
                piece.CopyFrom(value)
            for inner, _ in value.ListFields():
                self.random.choice(pieces).ClearField(inner.name)
            return b"".join(self.block(field, piece.SerializeToString()) for piece in pieces)
        if field.message_type:
            return self.block(field, self.message(value))
        if field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            return self.block(field, value.encode() if isinstance(value, str) else value)
        if field.type == FieldDescriptor.TYPE_FLOAT:
            return self.number(field.number << 3 | 5) + np.float32(value).tobytes()
        return self.number(field.number << 3) + self.number(value)

    def message(self, message: Any) -> bytes:
        parts = []
        for field, value in message.ListFields():
            values = list(value) if field.is_repeated else [value]
            integers = field.is_repeated and field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32)
            packs = integers and message.DESCRIPTOR.name == "TensorProto" and field.name.endswith("_data")
            if integers and packs != self.seldom():
                parts.append(self.block(field, b"".join(map(self.number, values))))
            else:
                parts.extend(self.encoded(field, each) for each in values)
            if self.seldom() and not field.is_repeated and not field.message_type:
                parts.append(parts[-1])  # the last one counts
        if self.seldom():
            self.random.shuffle(parts)
        if self.seldom():  # what no parser knows: a group, a text, a number
            unknown = self.random.choice([b"\xc3\x3e\xc4\x3e", b"\xc2\x3e\x01x", b"\xc0\x3e\x05"])
            parts.insert(self.random.randint(0, len(parts)), unknown)
        return b"".join(parts)


def messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if field.is_repeated else [value]:
                yield from messages(inner)


def is_harmless(content: bytes) -> bool:
    """Return whether onnx's own parser sees nothing in a model that an engine should not."""
    model = onnx.load_model_from_string(content)
    parts = list(messages(model))
    return (
        not any(isinstance(m, TensorProto) and (m.external_data or m.data_location) for m in parts)
        and all(m.op_type in RULES and not m.domain for m in parts if isinstance(m, onnx.NodeProto))
        and sum(isinstance(m, onnx.GraphProto) for m in parts) == 1
        and not any(isinstance(m, (onnx.FunctionProto, onnx.SparseTensorProto)) for m in parts)
    )


def is_taken(content: bytes) -> bool:
    try:
        check(content)
    except ModelError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return False
    return True


@given(st.integers(0, 1 << 32), st.sampled_from([0, 0.002, 0.02, 0.3]), st.booleans())
def test_no_encoding_hides_anything(tiny: onnx.ModelProto, seed: int, rate: float, hostile: bool) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(tiny)
    if hostile:
        model.graph.initializer.append(away())
    content = OddEncoder(seed, rate).message(model)
    if is_taken(content):
        assert not hostile and is_harmless(content)
    else:
        assert hostile or rate > 0


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 6)), min_size=1, max_size=3
    )
)
def test_no_damage_hides_anything(tiny: onnx.ModelProto, edits: list[tuple[float, bytes, int]]) -> None:
    content = bytearray(tiny.SerializeToString())
    for place, new, dropped in edits:
        at = int(place * len(content))
        content[at : at + dropped] = new
    if is_taken(bytes(content)):
        assert is_harmless(bytes(content))


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_noise_is_a_model(noise: bytes) -> None:
    assert not is_taken(noise)


def test_many_small_fields_end_soon() -> None:
    start = time.process_time()
    for content in (b"\x72\x00" * (1 << 24), b"\x3a\xff\xff\xff\x0f" + b"\x0a\x00" * (1 << 23)):
        with pytest.raises(ModelError, match=NOT_OURS):
            check(content)
    assert time.process_time() - start < 5


def test_a_file_of_onnx_runtime_s_own_format_is_refused(tiny: onnx.ModelProto) -> None:
    content = tiny.SerializeToString()
    # A producer whose name puts the mark of the other format where ONNX Runtime looks for it.
    with pytest.raises(ModelError, match=NOT_OURS):
        check(b"\x12\x06xxORTM" + content.replace(b"\x12\x00", b"", 1))
    with pytest.raises(ModelError, match=NOT_OURS):
        check(b"\x1c\x00\x00\x00ORTM" + bytes(100))


# ---- operators and sizes


def outputs_of(nodes: list[Any], constants: dict[str, Any], image: tuple[Any, ...] = ("N", 1, 28, 28)) -> bytes:
    """Return a model with more nodes than an export has."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def node(operator: str, inputs: str, output: str, **attributes: Any) -> Any:
    return helper.make_node(operator, ["" if name == "-" else name for name in inputs.split()], [output], **attributes)


LARGE = 1 << 18
BOMBS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "expand": ([node("Expand", "one big", "y")], {"one": np.float32([1]), "big": [LARGE, LARGE]}),
    "expand by the batch": (
        [
            node("Shape", "image", "s"), node("Gather", "s zero", "n"), node("Mul", "n big", "m"),
            node("Expand", "one m", "y"),
        ],
        {"one": np.float32([1]), "zero": [0], "big": [1 << 36]},
    ),
    "constant of shape": ([node("ConstantOfShape", "big", "y")], {"big": [1 << 40]}),
    "resize": ([node("Resize", "image - - big", "y", mode="nearest")], {"big": [1, 1, LARGE, LARGE]}),
    "resize by scales": ([node("Resize", "image - big", "y")], {"big": np.float32([1, 1, 1e6, 1e6])}),
    "tile": ([node("Tile", "image big", "y")], {"big": [1, 1, LARGE, LARGE]}),
    "range": ([node("Range", "a b c", "y")], {"a": 0, "b": 1 << 40, "c": 1}),
    "pad": ([node("Pad", "image big", "y")], {"big": [0, 0, 0, 0, 0, 0, LARGE, LARGE]}),
    "padded convolution": (
        [node("Conv", "image w", "y", pads=[1 << 15] * 4)], {"w": np.zeros((1, 1, 3, 3), np.float32)},
    ),
    "padded pool": ([node("AveragePool", "image", "y", kernel_shape=[3, 3], pads=[1 << 15] * 4)], {}),
    "doubling": ([node("Concat", f"x{i} x{i}", f"x{i + 1}", axis=0) for i in range(40)], {"x0": np.float32([1])}),
    "outer product": (
        [node("Reshape", "image row", "r"), node("Reshape", "image column", "c"), node("MatMul", "c r", "p"),
         node("Reshape", "p row", "r2"), node("Reshape", "p column", "c2"), node("Mul", "c2 r2", "y")],
        {"row": [1, -1], "column": [-1, 1]},
    ),
    "a power of the batch": (
        [node("Reshape", "image row", "r"), node("Reshape", "image column", "c"), node("Add", "c r", "p"),
         node("Reshape", "p row", "r2"), node("Add", "c r2", "y")],
        {"row": [1, -1], "column": [-1, 1]},
    ),
    "work": (
        [node("Expand", "one big", "m0"), *(node("MatMul", f"m{i} m0", f"m{i + 1}") for i in range(40))],
        {"one": np.float32([1]), "big": [2048, 2048]},
    ),
    "a shape from pixels": (
        [node("Cast", "image", "i", to=7), node("ReduceSum", "i", "s", keepdims=0), node("Reshape", "s row", "v"),
         node("ConstantOfShape", "v", "y")],
        {"row": [1]},
    ),
    "indices from pixels": ([node("Cast", "image", "i", to=7), node("Gather", "w i", "y")], {"w": np.float32([1, 2])}),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_grows_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=NOT_OURS):
        check(outputs_of(*BOMBS[name]))


def looping(operator: str) -> onnx.ModelProto:
    body = helper.make_graph([helper.make_node("Identity", ["c"], ["d"])], "body", [], [])
    name = {"If": "then_branch", "SequenceMap": "body"}.get(operator, "body")
    return onnx.load_model_from_string(outputs_of([helper.make_node(operator, ["image"], ["y"], **{name: body})], {}))


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "SequenceMap"])
def test_control_flow_is_refused(operator: str) -> None:
    with pytest.raises(ModelError, match=NOT_OURS):
        check(looping(operator))
    bare = looping(operator)
    bare.graph.node[0].ClearField("attribute")
    with pytest.raises(ModelError, match=operator):
        check(bare)


def test_other_domains_functions_and_versions_are_refused(model: onnx.ModelProto) -> None:
    changes: list[Callable[[onnx.ModelProto], Any]] = [
        lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
        lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1)),
        lambda m: setattr(m.opset_import[0], "version", 9),
        lambda m: m.opset_import.pop(),
        lambda m: setattr(m.graph.node[1], "op_type", "EPContext"),
        lambda m: m.functions.append(helper.make_function("", "F", [], [], [], [helper.make_opsetid("", 13)])),
        lambda m: m.graph.node[0].attribute.append(helper.make_attribute("unknown", 1)),
        lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]),
        lambda m: m.graph.node.append(m.graph.node[0]),
        lambda m: m.graph.initializer.append(m.graph.initializer[0]),
        lambda m: m.graph.initializer[0].dims.append(2),
        lambda m: m.graph.initializer[0].dims.extend([1 << 32, 1 << 32]),
        lambda m: m.graph.initializer[0].dims.__setitem__(0, -2),
        lambda m: m.graph.node.reverse(),
        lambda m: setattr(m.graph.node[0], "op_type", "\x1b[2J"),
    ]
    for number, change in enumerate(changes):
        changed = onnx.ModelProto()
        changed.CopyFrom(model)
        change(changed)
        with pytest.raises(ModelError, match=NOT_OURS) as caught:
            check(changed)
        assert str(caught.value).isprintable(), number


# ---- files


def test_only_a_file_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "round").symlink_to("round")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "round", "zero", "absent", "a\0b", "x" * 300):
        for backend in (ModelFile.read, OnnxRuntimeBackend):
            with pytest.raises(ModelError):
                backend(tmp_path / name)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ModelError, match="cannot be read"):
        ModelFile.read(tmp_path / "large")


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_weights_beside_a_model_are_never_opened(tmp_path: Path, kind: str, model: onnx.ModelProto) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    place = folder / "weights.bin"
    {"pipe": os.mkfifo, "zero": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](place)
    model.graph.initializer.append(away())
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=ELSEWHERE):
        Predictor(seal(folder))


def test_an_engine_gets_the_bytes_that_were_checked(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "bundle")
    before = bundle.model()
    expected = OnnxRuntimeBackend(before).run(np.full((1, 1, 28, 28), 0.5, np.float32)).findings
    (bundle.path / "model.onnx").write_bytes(b"another")
    assert np.array_equal(OnnxRuntimeBackend(before).run(np.full((1, 1, 28, 28), 0.5, np.float32)).findings, expected)
    with pytest.raises(ModelError, match="has changed"):
        bundle.model()


def test_a_file_that_changes_all_the_time_is_used_whole_or_not(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    good, over = (folder / "model.onnx").read_bytes(), threading.Event()
    bad = good.replace(b"MatMul", b"EyeLike")

    def changing() -> None:
        while not over.is_set():
            for content in (bad, good):
                (folder / "model.onnx").write_bytes(content)

    thread = threading.Thread(target=changing)
    thread.start()
    try:
        for _ in range(30):
            try:
                with Predictor(folder) as predictor:
                    assert predictor.predict(FILM).model == "tiny-test"
            except ModelError:
                pass
    finally:
        over.set()
        thread.join()


def test_a_link_that_is_turned_after_the_check_is_not_followed(tmp_path: Path) -> None:
    bundle = Bundle.open(tiny_bundle(tmp_path / "bundle").path)
    other = tiny_onnx(tmp_path / "other.onnx", labels=2)
    (bundle.path / "model.onnx").unlink()
    (bundle.path / "model.onnx").symlink_to(other)
    with pytest.raises(ModelError, match="has changed"):
        bundle.model()

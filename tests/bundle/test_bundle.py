from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.bundle import bundle as bundle_module
from edgecxr.bundle.bundle import SUMS, Bundle, sha256_of, unlisted, verify, write_bundle
from edgecxr.bundle.describe import describe
from edgecxr.bundle.model_file import LARGEST
from edgecxr.errors import EdgeCxrError, ModelError
from edgecxr.infer.predictor import Predictor
from tests.cli_workspace import edgecxr
from tests.tiny_bundle import LABELS, tiny_bundle, tiny_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle").path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_can_be_opened(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.card == tiny_card()
    assert bundle.card.labels == LABELS
    assert bundle.artefact() == folder / "model.onnx"
    assert bundle.verify() == [("card.json", True), ("gate.npy", True), ("model.onnx", True)]


def test_sha256sum_agrees(folder: Path) -> None:
    if not (tool := shutil.which("sha256sum")):
        pytest.skip("no sha256sum")
    done = subprocess.run([tool, "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["card.json: OK", "gate.npy: OK", "model.onnx: OK"]


@pytest.mark.parametrize("name", ["card.json", "gate.npy", "model.onnx"])
@pytest.mark.parametrize("position", [0, -1])
def test_one_changed_byte_is_found(folder: Path, name: str, position: int) -> None:
    data = bytearray((folder / name).read_bytes())
    data[position] ^= 1
    bundle = Bundle.open(folder)
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{name} has changed .*copy it again"):
        Bundle.open(folder)
    assert dict(bundle.verify()) == {file: file != name for file in ("card.json", "gate.npy", "model.onnx")}


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "SHA256SUMS"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing.*copy it again"):
        Bundle.open(folder)


def test_unlisted_files_are_let_be(folder: Path) -> None:
    (folder / "engines").mkdir()
    (folder / "engines" / "model.engine").write_bytes(b"built here")
    assert Bundle.open(folder).card.name == "tiny-test"


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_the_list_cannot_point_outside(folder: Path, name: str) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(ModelError, match="outside the bundle"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "nonsense\n", f"{'0' * 64}  model.onnx\n"])
def test_a_damaged_list_is_refused(folder: Path, text: str) -> None:
    (folder / "SHA256SUMS").write_text(text)
    with pytest.raises(ModelError, match="SHA256SUMS"):
        Bundle.open(folder)


def test_a_list_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="SHA256SUMS cannot be read"):
        Bundle.open(folder)


def test_a_model_that_the_list_leaves_out_is_not_handed_out(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if "model.onnx" not in line))
    bundle = Bundle.open(folder)
    with pytest.raises(ModelError, match=r"does not list model\.onnx"):
        bundle.artefact()


def test_paths_that_are_no_bundle_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"does not exist: .*`edgecxr export`"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"model\.onnx is a file, not"):
        Bundle.open(folder / "model.onnx")


def test_an_absent_precision_names_what_there_is(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no int8 model \(it has: fp32\)"):
        Bundle.open(folder).artefact("int8")


def test_a_new_bundle_replaces_the_old_one_as_a_whole(folder: Path) -> None:
    (folder / "stale.txt").write_text("of the old bundle")
    tiny_bundle(folder, name="second")
    assert Bundle.open(folder).card.name == "second"
    assert sorted(contents(folder)) == ["SHA256SUMS", "card.json", "gate.npy", "model.onnx"]


def test_a_failure_leaves_the_old_bundle_and_nothing_else(folder: Path) -> None:
    before = contents(folder.parent)
    card = tiny_card(artefacts={"model.onnx": {"precision": "fp32"}, "model.fp16.onnx": {"precision": "fp16"}})
    files = {"model.onnx": folder / "model.onnx", "model.fp16.onnx": folder.parent / "absent.onnx"}
    with pytest.raises(ModelError, match=r"absent\.onnx cannot be copied"):
        write_bundle(folder, card, files)
    assert contents(folder.parent) == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bundle"]


@pytest.mark.parametrize("name", ["../model.onnx", "a/b.onnx", "card.json", "SHA256SUMS", "two\nlines", ""])
def test_names_that_cannot_be_listed_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name"):
        write_bundle(folder, tiny_card(), {"model.onnx": folder / "model.onnx", name: folder / "model.onnx"})


def test_a_card_that_promises_more_than_is_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"names model\.onnx"):
        write_bundle(tmp_path / "bundle", tiny_card(), {})
    assert not (tmp_path / "bundle").exists()


def test_a_card_of_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle", format=99).path
    with pytest.raises(ModelError, match="upgrade edgecxr"):
        Bundle.open(folder)


# Bundles of strangers: whatever is in them ends in a ModelError, soon, and never in a traceback.


def seal(folder: Path, card: str | bytes | None = None) -> Path:
    """Write card.json, if it is given, and a list that holds for it and the files that are there."""
    if card is not None:
        (folder / "card.json").write_bytes(card.encode() if isinstance(card, str) else card)
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != "SHA256SUMS")
    sums = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


def test_a_card_or_list_too_large_to_be_one_is_not_read(folder: Path) -> None:
    sums = (folder / "SHA256SUMS").read_text()
    os.truncate(folder / "SHA256SUMS", 1 << 40)  # sparse: reading it would fill the memory
    with pytest.raises(ModelError, match=r"SHA256SUMS .*than 64 KiB"):
        Bundle.open(folder)
    (folder / "SHA256SUMS").write_text(sums)
    card = (folder / "card.json").read_text()
    seal(folder, card + " " * (4 << 20))
    with pytest.raises(ModelError, match=r"card\.json .*than 4 MiB"):
        Bundle.open(folder)


def test_a_model_file_too_large_to_be_one_is_not_read(folder: Path) -> None:
    os.truncate(folder / "model.onnx", 1 << 40)
    with pytest.raises(ModelError, match=r"model\.onnx has 1099\.5 GB, more than"):
        Bundle.open(folder)
    with pytest.raises(ModelError, match=r"model\.onnx has 1099\.5 GB, more than"):
        verify(folder)


def test_a_list_of_too_many_files_is_refused(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.writelines(f"{'0' * 64}  x{i}\n" for i in range(62))
    with pytest.raises(ModelError, match="lists 65 files, more than"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "name", ["a/b/c/d/e", ".hidden", "a b", "-rf", "x" * 200, "a\x1b[2J", "a\0b", "a\u2028", "a\ud7ff*"]
)
def test_names_that_no_bundle_has_are_refused(folder: Path, name: str) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(ModelError, match="SHA256SUMS") as caught:
        Bundle.open(folder)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_a_file_that_is_listed_twice_is_refused(folder: Path) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  ./model.onnx\n")
    with pytest.raises(ModelError, match=r"names \./model\.onnx a second time"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["card.json", "model.onnx"])
def test_a_link_out_of_the_bundle_is_refused(folder: Path, name: str) -> None:
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    for target in (outside, Path("..", "outside")):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
        with pytest.raises(ModelError, match=rf"{name} is a link .*outside, outside"):
            Bundle.open(folder)


def test_a_link_inside_the_bundle_and_one_to_it_are_let_be(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / "store.onnx")
    (folder / "model.onnx").symlink_to("store.onnx")
    (folder.parent / "link").symlink_to(folder)
    assert Bundle.open(folder.parent / "link").artefact() == folder.parent / "link" / "model.onnx"


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_many_names_of_one_file_are_read_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, link: Callable[[Path, Path], None]
) -> None:
    names = [f"more{number}" for number in range(20)]
    for name in names:
        link(folder / "model.onnx", folder / name)
    seal(folder)
    paths: list[Path] = []
    monkeypatch.setattr("edgecxr.bundle.bundle.sha256_of", lambda path: paths.append(path) or sha256_of(path))
    assert all(whole for _, whole in verify(folder)) and len(paths) == 3
    lines = (folder / SUMS).read_text().splitlines()
    (folder / SUMS).write_text(
        "\n".join(line.replace(line[:64], "0" * 64) if "more7" in line else line for line in lines)
    )
    assert [name for name, whole in verify(folder) if not whole] == ["more7"]
    # Two names of a large file count once.
    monkeypatch.setattr("edgecxr.bundle.bundle.LARGEST_SUM", (folder / "model.onnx").stat().st_size + 20_000)
    verify(folder)


def test_files_that_are_more_than_a_model_of_each_precision_are_not_read(folder: Path) -> None:
    for number in range(4):
        with (folder / f"model.{number}.onnx").open("wb") as file:
            file.truncate(LARGEST)
    with (folder / SUMS).open("a") as file:
        file.writelines(f"{'0' * 64}  model.{number}.onnx\n" for number in range(4))
    with pytest.raises(ModelError, match="more than any bundle"):
        verify(folder)


def test_a_link_to_itself_is_a_missing_file(folder: Path) -> None:
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to("model.onnx")
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        Bundle.open(folder)


@pytest.mark.parametrize("name", ["SHA256SUMS", "card.json", "model.onnx"])
def test_what_is_no_file_is_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=name):
        Bundle.open(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ModelError, match=name):
        Bundle.open(folder)


def test_files_that_are_not_listed_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "engines").mkdir()
    for name in ("engines/fp16.engine", "engines/fp16.json", "engines/timing.cache", "notes.txt"):
        (folder / name).write_text("{}")
    assert unlisted(folder) == ["engines/fp16.engine", "engines/fp16.json", "engines/timing.cache", "notes.txt"]
    typed = edgecxr("bundle", "verify", folder, runs=tmp_path / "runs")
    assert typed.code == 0
    lines = typed.out.splitlines()
    assert lines[:3] == ["card.json: OK", "gate.npy: OK", "model.onnx: OK"]
    # No record that this machine has sealed stands beside it.
    assert re.fullmatch(r"engines/fp16\.engine: not listed \(not built by .*: never loaded\)", lines[3])
    assert re.fullmatch(r"engines/fp16\.json: not listed \(not built by .*: never loaded\)", lines[4])
    assert lines[5:] == ["engines/timing.cache: not listed (of a build)", "notes.txt: not listed"]


def test_an_engine_of_this_device_is_said_to_be(folder: Path, tmp_path: Path) -> None:
    from unittest import mock

    from edgecxr.bundle.engine_record import EngineEnvironment, EngineRecord

    here = EngineEnvironment("GPU", "8.7", "tensorrt", "10.3.0")
    record = EngineRecord("fp16", here, "model.onnx", "0" * 64, "0" * 64, 2, (1, 1, 1), None, 1.0, "strong")
    (folder / "engines").mkdir()
    (folder / "engines" / "fp16.engine").write_text("{}")
    with mock.patch.dict(os.environ, EDGECXR_STATE=str(tmp_path / "state")):
        record.write(folder / "engines" / "fp16.json")
    typed = edgecxr("bundle", "verify", folder, runs=tmp_path / "runs", EDGECXR_STATE=str(tmp_path / "state"))
    assert "engines/fp16.engine: not listed (built on this device)" in typed.out.splitlines()


def test_no_end_of_unlisted_files_is_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "_MOST_UNLISTED", 3)
    for number in range(5):
        (folder / f"extra{number}").touch()
    assert unlisted(folder) == ["extra0", "extra1", "extra2"]


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HOSTILE: list[tuple[str, Any, str]] = [
    ("metrics", nested(40), "nested more than 32 levels"),
    ("metrics", nested(900), "nested"),
    ("labels", "abc", "labels are not a list"),
    ("labels", [f"x{i}" for i in range(1001)], "more than 1000 labels"),
    ("labels", ["x" * 1001], "labels are not texts"),
    ("labels", ["A", 7], "labels are not texts"),
    ("labels", ["A", "A"], "labels are not different"),
    ("labels", ["abnormal"], "labels are not different"),
    ("size", 10**19, "size is not a whole number above 0"),
    ("size", True, "size is not a whole number above 0"),
    ("tokens", -4, "tokens is not a whole number above 0"),
    ("tokens", 50, "tokens are not a square number"),
    ("patch", 13, "size is not a multiple of patch"),
    ("format", 1.0, "format is not a whole number"),
    ("format", True, "format is not a whole number"),
    ("notice", None, "notice is not a text"),
    ("version", 3, "version is not a text"),
    ("teacher", {}, "teacher is not a text"),
    ("input", "stretch", "input is stretch, not one of native, upsample"),
    ("operating_points", {"youden": {"abnormal": 10**19}}, "which is no probability"),
    ("operating_points", {"youden": {"abnormal": 1.5}}, "is 1.5, which is no probability"),
    ("operating_points", {f"r{i}": {} for i in range(51)}, "more than 50 operating points"),
    ("operating_counts", {"abnormal": {"positives": 1}}, "operating_counts"),
    ("operating_counts", {"abnormal": 3}, "operating_counts"),
    ("temperature", {"abnormal": 10**19}, "which is no number"),
    ("temperature", {"abnormal": True}, "is True, which is no number"),
    ("artefacts", {"../model.onnx": {}}, "cannot be the name of a model file"),
    ("artefacts", {"model.onnx": {"precision": 32}}, "precision of model.onnx is not a text"),
    ("artefacts", {"model.onnx": {"bytes": -1}}, "bytes of model.onnx is not a whole number"),
    ("artefacts", {f"m{i}.onnx": {} for i in range(33)}, "more than 32 model files"),
]


@pytest.mark.parametrize(("key", "value", "message"), HOSTILE, ids=lambda value: str(value)[:40])
def test_a_card_that_cannot_be_is_refused_by_name(folder: Path, key: str, value: Any, message: str) -> None:
    card = json.loads((folder / "card.json").read_text()) | {key: value}
    seal(folder, json.dumps(card))
    with pytest.raises(ModelError, match=r"card\.json is not a model") as caught:
        Bundle.open(folder)
    assert message in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "text", ["[]", "null", "7", '"x"', "{", "[" * 100_000, '{"format": ' + "9" * 5000 + "}", "\ud7ff"]
)
def test_a_card_that_is_none_is_refused(folder: Path, text: str) -> None:
    with pytest.raises(ModelError, match=r"card\.json is not a model"):
        Bundle.open(seal(folder, text))


def test_names_inside_a_model_that_are_no_text_are_refused(folder: Path) -> None:
    model = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(model.replace(b"findings", b"\x80indings"))
    with pytest.raises(ModelError, match=r"model\.onnx"):
        Predictor(seal(folder))


def with_weights_in(folder: Path, place: str) -> bytes:
    """Return the model with a tensor that lies in another file."""
    model = onnx.load(folder / "model.onnx")
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "pick")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", place), ("offset", "0"), ("length", "48")):
        tensor.external_data.add(key=key, value=value)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("place", ["../weights.bin", "/weights.bin", "a/../../weights.bin", "weights.bin"])
def test_a_model_cannot_take_its_weights_from_another_file(folder: Path, place: str) -> None:
    for parent in (folder, folder.parent):
        (parent / "weights.bin").write_bytes(bytes(48))
    place = str(folder.parent / place[1:]) if place.startswith("/") else place
    (folder / "model.onnx").write_bytes(with_weights_in(folder, place))
    with pytest.raises(ModelError, match=r"model\.onnx takes weights from other"):
        Bundle.open(seal(folder)).artefact()


def test_a_model_may_speak_of_a_location(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    onnx.helper.set_model_props(model, {"card": '{"location": "Hanoi",\n"location": 1}', "location of films": "x"})
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with Predictor(seal(folder)) as predictor:
        assert predictor.predict(FILM).model == "tiny-test"


def test_a_model_that_answers_something_else_is_refused(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    # The shapes that a file states bind nobody: free ones hide three answers for one image.
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    two = json.loads((folder / "card.json").read_text()) | {"labels": list(LABELS[:2]), "operating_points": {}}
    with (
        pytest.raises(ModelError, match=r"has findings of 3 for each .*card\.json says 2 labels"),
        Predictor(seal(folder, json.dumps(two))) as predictor,
    ):
        predictor.predict(FILM)


def use(folder: Path) -> None:
    """Do with a bundle what the commands do."""
    bundle = Bundle.open(folder)
    describe(bundle).encode("utf-8", "backslashreplace")
    json.loads(bundle.card.to_json())
    unlisted(folder)
    with Predictor(bundle) as predictor:
        predictor.predict(FILM)


FILM = np.linspace(0, 1, 224 * 224, dtype=np.float32).reshape(224, 224)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = [*json.loads(tiny_card().to_json()), "unknown"]


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(st.sampled_from(KEYS), JSON | st.sampled_from([v for _, v, _ in HOSTILE]), max_size=3))
def test_no_card_ends_in_a_traceback(tmp_path: Path, changes: dict[str, Any]) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    card = json.loads((folder / "card.json").read_text()) | changes
    try:
        use(seal(folder, json.dumps(card)))
    except EdgeCxrError as error:
        # A rule that is not on the card is the user's to name; all else is the bundle's fault.
        assert isinstance(error, ModelError) or "no operating point" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 1000


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    name=st.sampled_from(["card.json", "model.onnx", "SHA256SUMS"]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), min_size=1, max_size=4),
    cut=st.none() | st.floats(0, 1),
    sealed=st.booleans(),
)
def test_no_damage_ends_in_a_traceback(
    tmp_path: Path, name: str, edits: list[tuple[float, bytes]], cut: float | None, sealed: bool
) -> None:
    folder = tiny_bundle(tmp_path / "bundle").path
    data = bytearray((folder / name).read_bytes())
    for place, new in edits:
        at = int(place * len(data))
        data[at : at + len(new)] = new
    (folder / name).write_bytes(data if cut is None else data[: int(cut * len(data))])
    if sealed and name != "SHA256SUMS":  # as a stranger would, who knows how
        seal(folder)
    try:
        use(folder)
    except EdgeCxrError as error:
        assert isinstance(error, ModelError) or "no operating point" in str(error)

"""What a device is: the targets that come with edgecxr, and files that users write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgecxr.engines.target import load_target, target_names
from edgecxr.errors import UsageError
from tests.cli_workspace import edgecxr

SOUND = {
    "name": '"my-board"', "description": '"a board"', "engine": '"tensorrt"', "profile": '"modern"',
    "precisions": '["fp32", "fp16"]', "int8_float": '"fp16"', "memory_mib": "512", "tensorrt": '["8.6", "10.3"]',
}  # fmt: skip


def write(folder: Path, **changes: str | None) -> Path:
    """Write a target; a key that is changed to None is left out."""
    lines = [f"{key} = {value}" for key, value in (SOUND | changes).items() if value is not None]
    path = folder / "board.toml"
    path.write_text("\n".join(lines))
    return path


def test_the_devices_that_come_with_edgecxr() -> None:
    assert target_names() == (
        "cpu-arm64", "cpu-x86", "h200", "jetson-agx-orin", "jetson-orin-nano", "jetson-thor", "jetson-xavier", "v100",
    )  # fmt: skip
    for name in target_names():
        assert load_target(name).name == name


def test_what_a_v100_cannot_do_is_said() -> None:
    v100 = load_target("v100")
    assert v100.precisions == ("fp32", "fp16") and v100.tensorrt == ("8.5", "10.4")
    assert any("no INT8 tensor cores" in note for note in v100.notes)
    assert any("10.4 is the last" in note for note in v100.notes)


def test_a_users_file_is_read(tmp_path: Path) -> None:
    target = load_target(str(write(tmp_path, batches="[1, 2, 4]", notes='["Untested."]')))
    assert (target.name, target.precisions, target.memory_mib) == ("my-board", ("fp32", "fp16"), 512)
    assert (target.tensorrt, target.batches, target.notes) == (("8.6", "10.3"), (1, 2, 4), ("Untested.",))
    assert target.compute_capability is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jetson-orin-nan", "did you mean 'jetson-orin-nano'"),
        ("V100", "did you mean 'v100'"),
        ("toaster", "there are: cpu-arm64"),
        ("board.toml", "or a TOML file"),
        ("jetson-nano", "JetPack 4.6"),
        ("jetson-tx2", "JetPack 4.6"),
    ],
)
def test_a_device_that_is_not_there_is_explained(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_target(name)
    assert message in str(caught.value) and f"no target {name!r}" in str(caught.value)
    typed = edgecxr("export", "--target", name, runs=tmp_path / "runs")
    assert typed.code == 2 and message in typed.error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"memory_mb": "512", "memory_mib": None}, "unknown key 'memory_mb'; did you mean 'memory_mib'?"),
        ({"engine": None}, "the key 'engine' is missing"),
        ({"memory_mib": '"512"'}, "the key 'memory_mib' has the value '512', which is not a whole number"),
        ({"memory_mib": "true"}, "the key 'memory_mib' has the value True, which is not a whole number"),
        ({"memory_mib": "512.0"}, "the key 'memory_mib' has the value 512.0, which is not a whole number"),
        ({"memory_mib": "-1"}, "memory_mib -1: from 0 to"),
        ({"memory_mib": "9999999"}, "memory_mib 9999999: from 0 to"),
        ({"precisions": '"fp16"'}, "the key 'precisions' has the value 'fp16', which is not a list of text"),
        ({"precisions": "[16]"}, "the key 'precisions' has the value 16, which is not text"),
        ({"precisions": '["fp8"]'}, "precisions ['fp8']: each of fp32, fp16, int8"),
        ({"precisions": '["fp16", "fp16"]'}, "at most once"),
        ({"precisions": "[]"}, "not none"),
        ({"engine": '"tensort"'}, "engine 'tensort': there are tensorrt, onnxruntime, openvino"),
        ({"profile": '"new"'}, "profile 'new': there are recent, modern, legacy"),
        ({"int8_float": '"bf16"'}, "int8_float 'bf16'"),
        ({"batches": "[1, 8]"}, "the key 'batches' has the value [1, 8], which is not a list of a whole number, 3"),
        ({"batches": "[0, 1, 2]"}, "batches [0, 1, 2]"),
        ({"batches": "[8, 4, 64]"}, "batches [8, 4, 64]"),
        ({"batches": "[1, 8, 5000]"}, "from 1 to 4096"),
        ({"tensorrt": None}, "tensorrt: the oldest and newest version"),
        ({"engine": '"onnxruntime"'}, "tensorrt: the oldest and newest version, for engine tensorrt and no other"),
        ({"tensorrt": '["8.6", "ten"]'}, "two versions such as 8.5"),
        ({"tensorrt": '["10.3", "8.6"]'}, "the oldest, from 8.5, then the newest"),
        ({"tensorrt": '["8.2", "8.2"]', "profile": '"legacy"'}, "the oldest, from 8.5"),
        ({"tensorrt": '["8.5", "8.5"]'}, "profile 'modern': TensorRT parses it from 8.6"),
        ({"compute_capability": '"sm_87"'}, "compute_capability 'sm_87': such as 8.7"),
        ({"name": '"a/b"'}, "name 'a/b'"),
        ({"notes": r'["\u001b[2J"]'}, "description and notes: printable"),
        ({"description": '"unclosed'}, "cannot be read as TOML"),
        ({"memory_mib": "9" * 5000}, "cannot be read as TOML"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named_with_its_file(tmp_path: Path, changes: dict[str, str | None], message: str) -> None:
    path = write(tmp_path, **changes)
    with pytest.raises(UsageError) as caught:
        load_target(str(path))
    assert str(caught.value).startswith(f"{path}") and message in str(caught.value)
    assert len(str(caught.value).removeprefix(str(path))) < 400 and "\n" not in str(caught.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"engine 'x'.*; profile 'y'.*; memory_mib -5"):
        load_target(str(write(tmp_path, engine='"x"', profile='"y"', memory_mib="-5")))


def test_what_is_no_file_of_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.toml").write_text("#" * (1 << 20) + "\n")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for name, message in (("large.toml", "64 KiB"), ("binary.toml", "cannot be read as TOML")):
        with pytest.raises(UsageError, match=f"{name} .*{message}"):
            load_target(str(tmp_path / name))
    os.mkfifo(tmp_path / "fifo.toml")
    with pytest.raises(UsageError, match="no target"):  # and does not wait for a writer
        load_target(str(tmp_path / "fifo.toml"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from([*SOUND, "batches", "notes", "compute_capability"]),
        st.one_of(
            st.integers().map(str),
            st.floats().map(lambda value: repr(value)),
            st.sampled_from(["[]", "{}", "true", "1979-05-27", "[[]]", '""', "[1, 1, 1]", '["8.5", "9.9"]', "inf"]),
            st.text(st.characters(codec="utf-8"), max_size=8),
            st.text("abc", max_size=8).map(lambda text: f'"{text}"'),
        ),
    )
)
def test_no_file_ends_in_a_traceback(tmp_path: Path, changes: dict[str, str]) -> None:
    path = write(tmp_path, **changes)
    try:
        target = load_target(str(path))
    except UsageError as error:
        assert str(path) in str(error)
    else:
        assert target.memory_mib >= 0 and target.batches[0] <= target.batches[2]


def test_targets_and_recipes_need_neither_torch_nor_onnx() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'timm', 'onnx', 'matplotlib'])); "
        "from edgecxr.engines.target import load_target; from edgecxr.export.recipe import Recipe; "
        "print(load_target('jetson-thor').profile, Recipe().seed)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "recent 0\n"), done.stderr

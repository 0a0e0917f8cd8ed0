"""benchmarks/roofline.py: a bound worked out by hand, and that nothing of it looks like a measurement."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgecxr.storage.settings import read_toml

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import roofline
from roofline import Work

PUBLISHED = read_toml(roofline.HERE / "peaks.toml")

# A thousand operations and a thousand bytes per second.
SLOW = """
[documents]
made = "Somebody: made up"
[devices.slow]
name = "slow"
fp32 = { value = 1e-9, document = "made", how = "read" }
memory = { value = 1e-6, document = "made", how = "derived" }
note = "Of nothing."
"""


def two_products(path: Path, dtype: type = np.float32) -> Path:
    """Write a model of 8 values -> 4 -> 2."""
    weights = {"first": np.ones((8, 4), dtype), "second": np.ones((4, 2), dtype)}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image", "first"], ["middle"]),
            helper.make_node("MatMul", ["middle", "second"], ["answers"]),
        ],
        "products",
        [helper.make_tensor_value_info("image", kind, ["N", 8])],
        [helper.make_tensor_value_info("answers", kind, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8),
        path,
    )
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Run the program as it is typed, and return the record that it wrote."""

    def typed(*args: str | Path) -> dict[str, Any]:
        out = tmp_path / "estimated" / "roofline.json"
        monkeypatch.setattr(sys, "argv", ["roofline.py", *map(str, args), "--out", str(out)])
        assert roofline.main() == 0
        return json.loads(out.read_text())

    return typed


def test_a_model_worked_out_by_hand(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "slow.toml").write_text(SLOW)
    record = run(two_products(tmp_path / "two.onnx"), "--peaks", tmp_path / "slow.toml")
    assert record["estimated"] is True
    (row,) = record["rows"]
    assert (row["device"], row["model"], row["precision"]) == ("slow", "two", "fp32")
    assert row["operations"] == 2 * (8 * 4 + 4 * 2)  # 80
    # 40 weights; 8 values come in and 2 go out; the products read 8 and 4 and write 4 and 2.
    assert row["bytes"] == {"weights": 160, "ends": 40, "activations": 72}
    # One image: 80 ms of arithmetic, 160 + 40 bytes. Sixty-four: 5120 ms, 160 + 2560 bytes.
    assert row["batches"] == {
        "1": {"estimated_ms_at_least": 200, "estimated_limit": "memory", "estimated_ms_at_least_uncached": 232},
        "64": {"estimated_ms_at_least": 5120, "estimated_limit": "compute", "estimated_ms_at_least_uncached": 5120},
    }


def test_every_column_of_numbers_says_that_it_is_estimated(
    run: Callable[..., dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(two_products(tmp_path / "two.onnx"))
    printed = capsys.readouterr().out
    header, _, *rows = [line for line in printed.splitlines() if line.startswith("|")]
    columns = [cell.strip() for cell in header.strip("|").split("|")]
    assert columns[:3] == ["device", "model", "precision"]
    assert all("estimated" in column for column in columns[3:]) and len(columns) == 9
    assert len(rows) == len(PUBLISHED["devices"])  # an FP32 file has a row on each
    assert all(len(row.strip("|").split("|")) == len(columns) for row in rows)
    assert "Launching a kernel" in printed and "well above" in printed


def test_a_reduced_file_alone_is_refused(run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="FP32"):
        run(two_products(tmp_path / "two.onnx", np.float16))
    assert not (tmp_path / "estimated").exists()


def test_what_has_no_published_rate_has_no_row() -> None:
    devices = roofline.devices(PUBLISHED)
    work = Work("model", "int8", 10**9, 10**6, 10**3, 10**4)
    assert roofline.estimate(devices["v100"], work) is None
    assert roofline.estimate(devices["jetson-orin-nano"], work) is not None


def test_every_peak_says_where_it_is_from() -> None:
    used = set()
    for name, entry in PUBLISHED["devices"].items():
        numbers = {key: value for key, value in entry.items() if isinstance(value, dict)}
        assert {"fp32", "fp16", "memory"} <= set(numbers) <= {"fp32", "fp16", "int8", "memory"}, name
        for number in numbers.values():
            assert number["value"] > 0 and number["how"] in ("read", "quoted", "derived")
            used.add(number["document"])
        assert entry["name"] and entry["note"]
    assert used == set(PUBLISHED["documents"])
    assert all(title.startswith("NVIDIA: ") for title in PUBLISHED["documents"].values())

"""What `evidence.py --status` and the figure say of records: nothing is left out without a word."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import evidence
import evidence_figure
from evidence_plan import Plan, read_plan
from evidence_status import status

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.errors import EdgeCxrError, InputError, UsageError
from tests.conftest import write_prepared

PLAN = """
[data.clinic]
[[run]]
name = "teacher"
data = "clinic"
method = "teacher"
res = 224
against = "none"
[[run]]
name = "none"
data = "clinic"
method = "none"
res = 28
seeds = [0, 1, 2]
[[run]]
name = "mlcak"
data = "clinic"
method = "mlcak"
res = 28
teacher = "teacher-s0"
seeds = [0, 1, 2]
against = "none"
"""

SIGNAL = {"teacher": 3.0, "none": 0.6, "mlcak": 1.6}
"""By how much the logits of a film with a finding are above those of one without."""


class Records:
    """A plan, its prepared films and records of all its runs."""

    def __init__(self, folder: Path, prepared: Prepared) -> None:
        self.prepared, self.folder, self.records = prepared, folder / "work", folder / "records"
        self.records.mkdir()
        (self.folder / "data").mkdir(parents=True)
        (self.folder / "data" / "clinic").symlink_to(prepared.path)
        self.file = folder / "plan.toml"
        self.file.write_text(PLAN)
        for run in self.plan().runs:
            self.write(run.id)

    def plan(self, before: str = "", after: str = "") -> Plan:
        if before:
            self.file.write_text(PLAN.replace(before, after))
        return read_plan(self.file)

    def write(self, name: str, **changes: Any) -> None:
        run = next(run for run in self.plan().runs if run.id == name)
        rows = self.prepared.rows("test")
        random = np.random.default_rng(sum(map(ord, name)))
        targets = np.nan_to_num(np.column_stack([self.prepared.targets, self.prepared.abnormal])[rows])
        logits = (targets * SIGNAL[run.name] + random.normal(size=targets.shape)).astype(np.float32)
        findings, abnormal = logits[:, :-1], logits[:, -1]
        once = np.ones((1, len(rows)), np.float32)
        test = {
            "findings": metrics.aurocs(self.prepared.targets[rows], findings, once).macro.value,
            "abnormal": metrics.aurocs(self.prepared.abnormal[rows, None], abnormal[:, None], once).macro.value,
        }
        weights = {"teacher-s0": "t"}.get(name, name)
        taught = {"run": run.teacher, "sha256": "t"} if run.teacher else None
        record = {
            "run": name, "status": "done", "spec": run.spec, "data": {"hash": self.prepared.hash}, "teacher": taught,
            "weights": {"sha256": weights}, "commit": "c" * 40, "test": test, "best_epoch": 1, "minutes": 1,
            "products": "float32",
        }  # fmt: skip
        np.savez(
            self.records / f"{name}.npz", findings=findings, abnormal=abnormal, grid=np.uint8(7),
            strongest=np.zeros(len(rows), np.uint16),
        )  # fmt: skip
        (self.records / f"{name}.json").write_text(json.dumps(record | changes))

    def status(self) -> str:
        return status(self.plan(), self.folder, self.records, 60)


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """240 test films with common findings, one of three films and one that nobody has."""
    random = np.random.default_rng(0)
    count = 246
    targets = np.zeros((count, 4), np.float32)
    targets[:, :2] = random.random((count, 2)) < (0.4, 0.3)
    targets[[10, 20, 30], 2] = 1
    abnormal = targets.max(axis=1)
    targets[::9, 1] = np.nan
    splits = ["train"] * 3 + ["val"] * 3 + ["test"] * (count - 6)
    folder = tmp_path_factory.mktemp("ward") / "clinic"
    images = np.zeros((count, 224, 224), np.uint8)
    return write_prepared(folder, images, targets, abnormal, splits, ("Nodule", "Effusion", "Edema", "Hernia"))


@pytest.fixture
def records(tmp_path: Path, ward: Prepared) -> Records:
    return Records(tmp_path, ward)


def row(text: str, name: str) -> str:
    (line,) = (line for line in text.splitlines() if line.startswith(name))
    return line


def test_the_table_names_seeds_positive_films_and_what_it_leaves_out(records: Records) -> None:
    text = records.status()
    positives = (records.prepared.targets[records.prepared.rows("test")] >= 0.5).sum(axis=0)
    assert positives.tolist()[2:] == [3, 0]
    table = text.partition("share of the gap")[0]
    for label, count in zip(records.prepared.labels[:3], positives, strict=False):
        assert row(table, f"{label} ({count})").count("[none, 3 seeds]") == 2
    assert row(text, "macro: of 3 findings").endswith("Hernia (0)")
    assert "not made by the same code" not in text


def test_findings_of_few_films_are_not_in_the_macro(records: Records) -> None:
    records.plan("[data.clinic]", "fewest_positives = 10\n[data.clinic]")
    text = records.status()
    assert row(text, "macro: of 2 findings").endswith("Edema (3), Hernia (0)")
    assert not any(line.startswith(("Edema", "Hernia")) for line in text.splitlines())
    records.plan("[data.clinic]", "fewest_positives = 200\n[data.clinic]")
    with pytest.raises(InputError, match="fewest_positives"):
        records.status()


def test_the_share_of_the_gap_is_that_of_the_means(records: Records) -> None:
    text = records.status()
    means = {
        name: np.mean(
            [json.loads((records.records / f"{name}-s{seed}.json").read_text())["test"]["abnormal"] for seed in seeds]
        )
        for name, seeds in {"teacher": [0], "none": [0, 1, 2], "mlcak": [0, 1, 2]}.items()
    }
    expected = (means["mlcak"] - means["none"]) / (means["teacher"] - means["none"])
    shares = text[text.index("share of the gap") :]
    assert float(row(shares, "normal/abnormal").split()[1].rstrip("%")) == pytest.approx(100 * expected, abs=1)


def test_unlike_code_and_products_are_named(records: Records) -> None:
    records.write("mlcak-s1", products="bfloat16")
    records.write("none-s2", commit="d" * 40)
    lines = records.status().splitlines()
    lines = lines[lines.index("compared, but not made by the same code:") :]
    assert [line.split()[0] for line in lines[1:3]] == ["mlcak-s1", "mlcak-s2"] and "none-s2 by dddd" in lines[2]


def truncated(records: Records) -> None:
    path = records.records / "none-s1.npz"
    path.write_bytes(path.read_bytes()[:-100])


def of_another_run(records: Records) -> None:
    (records.records / "none-s1.npz").write_bytes((records.records / "mlcak-s1.npz").read_bytes())


def not_finite(records: Records) -> None:
    path = records.records / "none-s1.npz"
    with np.load(path) as file:
        values = dict(file)
    values["findings"][:3] = math.nan
    np.savez(path, **values)


def of_fewer_films(records: Records) -> None:
    path = records.records / "none-s1.npz"
    with np.load(path) as file:
        values = {key: value[:-1] if value.ndim else value for key, value in file.items()}
    np.savez(path, **values)


def no_archive(records: Records) -> None:
    (records.records / "none-s1.npz").write_bytes(b"")


@pytest.mark.parametrize("damage", [truncated, of_another_run, not_finite, of_fewer_films, no_archive])
def test_damaged_or_exchanged_answers_are_named(records: Records, damage: Callable[[Records], None]) -> None:
    damage(records)
    with pytest.raises(InputError, match=r"none-s1\.npz") as caught:
        records.status()
    assert "remove" in str(caught.value)


def test_a_record_of_other_films_is_refused_without_the_films(records: Records) -> None:
    records.plan("[data.clinic]", f'[data.clinic]\nhash = "{records.prepared.hash}"')
    (records.folder / "data" / "clinic").unlink()
    assert "need its films" in records.status()
    records.write("none-s1", data={"hash": "others"})
    with pytest.raises(UsageError, match=r"none-s1\.json was made with another data set clinic"):
        records.status()


@pytest.mark.parametrize("missing", ["test", "spec", "commit"])
def test_a_record_without_something_is_named(records: Records, missing: str) -> None:
    path = records.records / "none-s1.json"
    whole = json.loads(path.read_text())
    del whole[missing]
    path.write_text(json.dumps(whole))
    with pytest.raises(EdgeCxrError, match=r"none-s1\.json is no whole record"):
        records.status()


def test_several_teachers_are_not_compared_with_several_students(records: Records) -> None:
    with pytest.raises(UsageError, match="both with several seeds: compare one teacher"):
        records.plan("res = 224", "res = 224\nseeds = [0, 1]")


def test_a_folder_of_records_that_is_not_there_is_named(
    records: Records, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "evidence.py",
        str(records.file),
        "--status",
        "--folder",
        str(records.folder.parent),
        "--records",
        "/nowhere",
    ]
    monkeypatch.setattr(sys, "argv", words)
    assert evidence.main() == 2 and "/nowhere" in capsys.readouterr().err


def test_a_figure_of_several_data_sets_asks_which(
    records: Records, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records.plan("[data.clinic]", "[data.others]\n[data.clinic]")
    picture = records.folder.parent / "picture.png"
    words = [
        "figure",
        str(records.file),
        "--folder",
        str(records.folder.parent / "base"),
        "--records",
        str(records.records),
    ]
    words += ["--out", str(picture), "--replicates", "20"]
    (records.folder.parent / "base").mkdir()
    (records.folder.parent / "base" / "data").symlink_to(records.folder / "data")
    monkeypatch.setattr(sys, "argv", words)
    assert evidence_figure.main() == 2 and "--data clinic" in capsys.readouterr().err and not picture.exists()
    monkeypatch.setattr(sys, "argv", [*words, "--data", "clinic"])
    assert evidence_figure.main() == 0 and picture.stat().st_size > 1000


def test_the_legend_says_of_what_a_difference_is_and_of_how_many_seeds(records: Records) -> None:
    (records.records / "mlcak-s2.json").unlink()
    samples = evidence_figure.differences(records.plan(), records.prepared, records.records, 20)
    assert list(samples) == ["teacher - none (3 seeds)", "mlcak - none (2 seeds)"]

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from edgecxr.benchmark import measure as module
from edgecxr.benchmark import options, turns
from edgecxr.benchmark.measure import Settings
from edgecxr.benchmark.model_process import Refused
from edgecxr.benchmark.record import Record, read
from edgecxr.benchmark.record import write as write_record
from edgecxr.data.pack import pack
from edgecxr.data.prepared import Prepared
from edgecxr.doctor.listing import Row
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.machine.gpu import Gpus
from edgecxr.workspace import Workspace
from tests.benchmark.benchmarked import STUDENT, TEACHER, workspace
from tests.cli_workspace import edgecxr
from tests.conftest import striped, write_prepared
from tests.films.dicom_files import film, write

ONE_PASS = Settings(threads=1, max_batch=4, passes=1, energy_s=0.1, replicates=100)
QUICK = Settings(threads=1, max_batch=4, passes=2, energy_s=0.1, replicates=100)


@pytest.fixture(autouse=True)
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURNS", 2)
    monkeypatch.setattr(turns, "TURN_S", 0.0)
    monkeypatch.setattr(turns, "BATCH_S", 0.001)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return workspace(tmp_path_factory.mktemp("benchmarked") / "runs")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    return write(film(pixels, BitsStored=12), tmp_path_factory.mktemp("scan"))


def measure(place: Workspace, scan: Path, out: Path, **changes: Any) -> Record:
    how = {key: changes.pop(key) for key in ("settings", "update") if key in changes}
    choices = {"backends": ["onnxruntime"], "data": "quadrants", "film": scan} | changes
    settings, update = how.get("settings", QUICK), how.get("update", lambda *_: None)
    return options.run(place, options.BenchmarkOptions(**choices), settings, out, update)


def test_a_record_says_what_each_model_costs_and_is_worth(place: Workspace, scan: Path, tmp_path: Path) -> None:
    steps: list[tuple[Any, ...]] = []
    record = measure(place, scan, tmp_path / "a.json", update=lambda *step: steps.append(step))
    assert read(tmp_path / "a.json") == record and record["complete"]
    rows = {row["model"]: row for row in record["rows"]}
    assert set(rows) == {TEACHER, STUDENT}
    for row in rows.values():
        assert row["status"] == "ok" and row["latency_ms"]["runs"] == 2 * 2 * 3
        assert [each["batch"] for each in row["throughput"]] == [1, 4]
        assert row["start_s"]["total"] == pytest.approx(
            sum(row["start_s"][part] for part in ("process", "open", "first")), abs=1e-3
        )
        assert row["film_ms"]["total"]["runs"] == 2 * turns.FILM_RUNS
        assert row["artefact"]["bytes"] == (place.export_dir(row["model"]) / "model.onnx").stat().st_size
        assert "absent" in row["energy"] or row["energy"]["batches"]
        assert row["auroc"]["findings"]["auroc"] > 0.9
    assert record["models"][STUDENT]["compared_with"] == TEACHER
    assert rows[STUDENT]["against_teacher"]["row"] == f"{TEACHER}/onnxruntime/fp32"
    # Both see the same quadrants.
    assert abs(rows[STUDENT]["against_teacher"]["abnormal"]["difference"]) < 0.05
    assert record["data"]["images"] == 24 and "64 x 64 pixels" in record["film"]
    assert record["conditions"][0]["when"] == "before" and steps[-1][:2] == (6, 6)
    assert len({step[1] for step in steps}) == 1 and [s[0] for s in steps] == sorted(s[0] for s in steps)


def test_a_record_that_is_sent_away_names_no_folder_and_no_film(
    place: Workspace, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "Jane Doe" / "DOE_JOHN_1970.dcm"
    private.parent.mkdir()
    shutil.copy(scan, private)
    real = turns.Worker

    class Worker(real):  # type: ignore[misc,valid-type]
        def film(self, path: Path, runs: int) -> Any:
            path.unlink()
            return super().film(path, runs)

        def time(self, batch: int, runs: int, warm: int = 0) -> Any:
            if batch > 1:
                raise Refused(f"{place.export_dir(STUDENT)}/model.onnx, /usr/lib/lib.so: full")
            return super().time(batch, runs, warm)

    monkeypatch.setattr(turns, "Worker", Worker)
    measure(place, private, tmp_path / "a.json", models=[str(place.export_dir(STUDENT))], settings=ONE_PASS)
    text = (tmp_path / "a.json").read_text()
    record = json.loads(text)
    assert record["rows"][0]["problems"]["film"].startswith("FILM does not exist")
    assert record["rows"][0]["throughput"][1]["skipped"] == "model.onnx, lib.so: full"
    assert record["command"].startswith(
        f"edgecxr benchmark {STUDENT} --backend onnxruntime --data quadrants --film FILE"
    )
    for name in ("DOE_JOHN", "Jane", str(tmp_path), str(place.root), "/usr/lib"):
        assert name not in text, name


def test_a_pack_does_for_a_device_what_the_data_set_does(place: Workspace, scan: Path, tmp_path: Path) -> None:
    pack(Prepared.open(place.data_dir("quadrants")), "test", None, tmp_path / "test.npz")
    record = measure(place, scan, tmp_path / "a.json", data=str(tmp_path / "test.npz"), models=[STUDENT])
    assert record["rows"][0]["auroc"]["findings"]["auroc"] > 0.9 and record["data"]["images"] == 24
    assert not record["models"][STUDENT]["trained_on_other_data"]


def test_the_split_of_a_pack_is_its_own(place: Workspace, scan: Path, tmp_path: Path) -> None:
    pack(Prepared.open(place.data_dir("quadrants")), "val", None, tmp_path / "val.npz")
    record = measure(
        place, scan, tmp_path / "a.json", data=str(tmp_path / "val.npz"), models=[STUDENT], settings=ONE_PASS
    )
    assert (record["data"]["split"], record["data"]["images"]) == ("val", 8)


def test_without_data_it_measures_latency_alone_and_says_so(
    place: Workspace, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = Workspace(tmp_path / "bare")
    record = measure(bare, scan, tmp_path / "a.json", data=None, models=[str(place.export_dir(STUDENT))])
    assert record["data"] is None and "auroc" not in record["rows"][0] and record["rows"][0]["latency_ms"]["p50"] > 0
    assert "latency only" in capsys.readouterr().err


def test_an_engine_that_fails_is_a_row_with_its_reason_and_the_rest_goes_on(
    place: Workspace, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = turns.Worker

    def failing(opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> Any:
        if shape[-1] == 224:
            arguments = arguments | {"path": Path("gone.onnx")}
        return real(opener, arguments, shape)

    monkeypatch.setattr(turns, "Worker", failing)
    record = measure(place, scan, tmp_path / "a.json", backends=["onnxruntime", "onnxruntime-cuda"])
    rows = {row["id"]: row for row in record["rows"]}
    assert rows[f"{TEACHER}/onnxruntime/fp32"]["status"] == "failed"
    assert "gone.onnx does not exist" in rows[f"{TEACHER}/onnxruntime/fp32"]["reason"]
    assert rows[f"{STUDENT}/onnxruntime/fp32"]["status"] == "ok"
    # ONNX Runtime is here without its CUDA: that is said once, and no row of each model.
    assert "onnxruntime-cuda" in record["absent"] and len(rows) == 2
    assert not any("cuda" in each["when"] for each in record["conditions"])


def test_where_no_gpu_is_found_its_engines_are_not_tried_unless_named(
    place: Workspace, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    none = [Row("gpu", "gpu", "absent", "no NVIDIA GPU found", "mend it")]
    monkeypatch.setattr(module, "gpus", lambda root: Gpus(()))
    monkeypatch.setattr(module, "gpu_rows", lambda gpus, root: none)
    record = measure(place, scan, tmp_path / "a.json", backends=[], models=[STUDENT], data=None)
    assert "no NVIDIA GPU" in record["absent"]["tensorrt"] and "mend it" in record["absent"]["tensorrt"]
    assert {row["backend"] for row in record["rows"]} <= {"onnxruntime", "openvino"}


def test_nothing_measured_is_an_error_that_says_why(place: Workspace, scan: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second time, too
        with pytest.raises(ModelError, match=r"nothing could be measured: .*CUDA"):
            measure(place, scan, tmp_path / "a.json", backends=["onnxruntime-cuda"], data=None)
    assert not read(tmp_path / "a.json")["complete"]


def test_an_interruption_leaves_what_was_measured(place: Workspace, scan: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, note: str = "") -> None:
        if "pass 2" in note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(place, scan, tmp_path / "a.json", update=interrupt)
    kept = read(tmp_path / "a.json")
    assert not kept["complete"] and all(row["latency_ms"]["runs"] == 6 for row in kept["rows"])


def test_aurocs_survive_an_interruption_too(place: Workspace, scan: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, note: str = "") -> None:
        if f"AUROC of {STUDENT}" in note:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(place, scan, tmp_path / "a.json", update=interrupt, settings=ONE_PASS)
    rows = {row["model"]: row for row in read(tmp_path / "a.json")["rows"]}
    assert rows[TEACHER]["auroc"]["findings"]["auroc"] > 0.9 and "auroc" not in rows[STUDENT]


def test_before_anything_is_measured_rows_are_pending(place: Workspace, scan: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(place, scan, tmp_path / "a.json", update=interrupt)
    assert {row["status"] for row in read(tmp_path / "a.json")["rows"]} == {"pending"}


@pytest.mark.parametrize("before_it_is_asked", [False, True])
def test_a_batch_that_ends_the_process_leaves_the_model_its_figures(
    place: Workspace, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before_it_is_asked: bool
) -> None:
    real = turns.Worker

    class Mortal(real):  # type: ignore[misc,valid-type]
        def time(self, batch: int, runs: int, warm: int = 0) -> Any:
            if batch > 1:
                status = Path(f"/proc/{self.pid}/stat")
                os.kill(self.pid, signal.SIGKILL)
                while before_it_is_asked and status.read_text().rpartition(")")[2].split()[0] != "Z":
                    time.sleep(0.01)
            return super().time(batch, runs, warm)

    monkeypatch.setattr(turns, "Worker", Mortal)
    record = measure(place, scan, tmp_path / "a.json", models=[STUDENT])
    (row,) = record["rows"]
    assert row["status"] == "ok" and row["latency_ms"]["runs"] == 12 and row["auroc"]["findings"]
    assert re.search(r"batch 4: .*ended by SIGKILL", row["problems"]["throughput"])


def test_data_are_taken_by_what_the_models_learnt_from(
    place: Workspace, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Workspace(tmp_path / "runs")
    shutil.copytree(place.root, other.root)
    record = measure(other, scan, tmp_path / "a.json", data=None, models=[STUDENT], settings=ONE_PASS)
    assert record["data"]["name"] == "quadrants" and "films of quadrants" in capsys.readouterr().err
    info = other.data_dir("quadrants") / "dataset.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"hash": "e" * 64}))
    record = measure(other, scan, tmp_path / "b.json", data=None, models=[STUDENT], settings=ONE_PASS)
    assert record["data"] is None and "no AUROC on quadrants" in capsys.readouterr().err
    record = measure(other, scan, tmp_path / "c.json", models=[STUDENT], settings=ONE_PASS)
    assert record["models"][STUDENT]["trained_on_other_data"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"film": Path("gone.dcm")}, InputError, "gone.dcm"),
        ({"data": "gone"}, InputError, "gone"),
        ({"settings": Settings(1, split="tset")}, UsageError, "tset"),
        ({"settings": Settings(1, split="val"), "data": "no val"}, InputError, "--split"),
        ({"against": "nosuch"}, UsageError, "nosuch is not among the models"),
        ({"models": [STUDENT, "gone"]}, ModelError, "gone"),
    ],
)
def test_what_was_named_wrongly_is_refused_before_anything_is_measured(
    place: Workspace, scan: Path, tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    if changes.get("data") == "no val":
        write_prepared(tmp_path / "runs" / "data" / "some", *striped(8)[:3], ["test"] * 8)
        place, changes = Workspace(tmp_path / "runs"), changes | {"data": "some"}
        shutil.copytree(workspace(tmp_path / "of" / "runs").root / "export", tmp_path / "runs" / "export")
    with pytest.raises(error, match=message):
        measure(place, scan, tmp_path / "a.json", **changes)
    assert not (tmp_path / "a.json").exists()


def test_a_record_that_cannot_be_written_is_known_at_once(place: Workspace, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="--out"):
        measure(place, scan, tmp_path / "file" / "a.json", update=lambda *_: pytest.fail("it began"))


def test_a_record_is_not_written_over_unless_an_interruption_left_it(
    place: Workspace, scan: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.json"
    record = measure(place, scan, out, data=None, models=[STUDENT])
    with pytest.raises(UsageError, match="there already"):
        measure(place, scan, out, data=None, models=[STUDENT])
    assert read(out) == record
    write_record(record | {"complete": False, "command": "another"}, out)
    with pytest.raises(UsageError, match="there already"):
        measure(place, scan, out, data=None, models=[STUDENT])
    write_record(record | {"complete": False}, out)
    assert measure(place, scan, out, data=None, models=[STUDENT])["complete"]
    with pytest.raises(UsageError, match=r"ends in \.json"):
        measure(place, scan, scan, data=None, models=[STUDENT])


def test_other_findings_than_the_datas_are_no_auroc_but_no_end_either(
    place: Workspace, scan: Path, clinic: Prepared, tmp_path: Path
) -> None:
    pack(clinic, "test", None, tmp_path / "other.npz")
    record = measure(place, scan, tmp_path / "a.json", data=str(tmp_path / "other.npz"), models=[STUDENT])
    assert "those of" in record["rows"][0]["no_auroc"] and record["rows"][0]["latency_ms"]


def test_the_command_prints_tables_or_the_record_and_compares(place: Workspace, scan: Path, tmp_path: Path) -> None:
    common = ("benchmark", "--backend", "onnxruntime", "--passes", "1", "--film", scan, "--replicates", "100",
              "--max-batch", "1", "--threads", "1")  # fmt: skip
    typed = edgecxr(*common, "--out", tmp_path / "a.json", runs=place.root)
    assert typed.code == 0, typed.err
    assert "Best against best" in typed.out and STUDENT in typed.out and "Research use only" in typed.out
    typed = edgecxr(*common, STUDENT, "--json", "--out", tmp_path / "b.json", runs=place.root)
    assert json.loads(typed.out) == read(tmp_path / "b.json")
    typed = edgecxr("benchmark", "--compare", tmp_path / "a.json", tmp_path / "b.json", runs=place.root)
    assert typed.code == 0 and f"only in A: {TEACHER}/onnxruntime/fp32" in typed.out
    typed = edgecxr("benchmark", "--compare", tmp_path / "a.json", tmp_path / "gone.json", runs=place.root)
    assert typed.code == 3 and "gone.json" in typed.error

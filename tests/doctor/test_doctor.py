"""The command as a whole: what it prints, its exit codes, the workspace, and that nothing ends it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgecxr import resolve
from edgecxr.doctor import examine, packages, places
from edgecxr.doctor.ask import Answer
from edgecxr.doctor.listing import STATUSES, Row, as_json, as_text, exit_code, guarded
from edgecxr.workers.confine import landlock_version
from edgecxr.workspace import Workspace
from tests.cli_workspace import CommandResult, edgecxr
from tests.tiny_bundle import tiny_bundle

GOOD = {
    "onnxruntime": Answer({"version": "1", "listed": ["CPUExecutionProvider"], "loaded": ["CPUExecutionProvider"]}),
    "decoders": Answer({"syntaxes": []}),
    "isolation": Answer({"possible": [], "by": ["Landlock", "seccomp"], "landlock": 7}),
}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """Answer in place of the child processes; a test may change the answers."""
    answers = dict(GOOD)
    monkeypatch.setattr(examine, "ask", lambda name, _: answers[name])
    monkeypatch.setattr(
        examine.engines, "probes", lambda: [name for name in answers if name not in ("decoders", "isolation")]
    )
    return answers


def rows_of(typed: CommandResult) -> dict[str, dict]:
    return {f"{row['section']}/{row['name']}": row for row in json.loads(typed.out)["rows"]}


def test_json_is_one_object_of_the_documented_form(quick, tmp_path: Path) -> None:
    typed = edgecxr("doctor", "--json", runs=tmp_path / "runs")
    assert (typed.code, typed.err, typed.out.count("\n")) == (0, "", 1)
    report = json.loads(typed.out)
    assert set(report) == {"format", "edgecxr", "status", "exit_code", "rows"}
    assert (report["format"], report["exit_code"]) == (1, 0)
    for row in report["rows"]:
        assert set(row) == {"section", "name", "status", "value", "remedy", "commands", "facts"}
        assert row["status"] in STATUSES and (row["status"] == "ok") <= (row["commands"] == [])
        assert row["remedy"] or row["status"] == "ok"
    sections = list(dict.fromkeys(row["section"] for row in report["rows"]))
    assert sections == ["system", "gpu", "engines", "workspace", "packages", "node"]  # no decoders were made up
    keys = [(row["section"], row["name"]) for row in report["rows"]]
    assert len(keys) == len(set(keys))


def test_an_installation_error_exits_with_5_and_ends_with_its_commands(quick, tmp_path: Path) -> None:
    quick["onnxruntime"] = Answer(problem="was killed by SIGILL")
    typed = edgecxr("doctor", runs=tmp_path / "runs")
    assert typed.code == 5
    lines = typed.out.splitlines()
    assert any(line.startswith("  error   onnxruntime ") and "SIGILL" in line for line in lines)
    assert "to mend:" in lines and lines[-1].endswith("pip install --force-reinstall --no-deps onnxruntime")


def test_a_probe_that_raises_is_a_row(quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("first line\nsecond")

    for module, name in ((examine.machine_rows, "cpu_rows"), (examine, "machine_gpus"), (examine.packages, "rows")):
        monkeypatch.setattr(module, name, fail)
    quick["decoders"] = Answer({})
    rows = rows_of(edgecxr("doctor", "--json", runs=tmp_path / "runs"))
    for name in ("system/cpu", "gpu/gpu", "packages/packages"):
        assert (rows[name]["status"], rows[name]["value"]) == (
            "warn",
            "cannot be looked at: RuntimeError: first line",
        )
    assert rows["decoders/decoders"]["status"] == "warn"
    assert rows["system/os"]["status"] == "ok"


def test_rows_before_an_exception_are_kept() -> None:
    def probe():
        yield Row("gpu", "first", "ok", "here")
        raise OSError("later")

    assert [(row.name, row.status) for row in guarded("gpu", "rest", probe)] == [("first", "ok"), ("rest", "warn")]


def test_a_row_that_is_not_ok_has_a_remedy() -> None:
    with pytest.raises(ValueError, match="remedy"):
        Row("gpu", "gpu", "warn", "broken")


def test_exit_codes_and_the_summary() -> None:
    bundle = Row("workspace", "bundle a", "error", "damaged", "copy it again", exit_code=4)
    broken = Row("engines", "torch", "error", "broken", "mend it", ("pip x",))
    slow = Row("gpu", "gpu", "warn", "slow", "wait")
    absent = Row("gpu", "other", "absent", "none", "none needed")
    assert [exit_code(rows) for rows in ([], [slow, absent], [bundle], [bundle, broken])] == [0, 0, 4, 5]
    assert [as_json(rows)["status"] for rows in ([], [absent], [slow], [slow, bundle])] == ["ok", "ok", "warn", "error"]
    assert as_text([broken, slow]).split("to mend:\n")[1].splitlines() == [
        "  warn: gpu: wait",
        "  error: torch: mend it",
        "      pip x",
    ]
    assert as_text([absent]).endswith("nothing to mend")


# --- workspace


def test_a_workspace_with_everything_in_it(quick, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for folder, file in (("data/films", "dataset.json"), ("teacher-a", "card.json"), ("student-b", "config.json")):
        (runs / folder).mkdir(parents=True)
        (runs / folder / file).write_text("{}")
    (runs / "teacher-a" / "config.json").write_text("{}")
    tiny_bundle(runs / "export" / "whole")
    typed = edgecxr("doctor", "--json", runs=runs)
    rows = rows_of(typed)
    assert typed.code == 0
    place = rows["workspace/place"]["facts"]
    assert (place["path"], place["set_by"], place["writable"]) == (str(runs), "EDGECXR_RUNS", True)
    assert rows["workspace/data sets"]["facts"] == {"names": ["films"]}
    assert rows["workspace/runs"]["facts"] == {"finished": ["teacher-a"], "unfinished": ["student-b"]}
    assert rows["workspace/bundle whole"]["facts"]["precisions"] == ["fp32"]
    assert {path.name for path in runs.iterdir()} == {"data", "teacher-a", "student-b", "export"}  # nothing was left


def test_a_damaged_bundle_exits_with_4(quick, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "runs" / "export" / "film").path
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    typed = edgecxr("doctor", "--json", runs=tmp_path / "runs")
    row = rows_of(typed)["workspace/bundle film"]
    assert (typed.code, row["status"]) == (4, "error")
    assert "model.onnx has changed" in row["value"]
    assert re.fullmatch(r"export it again .*copy it again", row["remedy"])


def test_a_bundle_that_lost_its_card_and_one_that_is_not_there(quick, tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "runs" / "export" / "film").path
    (bundle / "card.json").unlink()
    typed = edgecxr("doctor", "--json", runs=tmp_path / "runs", EDGECXR_MODEL=str(tmp_path / "none"))
    rows = rows_of(typed)
    assert typed.code == 4
    assert "card.json is missing" in rows["workspace/bundle film"]["value"]
    assert "does not exist" in rows["workspace/bundle EDGECXR_MODEL"]["value"]


NAME, SHIPPED = "bundle research-28 of edgecxr", resolve.SHIPPED


def test_the_bundle_that_comes_with_edgecxr_has_a_row(quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "SHIPPED", SHIPPED)
    typed = edgecxr("doctor", "--json", runs=tmp_path / "runs")
    row = rows_of(typed)[f"workspace/{NAME}"]
    assert (typed.code, row["status"]) == (0, "ok")
    assert row["facts"]["whole"] and row["facts"]["precisions"] == ["fp32", "int8"]
    monkeypatch.setattr(resolve, "SHIPPED", tmp_path / "bundles")
    bundle = tiny_bundle(tmp_path / "bundles" / "research-28").path
    (bundle / "model.onnx").write_bytes(b"x")
    (row,) = places.shipped_bundles()
    assert (row.name, row.status, exit_code([row])) == (NAME, "error", 5) and "install" in row.remedy


def test_where_only_signed_bundles_run_that_one_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolve, "SHIPPED", SHIPPED)
    monkeypatch.setenv("EDGECXR_TRUSTED_KEYS", str(tmp_path))
    (row,) = places.shipped_bundles()
    assert (row.name, row.status) == (NAME, "ok") and "EDGECXR_TRUSTED_KEYS" in row.value


def test_bundles_beyond_the_patience_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECXR_RUNS", str(tmp_path))
    monkeypatch.setattr(places, "PATIENCE", -1)
    tiny_bundle(tmp_path / "export" / "film")
    (row,) = places.bundles()
    assert (row.status, row.commands) == ("absent", ("edgecxr bundle verify film",))


def test_a_workspace_that_cannot_be_written(quick, tmp_path: Path) -> None:
    rows = rows_of(edgecxr("doctor", "--json", runs=Path("/proc/edgecxr")))
    assert rows["workspace/place"]["status"] == "warn" and "cannot be written" in rows["workspace/place"]["value"]
    (tmp_path / "file").touch()
    typed = edgecxr("doctor", "--json", runs=tmp_path / "file")
    assert typed.code == 0 and "is a file" in rows_of(typed)["workspace/place"]["value"]


def test_the_default_workspace_is_said_to_be_the_current_folders(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("EDGECXR_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    (row,) = places.place()
    assert row.facts["path"] == str(tmp_path / "runs") and row.facts["exists"] is False
    assert not Workspace.default().root.exists()


# --- packages


def test_any_flavour_of_onnxruntime_completes_the_base_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.installed
    monkeypatch.setattr(packages, "installed", lambda name: None if name == "onnxruntime" else real(name))
    monkeypatch.setattr(packages, "onnxruntime_flavours", lambda: {"onnxruntime-gpu": "1.20.0"})
    assert {row.name: row.status for row in packages.rows()}["base install"] == "ok"
    monkeypatch.setattr(packages, "onnxruntime_flavours", dict)
    base = {row.name: row for row in packages.rows()}["base install"]
    assert (base.status, base.value) == ("error", "missing onnxruntime")


def test_missing_and_old_packages_of_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"timm": None, "torch": "1.13.1"}
    monkeypatch.setattr(packages, "installed", lambda name: versions.get(name, "99"))
    rows = {row.name: row for row in packages.rows()}
    assert rows["extra train"].status == "absent" and rows["extra train"].commands[0].endswith("[train]'")
    assert rows["extra train"].facts["faults"] == ["torch>=2.4 (there is 1.13.1)", "timm"]
    assert rows["base install"].status == "ok"


def test_rights_that_decoders_keep_are_told(quick, tmp_path: Path) -> None:
    for answer in (Answer({"possible": ["network", "files"]}), Answer(problem="was killed by SIGSYS")):
        quick["isolation"] = answer
        typed = edgecxr("doctor", "--json", runs=tmp_path / "runs")
        row = rows_of(typed)["system/isolation"]
        assert typed.code == 0 and row["status"] == "warn" and row["facts"] == answer.facts
        assert all(word in row["value"] for word in (*answer.facts.get("possible", ()), answer.problem))


# --- the real thing, in a process of its own

TYPE = """
import json, sys
from edgecxr.cli import main
sys.argv = ["edgecxr", "doctor", "--json"]
try:
    main()
finally:
    print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})), file=sys.stderr)
"""


def test_it_loads_nothing_that_it_looks_at(tmp_path: Path) -> None:
    environment = os.environ | {"EDGECXR_RUNS": str(tmp_path / "runs"), "EDGECXR_MODEL": ""}
    ended = subprocess.run(
        [sys.executable, "-c", TYPE], env=environment, capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    report = json.loads(ended.stdout)
    assert ended.returncode == report["exit_code"]
    decoders = [row for row in report["rows"] if row["section"] == "decoders"]
    assert len(decoders) == 16 and {row["status"] for row in decoders} == {"ok"}
    (isolation,) = (row for row in report["rows"] if row["name"] == "isolation")
    assert isolation["facts"]["possible"] == [] and isolation["status"] == "ok"
    assert set(isolation["facts"]["by"]) == {"seccomp", *(["Landlock"] if landlock_version() else [])}
    assert isolation["facts"]["landlock"] == landlock_version()
    modules = set(json.loads(ended.stderr.splitlines()[-1]))
    assert "packaging" in modules
    assert not modules & {"torch", "onnx", "onnxruntime", "tensorrt", "pydicom", "gdcm", "PIL", "openvino"}


@pytest.mark.parametrize("kind", ["unset", "keys", "none"])
def test_whether_only_signed_bundles_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    signature = pytest.importorskip("edgecxr.bundle.signature")
    pytest.importorskip("cryptography")
    (tmp_path / "keys").mkdir()
    if kind == "keys":
        signature.make_keys(tmp_path / "keys" / "clinic")
    monkeypatch.delenv(signature.TRUSTED, raising=False)
    if kind != "unset":
        monkeypatch.setenv(signature.TRUSTED, str(tmp_path / "keys"))
    (row,) = places.signed()
    assert (row.status, row.facts["only_signed"], len(row.facts["keys"])) == {
        "unset": ("ok", False, 0), "keys": ("ok", True, 1), "none": ("error", True, 0),
    }[kind]  # fmt: skip

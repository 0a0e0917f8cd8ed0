"""The whole path by typed commands: what goes to standard output, what to standard error, and the exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image
from typer.core import TyperGroup

import edgecxr as package
from edgecxr import NOTICE
from edgecxr.cli import app_of
from edgecxr.errors import EdgeCxrError
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.predictor import PHANTOM_WARNING, Predictor
from tests.cli_workspace import STUDENT, TEACHER, copied, edgecxr, image_folder, steps, trained
from tests.films.dicom_files import film, write
from tests.tiny_bundle import LABELS, tiny_bundle

GROUP = typer.main.get_command(app_of())
assert isinstance(GROUP, TyperGroup)
TOP = GROUP.commands
GROUPS = {
    "bundle": ("show", "verify", "keygen", "sign"),
    "data": ("show", "check", "pack"),
    "node": ("status", "retry", "echo", "ca", "audit", "user"),
}
COMMANDS = [(name,) for name in TOP if name not in GROUPS]
COMMANDS += [(group, name) for group, names in GROUPS.items() for name in names]


@pytest.fixture
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "model").path


def scan(folder: Path, name: str = "film.dcm", top: int = 4095) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.linspace(0, top, 64 * 64).reshape(64, 64).astype(np.uint16)
    return write(film(pixels, BitsStored=12, BodyPartExamined="CHEST"), folder, name)


# ---- the whole path


def test_every_step_ends_well_and_only_the_result_is_on_standard_output(runs: Path) -> None:
    done = steps(runs)
    assert {name: step.code for name, step in done.items()} == dict.fromkeys(done, 0), done
    assert done["train"].out == f"{runs / TEACHER}\n"
    assert done["distill"].out == f"{runs / STUDENT}\n"
    assert done["export"].out == f"{runs / 'export' / STUDENT}\n"
    assert done["prepare"].out.startswith(f"phantom (synthetic phantom films): 40 images in {runs / 'data/phantom'}\n")


def test_progress_and_remarks_are_on_standard_error(runs: Path) -> None:
    done = steps(runs)
    assert "prepare: 40/40" in done["prepare"].err
    assert "cannot be learnt" in done["prepare"].err  # 40 films have no case of one of the findings
    assert "\ntrain a tiny teacher on phantom, init random (cpu, fp32)\n" in done["train"].err
    assert f"distill {STUDENT} with {TEACHER} on phantom, init teacher (cpu, fp32)" in done["distill"].err
    assert re.search(r"^ +1/1 +\d+\.\d{3}  .*\*$", done["distill"].err, re.MULTILINE)
    assert "evaluate: 8/8" in done["evaluate"].err
    assert "fp32: pass, logits within " in done["export"].err


def test_the_table_of_evaluate_counts_lists_what_is_skipped_and_ends_with_the_notice(runs: Path) -> None:
    lines = steps(runs)["evaluate"].out.splitlines()
    assert re.match(rf"{STUDENT} on phantom \(synthetic phantom films\) test: 8 images, 6 patients$", lines[0])
    assert any(line.startswith("Lung Opacity") and "skipped: 0 positive and 8 negative" in line for line in lines)
    assert any(re.match(r"normal/abnormal\?? .* 3 +5\b", line) for line in lines)
    assert lines[-1] == NOTICE


def test_evaluate_json_is_one_object_and_a_bundle_scores_like_its_run(runs: Path, tmp_path: Path) -> None:
    workspace = copied(runs, tmp_path / "runs")
    records = []
    for name in (STUDENT, workspace / "export" / STUDENT):
        typed = edgecxr("evaluate", name, "--json", "--split", "val", runs=workspace)
        assert typed.code == 0
        (line,) = typed.out.splitlines()
        records.append(json.loads(line))
    of_run, of_bundle = records
    assert of_run["model"] == of_bundle["model"] == STUDENT
    assert of_run["split"] == "val" and of_run["notice"] == NOTICE
    assert of_bundle["abnormal"]["auroc"] == pytest.approx(of_run["abnormal"]["auroc"])


def test_evaluate_keeps_its_result_in_the_card_and_leaves_the_order_of_runs_alone(runs: Path, tmp_path: Path) -> None:
    workspace = copied(runs, tmp_path / "runs")
    assert edgecxr("evaluate", TEACHER, "--split", "val", runs=workspace).code == 0
    assert "phantom/val" in json.loads((workspace / TEACHER / "card.json").read_text())["metrics"]
    # The teacher was looked at last; the student is still the one that was trained last.
    assert json.loads(edgecxr("evaluate", "--json", runs=workspace).out)["model"] == STUDENT


def test_what_is_finished_is_found_at_once_and_not_made_again(runs: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "runs"
    source = image_folder(tmp_path / "shades")
    first = edgecxr("prepare", "folder", source, "--workers", "1", runs=workspace)
    second = edgecxr("prepare", "folder", source, "--workers", "1", runs=workspace)
    assert first.code == second.code == 0 and first.out == second.out
    assert "prepare: 24/24" in first.err and "prepare: " not in second.err


def test_two_phantoms_can_be_prepared_under_different_names(tmp_path: Path) -> None:
    for name, seed in (("a", "0"), ("b", "1")):
        typed = edgecxr(
            "prepare", "phantom", "--name", name, "--n", "8", "--seed", seed, "--workers", "1", runs=tmp_path
        )
        assert typed.code == 0, typed
    assert {path.parent.name for path in tmp_path.glob("data/*/dataset.json")} == {"a", "b"}
    assert {path.parent.name for path in tmp_path.glob("*/phantom.json")} == {"a", "b"}


# ---- infer


def test_infer_json_is_one_object_for_each_file_rejected_ones_included(tmp_path: Path, model: Path) -> None:
    films = tmp_path / "films"
    for name in ("a.dcm", "c.dcm", "e.dcm"):
        scan(films, name)
    (films / "b.dcm").write_bytes(scan(films, "b.dcm").read_bytes()[:-3000])
    (films / "d.dcm").write_text("no film at all")
    typed = edgecxr("infer", films, "--model", model, "--json", runs=tmp_path)
    assert typed.code == 3
    results = [json.loads(line) for line in typed.out.splitlines()]
    assert [(Path(r["source"]).name, r["status"]) for r in results] == [
        ("a.dcm", "ok"), ("b.dcm", "rejected"), ("c.dcm", "ok"), ("d.dcm", "rejected"), ("e.dcm", "ok"),
    ]  # fmt: skip
    assert [r["reason"] for r in results if r["status"] == "rejected"] == ["malformed", "not-an-image"]
    assert all(r["notice"] == NOTICE for r in results)
    assert all(set(r["findings"]) == set(LABELS) for r in results if r["status"] == "ok")
    assert "error" not in typed.err


def test_infer_of_good_films_only_exits_with_0(tmp_path: Path, model: Path) -> None:
    typed = edgecxr("infer", scan(tmp_path), "--model", model, "--json", runs=tmp_path)
    assert (typed.code, typed.err) == (0, "")


def test_ctrl_c_is_one_line_and_130_and_keeps_what_was_printed(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = scan(tmp_path, "a.dcm"), scan(tmp_path, "b.dcm")
    look = Predictor.look

    def pressed(self: Predictor, films: Sequence[FilmRead]) -> object:
        if any(film.source == str(second) for film in films):
            raise KeyboardInterrupt
        return look(self, films)

    monkeypatch.setattr(Predictor, "look", pressed)
    monkeypatch.setattr("edgecxr.infer.run._BATCH", 1)
    typed = edgecxr("infer", first, second, "--model", model, "--json", runs=tmp_path)
    assert (typed.code, typed.err) == (130, "interrupted\n")
    (line,) = typed.out.splitlines()
    assert json.loads(line)["source"] == str(first)
    assert str(first) in edgecxr("infer", first, second, "--model", model, runs=tmp_path).out


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_reader_that_ends_ends_infer_quietly(tmp_path: Path, model: Path, options: tuple[str, ...]) -> None:
    films = [scan(tmp_path / "films", f"{number}.dcm") for number in range(200)]
    command = [sys.executable, "-m", "edgecxr", "infer", films[0].parent, "--model", model, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout and running.stderr
        assert "0.dcm" in running.stdout.readline()
        for _ in range(5):  # several films are done: a last line would count them
            running.stdout.readline()
        running.stdout.close()
        stderr = running.stderr.read()
        assert running.wait(60) == 141
    assert [line for line in stderr.splitlines() if not line.startswith("infer: ")] == []


def test_infer_without_json_is_for_people_and_has_notice_and_reasons(tmp_path: Path, model: Path) -> None:
    good, bad = scan(tmp_path), tmp_path / "gone.dcm"
    typed = edgecxr("infer", good, bad, "--model", model, runs=tmp_path)
    assert typed.code == 3
    assert f"{good}\n  abnormal " in typed.out
    assert f"{bad}\n  rejected (not-found): does not exist" in typed.out
    assert typed.out.endswith(f"{NOTICE}\n")


def test_the_attention_map_is_in_the_json_only_on_request(tmp_path: Path, model: Path) -> None:
    path = scan(tmp_path)
    plain = json.loads(edgecxr("infer", path, "--model", model, "--json", runs=tmp_path).out)
    full = json.loads(edgecxr("infer", path, "--model", model, "--json", "--attention", runs=tmp_path).out)
    assert "attention" not in plain
    assert np.array(full["attention"]).shape == (2, 2) and np.sum(full["attention"]) == pytest.approx(1, abs=1e-5)


def test_overlay_writes_a_picture_for_each_film_even_where_names_repeat(tmp_path: Path, model: Path) -> None:
    films = [scan(tmp_path / "a", "film.dcm"), scan(tmp_path / "b", "film.dcm"), scan(tmp_path, "film.dcm.2")]
    long = scan(tmp_path, "\u80ba" * 80 + ".dcm")
    pictures = tmp_path / "deep" / "pictures"
    typed = edgecxr("infer", *films, long, "--model", model, "--overlay", pictures, runs=tmp_path)
    assert typed.code == 0
    written = sorted(pictures.iterdir())
    assert len(written) == 4 and typed.err.count("overlay: ") == 4
    for picture in written:
        with Image.open(picture) as image:
            assert image.format == "PNG" and min(image.size) >= 560
    assert "overlay: " not in typed.out


def test_a_rejected_film_has_no_picture(tmp_path: Path, model: Path) -> None:
    typed = edgecxr("infer", tmp_path / "gone", "--model", model, "--overlay", tmp_path / "pictures", runs=tmp_path)
    assert typed.code == 3 and not (tmp_path / "pictures").exists()


def test_the_model_is_the_option_else_the_variable_else_the_latest_bundle(tmp_path: Path) -> None:
    for age, name in enumerate(("option", "variable", "latest", "older")):
        where = tmp_path / "export" / name if name in ("latest", "older") else tmp_path / name
        card = tiny_bundle(where, name=name).path / "card.json"
        os.utime(card, (1000 - age, 1000 - age))
    path = scan(tmp_path)

    def model_of(*options: str | Path, **variables: str) -> str:
        return json.loads(edgecxr("infer", path, "--json", *options, runs=tmp_path, **variables).out)["model"]

    variable = str(tmp_path / "variable")
    assert model_of("--model", tmp_path / "option", EDGECXR_MODEL=variable) == "option"
    assert model_of(EDGECXR_MODEL=variable) == "variable"
    assert model_of() == model_of(EDGECXR_MODEL="") == "latest"
    assert model_of("--model", "older") == "older"


def test_a_model_of_phantoms_says_so_with_every_prediction(runs: Path) -> None:
    path = next((runs / "phantom" / "test").iterdir())
    as_json = json.loads(edgecxr("infer", path, "--json", runs=runs).out)
    assert as_json["model"] == STUDENT and PHANTOM_WARNING in as_json["warnings"]
    assert f"warning: {PHANTOM_WARNING}" in edgecxr("infer", path, runs=runs).out


def test_bundle_show_prints_the_card_and_verify_each_file(tmp_path: Path, model: Path) -> None:
    shown = edgecxr("bundle", "show", model, "--json", runs=tmp_path)
    assert shown.code == 0 and shown.out == (model / "card.json").read_text() + "\n"
    summary = edgecxr("bundle", "show", model, runs=tmp_path).out.splitlines()
    assert summary[0] == "tiny-test" and summary[-1] == NOTICE
    verified = edgecxr("bundle", "verify", model, runs=tmp_path)
    assert (verified.code, verified.out) == (0, "card.json: OK\ngate.npy: OK\nmodel.onnx: OK\n")


# ---- what is missing


@pytest.mark.parametrize(
    ("args", "code", "remedy"),
    [
        (("infer", "film.dcm"), 4, "edgecxr export"),
        (("bundle", "show"), 4, "edgecxr export"),
        (("export",), 4, "edgecxr distill"),
        (("evaluate",), 4, "edgecxr train"),
        (("train",), 3, "edgecxr prepare"),
        (("distill", "--res", "28"), 3, "edgecxr prepare"),
    ],
)
def test_an_empty_workspace_gives_the_command_to_type(
    tmp_path: Path, args: tuple[str, ...], code: int, remedy: str
) -> None:
    typed = edgecxr(*args, runs=tmp_path / "runs")
    assert (typed.code, typed.out) == (code, "")
    assert f"`{remedy}" in typed.error
    assert not (tmp_path / "runs").exists()


def test_distill_without_a_teacher_names_the_command_that_trains_one(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "data", tmp_path / "data")
    typed = edgecxr("distill", "--res", "28", runs=tmp_path)
    assert typed.code == 4 and "`edgecxr train --data phantom`" in typed.error


def test_a_run_that_is_not_there_lists_those_that_are(runs: Path) -> None:
    for command in ("evaluate", "export"):
        typed = edgecxr(command, "student-tiny-82-mlcak", runs=runs)
        assert typed.code == 4 and f"there are {STUDENT}, {TEACHER}" in typed.error


# ---- options


def test_a_teacher_of_448_px_without_such_films_names_the_command_that_makes_them(runs: Path) -> None:
    before = sorted(runs.rglob("*"))
    typed = edgecxr("train", "--res", "448", runs=runs)
    assert (typed.code, typed.out) == (3, "")
    assert "data set phantom in " in typed.error and "has no 448 px images" in typed.error
    assert f"edgecxr prepare phantom {runs.parent}" in typed.error and typed.error.endswith("--size 448`")
    assert sorted(runs.rglob("*")) == before


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("distill", "--res", "30"), "--res 30: there are 224, 112, 56, 28"),
        (("distill", "--res", "28", "--tokens", "50"), "--tokens 50: there are 196, 49, 16"),
        (("distill", "--res", "28", "--arch", "huge"), "--arch huge: there are tiny, small, base"),
        (("distill", "--res", "28", "--method", "mlkac"), "did you mean 'mlcak'?"),
        (("distill", "--res", "28", "--alpha", "-1"), "--alpha, --beta and --gamma: at least 0"),
        (("train", "--arch", "huge"), "--arch huge: there are tiny, small, base"),
        (("train", "--init", "teacher"), "--init teacher is for students"),
        (("train", "--res", "112"), "--res 112: there are 224, 448"),
        (("train", "--patch", "15"), "patches of 15 px do not tile 224 px"),
        (("train", "--epochs", "0"), "--epochs 0: at least 1"),
        (("train", "--depth", "1000"), "--depth 1000: from 2 to 100"),
        (("train", "--lr", "nan"), "--lr nan: more than 0"),
        (("train", "--augment", "4"), "--augment 4.0: from 0 to 3"),
        (("train", "--precision", "fp8"), "--precision fp8: there are auto, fp32, bf16, fp16"),
        (("train", "--precision", "fp16", "--device", "cpu"), "--precision fp16 needs a GPU"),
        (("train", "--device", "abacus", "--init", "random"), "--device abacus cannot be used"),
        (("train", "--pretrained", "x", "--init", "random"), "--pretrained goes with --init pretrained"),
        (("evaluate", "--split", "exam"), "--split exam: there are train, val, test"),
        (("infer", "film.dcm", "--operating-point", "best"), "there are: youden, sensitivity90"),
        (("infer", "film.dcm", "--backend", "onnxruntim"), "did you mean 'onnxruntime'?"),
        (("infer", "film.dcm", "--backend", "torch"), "edgecxr evaluate"),
        (("infer", "film.dcm", "--precision", "fp8"), "precision fp8: there are fp32, fp16, int8"),
        (("infer", "film.dcm", "--attention"), "add --json"),
        (("prepare", "phantm"), "did you mean 'phantom'?"),
        (("prepare", "vindr"), "edgecxr prepare vindr PATH"),
        (("prepare", "phantom", "--images", "x"), "phantom takes no --images"),
        (("prepare", "phantom", "--n", "3"), "at least 8 films"),
        (("prepare", "folder", ".", "--n", "9"), "folder takes no --n"),
        (("prepare", "folder", ".", "--split-column", "a", "--merge", "mean"), "folder takes no --merge"),
    ],
)
def test_a_wrong_option_exits_with_2_says_what_there_is_and_leaves_nothing_behind(
    runs: Path, args: tuple[str, ...], message: str
) -> None:
    before = sorted(runs.rglob("*"))
    typed = edgecxr(*args, runs=runs)
    assert typed.code == 2, typed
    assert message in typed.error
    assert sorted(runs.rglob("*")) == before and typed.out == ""


@pytest.mark.parametrize(
    "args",
    [
        ("trian",), ("bundle", "shw"), ("infer",), ("distill",), ("train", "--epoch", "3"), ("distill", "--res", "x"),
        ("infer", "x", "--threads", "0"), ("evaluate", "--replicates", "3"), ("train", "--patch", "0"),
        ("train", "--seed", "-1"), ("train", "--seed", str(10**20)), ("train", "--batch", "0"),
        ("demo", "--epochs", "0"),
    ],
)  # fmt: skip
def test_what_the_parser_refuses_exits_with_2_and_shows_how_to_get_help(tmp_path: Path, args: tuple[str, ...]) -> None:
    typed = edgecxr(*args, runs=tmp_path)
    assert (typed.code, typed.out) == (2, "")
    command = " ".join(("edgecxr", *args[: 1 if args[0] != "trian" else 0]))
    assert typed.err == f"{typed.error}\n" and typed.error.endswith(f" (try '{command} -h')")


def test_a_refused_option_that_would_break_the_line_does_not(tmp_path: Path) -> None:
    typed = edgecxr("infer", "--a\nb\x1b[31m", runs=tmp_path)
    assert typed.code == 2 and typed.err == f"{typed.error}\n" and typed.err.isascii() and "\x1b" not in typed.err


@pytest.mark.parametrize("group", [(), ("bundle",)])
def test_no_command_at_all_shows_the_help(tmp_path: Path, group: tuple[str, ...]) -> None:
    typed = edgecxr(*group, runs=tmp_path)
    assert (typed.code, typed.out) == (2, "")
    assert typed.err.strip() == edgecxr(*group, "--help", runs=tmp_path).out.strip()


def test_a_data_set_is_asked_for_by_the_names_that_there_are(tmp_path: Path) -> None:
    assert "DATASET" in edgecxr("prepare", runs=tmp_path).error
    assert "folder" in edgecxr("prepare", "nosuch", runs=tmp_path).error


def test_a_command_with_a_slip_of_the_finger_is_offered_the_right_one(tmp_path: Path) -> None:
    assert "Did you mean 'train'?" in edgecxr("trian", runs=tmp_path).err


# ---- help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_help_of_every_command_shows_an_example_of_that_command(tmp_path: Path, command: tuple[str, ...]) -> None:
    typed = edgecxr(*command, "--help", runs=tmp_path)
    assert (typed.code, typed.err) == (0, "")
    text = " ".join(typed.out.split())
    assert "Example" in text and f"edgecxr {' '.join(command)}" in text.partition("Example")[2]
    assert edgecxr(*command, "-h", runs=tmp_path).out == typed.out


def test_every_option_has_a_help_text() -> None:
    commands = [command for command in TOP.values() if not isinstance(command, TyperGroup)]
    commands += [c for group in TOP.values() if isinstance(group, TyperGroup) for c in group.commands.values()]
    assert len(commands) == len(COMMANDS)
    silent = [(c.name, p.name) for c in commands for p in c.params if not getattr(p, "help", "")]
    assert silent == []


def test_the_summaries_of_the_commands_fit_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for group in ((), *((name,) for name in GROUPS)):
        commands = edgecxr(*group, "--help", runs=tmp_path).out.partition("Commands:\n")[2]
        assert commands and "..." not in commands


def test_the_help_and_its_page_give_the_exit_codes_of_the_errors(tmp_path: Path) -> None:
    text = " ".join(edgecxr("--help", runs=tmp_path).out.split())
    rows = re.findall(r"^\| (\d+) \|", (Path(__file__).parents[1] / "docs/exit-codes.md").read_text(), re.MULTILINE)
    codes = {error.exit_code for error in (EdgeCxrError, *EdgeCxrError.__subclasses__())} | {0, 130}
    assert codes <= {int(row) for row in rows}
    assert all(f" {code} " in text for code in codes)


def test_help_without_a_command_lists_all_and_says_that_it_is_for_research(tmp_path: Path) -> None:
    typed = edgecxr("--help", runs=tmp_path)
    text = " ".join(typed.out.split())
    assert typed.code == 0 and all(name in text for name in TOP)
    assert NOTICE in text


def test_version(tmp_path: Path) -> None:
    typed = edgecxr("--version", runs=tmp_path)
    assert (typed.code, typed.out) == (0, f"edgecxr {package.__version__}\n")


# ---- errors


def test_debug_shows_the_traceback_and_keeps_the_exit_code(tmp_path: Path) -> None:
    typed = edgecxr("--debug", "infer", "film.dcm", runs=tmp_path)
    assert typed.code == 4
    assert "Traceback (most recent call last)" in typed.err and "ModelError" in typed.err
    assert typed.err.splitlines()[-1].startswith("error: no bundle in ")
    assert "Traceback" not in edgecxr("infer", "film.dcm", runs=tmp_path).err


def test_an_unexpected_failure_is_one_line_with_exit_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("edgecxr.resolve.bundle", fail)
    typed = edgecxr("infer", "film.dcm", runs=tmp_path)
    assert (typed.code, typed.out) == (1, "")
    assert typed.err == "error: unexpected RuntimeError: first line (edgecxr --debug shows where)\n"


def test_an_error_stays_on_one_line_and_sends_no_commands_to_the_terminal(tmp_path: Path) -> None:
    typed = edgecxr("bundle", "show", tmp_path / "a\nb\x1b[31m", runs=tmp_path)
    assert typed.code == 4
    (line,) = typed.err.splitlines()
    assert line.startswith("error: ") and "/a\\nb\\x1b[31m does not exist" in line


@pytest.mark.parametrize("typed", [["--help", "infer"], ["-h"], ["--debug", "--help"], ["nothing"]])
def test_all_commands_are_known_where_none_is_typed_first(typed: list[str]) -> None:
    ended = subprocess.run([sys.executable, "-m", "edgecxr", *typed], capture_output=True, text=True, check=False)
    text = ended.stdout + ended.stderr
    assert ("distill" in text and "infer" in text) or (typed == ["nothing"] and ended.returncode == 2)


def test_a_command_that_is_typed_is_loaded_alone() -> None:
    code = (
        "import sys; sys.argv = ['edgecxr', '--debug', 'doctor', '-h']\n"
        "from edgecxr.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted(name for name in sys.modules if name.startswith('edgecxr.cli.')), file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "Show what this machine can do" in ended.stdout
    assert "edgecxr.cli.doctor" in ended.stderr and "edgecxr.cli.train" not in ended.stderr

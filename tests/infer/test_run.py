from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgecxr import NOTICE
from edgecxr.errors import InputError, UsageError
from edgecxr.films.find import Search, find_inputs
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer import film_files
from edgecxr.infer import run as module
from edgecxr.infer.predictor import PHANTOM_WARNING, Predictor
from edgecxr.infer.resume import ExpectedOutputs, resumed
from edgecxr.infer.run import InferOptions, infer_paths, readers_for
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import film, write
from tests.on_a_cluster import ran
from tests.tiny_bundle import tiny_bundle, tiny_gate


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model"))


def png(path: Path, grey: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = grey
    Image.fromarray(pixels).save(path, "PNG")
    return path


def infer(predictor: Predictor, paths: list[Path], as_json: bool = True, **more: Any) -> int:
    """Infer from files and folders, and return how many were rejected."""
    options = InferOptions(as_json, **more)
    films = find_inputs(paths)
    with readers_for(options, len(films)) as readers:
        return infer_paths(predictor, readers, films, options)


def test_results_come_in_the_order_of_the_paths_and_the_rejected_are_counted(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [png(tmp_path / "b.png"), tmp_path / "gone.png", png(tmp_path / "a.png"), tmp_path / "gone too.png"]
    assert infer(predictor, paths) == 2
    printed = capsys.readouterr()
    assert [json.loads(line)["source"] for line in printed.out.splitlines()] == [str(path) for path in paths]
    assert printed.err.startswith("4 films: 2 predicted, 2 not readable; ") and printed.err.count("\n") == 1


def test_a_result_is_printed_before_the_next_films_are_looked_at(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [png(tmp_path / "a.png"), png(tmp_path / "b.png")]
    look = predictor.look
    printed: list[str] = []

    def watched(films: list[FilmRead]) -> object:
        printed.append(capsys.readouterr().out)
        return look(films)

    monkeypatch.setattr(predictor, "look", watched)
    monkeypatch.setattr(module, "_BATCH", 1)
    infer(predictor, films)
    assert printed[0] == "" and json.loads(printed[1])["source"] == str(films[0])


@pytest.mark.parametrize("workers", [1, 3])
def test_many_films_are_answered_as_each_is_alone(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    films = [png(tmp_path / f"{n:02}.png", 10 * n + 20) for n in range(20)]
    (tmp_path / "05b.png").write_text("no film")
    assert infer(predictor, [tmp_path], workers=workers) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["source"] for line in lines] == sorted(map(str, [*films, tmp_path / "05b.png"]))
    alone = [predictor.predict(film).abnormal for film in films]
    together = [line["abnormal"]["probability"] for line in lines if line["status"] == "ok"]
    assert together == pytest.approx(alone, abs=1e-6)


REPORT, PAPER = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.104.1"
PIXELS = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation", "PixelData")


def without_image(folder: Path, name: str, sop_class: str = REPORT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write(film(np.full((8, 8), 9, np.uint8), SOPClassUID=sop_class, **dict.fromkeys(PIXELS)), folder, name)


@pytest.mark.parametrize("resumed", [False, True])
def test_reports_beside_the_films_of_a_study_are_counted_and_rejected_only_if_they_are_named(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], resumed: bool
) -> None:
    study, results = tmp_path / "study", tmp_path / "results.jsonl"
    good = png(study / "film.png")
    report, paper = without_image(study, "report.dcm"), without_image(study / "more", "paper", PAPER)
    (study / "DICOMDIR").write_bytes(b"any")
    (study / "notes.txt").write_text("any")

    def typed(*paths: Path) -> tuple[int, list[tuple[str, str | None]], str]:
        search = Search()
        options = InferOptions(as_json=True, resume=results if resumed else None)
        films = find_inputs(paths, search=search)
        with readers_for(options, len(films)) as readers:
            lacking = infer_paths(predictor, readers, films, options, search)
        printed = capsys.readouterr()
        lines = results.read_text() if resumed else printed.out
        rows = [(line["source"], line.get("reason")) for line in map(json.loads, lines.splitlines())]
        return lacking, rows, printed.err.splitlines()[-1]

    lacking, rows, last = typed(study)
    assert (lacking, rows) == (0, [(str(good), None)])
    assert ["DICOMDIR (1)" in last, "without an image (2)" in last, "other files (1)" in last] == [True] * 3
    results.unlink(missing_ok=True)
    lacking, rows, last = typed(study, report)
    assert lacking == 1 and set(rows) == {(str(good), None), (str(report), "no-pixels")}
    assert "without an image (1)" in last
    results.unlink(missing_ok=True)
    # Of a folder with nothing else something is said, as of an empty one.
    lacking, rows, last = typed(paper.parent, good)
    assert lacking == 1 and set(rows) == {(str(good), None), (str(paper.parent), "not-found")}


def test_a_film_whose_pixels_are_lost_is_rejected_wherever_it_was_found(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study").mkdir()
    lost = write(film(np.full((8, 8), 9, np.uint8), PixelData=None), tmp_path / "study")
    png(tmp_path / "study" / "film.png")
    assert infer(predictor, [tmp_path / "study"]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["source"]: line.get("reason") for line in lines}[str(lost)] == "no-pixels"


def test_what_a_file_of_results_has_is_not_done_again(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [png(tmp_path / f"{n}.png") for n in range(4)]
    bad = tmp_path / "bad.png"
    bad.write_text("no film")
    results = tmp_path / "out" / "results.jsonl"
    assert infer(predictor, [*films[:2], bad], resume=results) == 1
    before = results.read_bytes()
    for tail in (b"", b"{", b'{"source": "cut o'):  # a power cut
        results.write_bytes(before + tail)
        # What is rejected stays so, and the exit code says it again.
        assert infer(predictor, [bad, *films], resume=results) == 1
        content = results.read_bytes()
        assert content.startswith(before)
        sources = [json.loads(line)["source"] for line in content.splitlines()]
        assert sources == [*map(str, films[:2]), str(bad), *map(str, films[2:])]
    printed = capsys.readouterr()
    assert printed.out == "" and "3 of 5 files are in" in printed.err
    assert "2 films: 2 predicted; " in printed.err and f"; results in {results}" in printed.err


def test_what_is_asked_for_in_addition_is_made(tmp_path: Path, predictor: Predictor) -> None:
    film, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"
    pictures = tmp_path / "pictures"
    infer(predictor, [film], resume=results)
    for _ in range(2):
        infer(predictor, [film], resume=results, overlays=pictures)
        assert (pictures / "a.png.png").exists()
    assert len(results.read_text().splitlines()) == 2
    (pictures / "a.png.png").unlink()
    infer(predictor, [film], resume=results, overlays=pictures)
    assert (pictures / "a.png.png").exists()
    infer(predictor, [film], resume=results, overlays=tmp_path / "others")
    assert (tmp_path / "others" / "a.png.png").exists()
    infer(predictor, [film], resume=results, attention=True)
    assert "attention" in json.loads(results.read_text().splitlines()[-1])
    infer(predictor, [film], resume=results, attention=True)
    assert len(results.read_text().splitlines()) == 5


@pytest.mark.parametrize("relative_first", [True, False])
def test_a_relative_and_an_absolute_folder_of_pictures_are_the_same(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch, relative_first: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    film, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"
    folders = [Path("pictures"), tmp_path / "pictures"]
    for pictures in folders if relative_first else reversed(folders):
        infer(predictor, [film], resume=results, overlays=pictures)
    assert len(results.read_text().splitlines()) == 1


def test_what_could_not_be_made_is_counted_again_and_not_tried_again(tmp_path: Path, predictor: Predictor) -> None:
    film, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"  # no patient: no DICOM result
    for _ in range(2):
        assert infer(predictor, [film], resume=results, dicom=tmp_path / "dicom") == 1
    assert len(results.read_text().splitlines()) == 1


def test_what_may_be_mended_is_looked_at_again(tmp_path: Path, predictor: Predictor) -> None:
    film, results = tmp_path / "late.png", tmp_path / "results.jsonl"
    assert infer(predictor, [film], resume=results) == 1
    png(film)
    assert infer(predictor, [film], resume=results) == 0
    assert infer(predictor, [film], resume=results) == 0
    assert [json.loads(line)["status"] for line in results.read_text().splitlines()] == ["rejected", "ok"]


def test_a_film_that_was_still_being_copied_is_looked_at_again(tmp_path: Path, predictor: Predictor) -> None:
    film, results = png(tmp_path / "film.png"), tmp_path / "results.jsonl"
    whole = film.read_bytes()
    film.write_bytes(whole[: len(whole) // 2])
    assert infer(predictor, [film], resume=results) == 1
    assert infer(predictor, [film], resume=results) == 1  # as it was: not again
    film.write_bytes(whole)
    assert infer(predictor, [film], resume=results) == 0
    times = [film.stat().st_mtime_ns + n for n in (0, 10**9)]
    for time in times:  # of the same size, but not of the same time
        os.utime(film, ns=(time, time))
        assert infer(predictor, [film], resume=results) == 0
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [line.get("reason") for line in lines] == ["malformed", None, None]
    assert lines[0]["file"]["bytes"] < lines[1]["file"]["bytes"] == film.stat().st_size


def test_lines_of_before_that_do_not_say_when_are_believed_unless_they_reject(
    tmp_path: Path, predictor: Predictor
) -> None:
    films, results = [png(tmp_path / "a.png"), tmp_path / "b.png"], tmp_path / "results.jsonl"
    old = [{"source": str(films[0]), "status": "ok", "schema": 2, "model": "tiny-test", "precision": "fp32"},
           {"source": str(films[1]), "status": "rejected", "reason": "malformed", "model": None}]  # fmt: skip
    results.write_text("".join(f"{json.dumps(line)}\n" for line in old))
    png(films[1])
    assert infer(predictor, films, resume=results) == 0
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert lines[:2] == old and [line["source"] for line in lines[2:]] == [str(films[1])]


def test_results_of_another_export_of_the_same_name_are_not_mixed(tmp_path: Path, predictor: Predictor) -> None:
    film, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"
    infer(predictor, [film], resume=results)
    results.write_text(results.read_text().replace(predictor.identity.sha256, "ab" * 32))
    with pytest.raises(UsageError, match="another export of tiny-test"):
        infer(predictor, [film], resume=results)


def test_every_line_says_which_film_and_which_model(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    uids = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": "1.2.5"}
    pixels = np.tile(np.linspace(0, 200, 80), (70, 1)).astype(np.uint8)
    good = write(film(pixels, **uids), tmp_path, "good.dcm")
    lost = write(film(pixels, **uids, PixelData=None), tmp_path, "lost.dcm")
    assert infer(predictor, [good, lost, png(tmp_path / "film.png")]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["ok", "rejected", "ok"]
    assert [line["film"] for line in lines] == [uids, uids, None]
    assert (lines[1]["dicom"], lines[1]["overlay"]) == (None, None)
    assert {line["model_sha256"] for line in lines} == {predictor.bundle.sums["model.onnx"]}
    assert [line["file"]["bytes"] for line in lines[:2]] == [good.stat().st_size, lost.stat().st_size]


def test_a_resumed_run_replaces_no_picture_of_another_film(tmp_path: Path, predictor: Predictor) -> None:
    films = [png(tmp_path / "a" / "film.png", 200), png(tmp_path / "b" / "film.png", 90)]
    pictures, results = tmp_path / "pictures", tmp_path / "results.jsonl"
    infer(predictor, films[:1], resume=results, overlays=pictures)
    first = (pictures / "film.png.png").read_bytes()
    infer(predictor, films, resume=results, overlays=pictures)
    assert (pictures / "film.png.png").read_bytes() == first
    assert len(list(pictures.iterdir())) == 2


@pytest.mark.parametrize("content", ["my notes", "my notes\n", "[1]\n", '{"other": 1}\n', "{}", "1"])
def test_a_file_that_holds_something_else_is_kept_as_it_is(tmp_path: Path, predictor: Predictor, content: str) -> None:
    film, notes = png(tmp_path / "a.png"), tmp_path / "notes.txt"
    notes.write_text(content)
    with pytest.raises(InputError, match=r"line 1 of .*notes\.txt"):
        infer(predictor, [film], resume=notes)
    assert notes.read_text() == content


def test_results_of_another_model_are_not_mixed(tmp_path: Path, predictor: Predictor) -> None:
    film, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"
    infer(predictor, [film], resume=results)
    with (
        Predictor(tiny_bundle(tmp_path / "other", name="another")) as other,
        pytest.raises(UsageError, match=r"results of tiny-test \(fp32\) at youden, not of another \(fp32\)"),
    ):
        infer(other, [film, png(tmp_path / "b.png")], resume=results)
    assert len(results.read_text().splitlines()) == 1


def test_results_of_another_precision_and_refusals_of_another_model_are_not_mixed(tmp_path: Path) -> None:
    dark, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"
    for name, precision in (("tiny-test", "fp32"), ("another", "fp32"), ("tiny-test", "int8")):
        bundle = tiny_bundle(tmp_path / f"{name}-{precision}", name=name, gate=tiny_gate(threshold=0.3))
        with Predictor(bundle) as predictor:
            predictor.precision = precision
            if (name, precision) == ("tiny-test", "fp32"):
                assert infer(predictor, [dark], resume=results) == 1  # refused by the gate
            else:
                with pytest.raises(UsageError, match=rf"not of {name} \({precision}\)"):
                    infer(predictor, [dark, png(tmp_path / "b.png")], resume=results)


def test_two_runs_do_not_write_to_one_file(tmp_path: Path, predictor: Predictor) -> None:
    results = tmp_path / "results.jsonl"
    with resumed(results, predictor, ExpectedOutputs()), pytest.raises(UsageError, match="is writing to"):
        infer(predictor, [png(tmp_path / "a.png")], resume=results)


def test_a_full_disk_is_one_clear_error_and_leaves_whole_lines(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [png(tmp_path / f"{n}.png") for n in range(3)]
    results, real = tmp_path / "results.jsonl", os.pwrite

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset > 1000:
            real(descriptor, data[:10], offset)
            raise OSError(28, "No space left on device")
        return real(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(UsageError, match=r"No space left.*make room there and"):
        infer(predictor, films, resume=results)
    monkeypatch.setattr(os, "pwrite", real)
    lines = results.read_text().splitlines()
    assert 0 < len(lines) < 3 and all(json.loads(line)["status"] == "ok" for line in lines)
    assert infer(predictor, films, resume=results) == 0
    assert len(results.read_text().splitlines()) == 3


def test_a_file_of_results_is_for_json(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="add --json"):
        infer(predictor, [png(tmp_path / "a.png")], as_json=False, resume=tmp_path / "results.jsonl")


def test_for_people_the_notice_is_printed_once(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer(predictor, [png(tmp_path / "a.png"), png(tmp_path / "b.png")], as_json=False) == 0
    out = capsys.readouterr().out
    assert out.count(NOTICE) == 1 and "attention" not in out


def test_an_attention_map_without_json_is_refused(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UsageError, match=r"--attention .*add --json, or --overlay"):
        infer(predictor, [png(tmp_path / "a.png")], as_json=False, attention=True)


def test_a_file_in_place_of_the_folder_of_pictures_is_refused_before_any_film(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    film = png(tmp_path / "a.png")
    for place in (film, film / "below"):
        with pytest.raises(UsageError) as caught:
            infer(predictor, [film], overlays=place)
        assert "--overlay" in str(caught.value) and "EDGECXR_RUNS" not in str(caught.value)
        assert capsys.readouterr().out == ""


def test_a_film_that_cannot_be_drawn_costs_its_picture_alone(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [png(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    drawn = film_files._drawn

    def sometimes(film: FilmRead, prediction: object) -> object:
        if film.source == str(films[1]):
            raise ValueError("no font")
        return drawn(film, prediction)

    monkeypatch.setattr(film_files, "_drawn", sometimes)
    assert infer(predictor, films, overlays=tmp_path / "pictures") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 3 and lines[1]["overlay"] is None
    assert [line.get("overlay_reason") for line in lines] == [None, "not-drawn", None]
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"a.png.png", "c.png.png"}


def test_many_files_show_progress_on_standard_error(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in range(10):
        png(tmp_path / f"{count}.png")
    infer(predictor, [tmp_path])
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 10
    shown, last = printed.err.splitlines()
    assert shown == "infer: 10/10" and last.startswith("10 films: 10 predicted; ") and last.endswith(" films/s")


def test_the_warnings_of_the_model_are_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Predictor(tiny_bundle(tmp_path / "phantoms", data={"phantom": True})) as predictor:
        infer(predictor, [png(tmp_path / "a.png"), png(tmp_path / "b.png")], as_json=False)
    assert capsys.readouterr().out.count(PHANTOM_WARNING) == 1


def test_what_the_gate_refuses_is_rejected_with_its_distance(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [png(tmp_path / "a.png", 90), png(tmp_path / "b.png", 200)]
    gate = tiny_gate(threshold=0.3, usual=0.1)  # the brighter film is farther away
    bundle = tiny_bundle(tmp_path / "gated", gate=gate)
    with Predictor(bundle) as predictor:
        assert infer(predictor, films) == 1
    taken, refused = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert taken["gate"]["verdict"] == "pass" and taken["gate"]["distance"] < 0.3
    assert (refused["status"], refused["reason"], refused["gate"]["verdict"]) == ("rejected", "not-chest", "refuse")
    assert refused["gate"]["distance"] > refused["gate"]["threshold"] == 0.3
    with Predictor(bundle, force=True) as predictor:
        assert infer(predictor, films[1:]) == 0
    forced = json.loads(capsys.readouterr().out)
    assert forced["gate"]["verdict"] == "forced" and any("overruled by --force" in text for text in forced["warnings"])


def test_what_the_gate_refused_is_looked_at_again_once_it_is_overruled(tmp_path: Path) -> None:
    dark, results = png(tmp_path / "a.png"), tmp_path / "results.jsonl"
    blank = tmp_path / "blank.png"
    Image.new("L", (80, 80), 9).save(blank)
    bundle = tiny_bundle(tmp_path / "gated", gate=tiny_gate(threshold=0.3))
    for force, rejected, lines in ((False, 1, 1), (False, 1, 1), (True, 0, 2), (False, 0, 2)):
        with Predictor(bundle, force=force) as predictor:
            # A film of one grey value is not for the gate to refuse, nor for the user to take.
            assert infer(predictor, [dark, blank], resume=results) == 1 + rejected
        assert len(results.read_text().splitlines()) == 1 + lines


def test_options_of_the_gate_as_a_user_types_them(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "gated", gate=tiny_gate(0.3, 0.05)).path
    (tmp_path / "films" / "deeper").mkdir(parents=True)
    pixels = np.tile(np.linspace(0, 90, 80), (70, 1)).astype(np.uint8)
    near, far = film(pixels, ViewPosition="LL"), film(pixels + np.uint8(120))
    write(near, tmp_path / "films", "lateral.dcm")
    write(far, tmp_path / "films" / "deeper", "far.dcm")

    def typed(*options: str) -> dict[str, tuple[str, str]]:
        done = edgecxr("infer", tmp_path / "films", "--model", bundle, "--json", *options, runs=tmp_path / "runs")
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert done.code == (3 if any(line["status"] == "rejected" for line in lines) else 0)
        return {Path(line["source"]).name: (line.get("reason", "ok"), line["gate"]["verdict"]) for line in lines}

    assert typed() == {"lateral.dcm": ("view", "refuse"), "far.dcm": ("not-chest", "refuse")}
    assert typed("--any-view") == {"lateral.dcm": ("ok", "pass"), "far.dcm": ("not-chest", "refuse")}
    assert typed("--force") == {"lateral.dcm": ("ok", "forced"), "far.dcm": ("ok", "forced")}
    assert typed("--no-recursive") == {"lateral.dcm": ("view", "refuse")}
    assert typed("--recursive", "--any-view", "--force") == {"lateral.dcm": ("ok", "pass"), "far.dcm": ("ok", "forced")}


@pytest.mark.slow
@pytest.mark.long
def test_a_cluster_reads_films_as_this_machine_does(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    bundle = tiny_bundle(tmp_path / "model").path
    for number in range(20):
        png(tmp_path / "films" / f"{number:02}.png", 100 + 5 * number)
    (tmp_path / "films" / "05b.png").write_text("no film")
    outputs = []
    for executor in ("processes", "ray"):
        typed = [sys.executable, "-m", "edgecxr", "infer", "films", "--model", str(bundle), "--json"]
        done = ran([*typed, "--executor", executor], tmp_path, EDGECXR_RUNS=str(tmp_path / "runs"))
        assert done.returncode == 3, done.stderr[-2000:]
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(lines) == 21
        outputs.append(
            [{key: value for key, value in line.items() if key not in ("timings_ms", "time")} for line in lines]
        )
    assert outputs[0] == outputs[1]


def test_an_executor_that_there_is_not_is_named(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="--executor dask: there are processes, ray"):
        infer(predictor, [png(tmp_path / "a.png")], executor="dask")

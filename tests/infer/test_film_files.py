from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from edgecxr.errors import UsageError
from edgecxr.films.find import Search, find_inputs
from edgecxr.infer import film_files
from edgecxr.infer.predictor import Predictor
from edgecxr.storage import atomic
from tests.cli_workspace import edgecxr
from tests.infer.dicom.test_dicom_results import scan
from tests.infer.test_run import infer, png
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model"))


def below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def typed(tmp_path: Path, *args: str | Path) -> list[dict]:
    bundle = tmp_path / "bundle"
    bundle = bundle if bundle.exists() else tiny_bundle(bundle).path
    done = edgecxr("infer", *args, "--model", bundle, "--json", runs=tmp_path / "runs")
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_pictures_lie_as_their_films_do(tmp_path: Path) -> None:
    for name in ("film.png", "june/film.png", "june/1/film.png", "july/film.png"):
        png(tmp_path / "archive" / name)
    lines = typed(tmp_path, tmp_path / "archive", "--overlay", tmp_path / "pictures")
    expected = {"film.png.png", "june/film.png.png", "june/1/film.png.png", "july/film.png.png"}
    assert below(tmp_path / "pictures") == expected
    assert {line["overlay"] for line in lines} == {str(tmp_path / "pictures" / name) for name in expected}


def test_no_picture_replaces_that_of_another_film_and_its_own_is_said_to_be_replaced(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [png(tmp_path / folder / "film.png", 60 * n + 30) for n, folder in enumerate("abc")]
    films += [png(tmp_path / folder / f"{'x' * 230}.png") for folder in "ef"]
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (9, 9)).save(pictures / "film.png.png")  # not of edgecxr
    foreign = (pictures / "film.png.png").read_bytes()
    for film in films:  # in runs of their own, which know nothing of each other
        infer(predictor, [film], overlays=pictures)
    assert "replaced" not in capsys.readouterr().err
    first = {path.name: path.read_bytes() for path in pictures.iterdir()}
    assert len(first) == 6 and len(set(first.values())) == 6 and first["film.png.png"] == foreign
    assert all(len(os.fsencode(name)) < 255 for name in first)
    infer(predictor, films, overlays=pictures)
    messages = capsys.readouterr().err.splitlines()[:5]
    assert all(line.startswith("overlay: ") and line.endswith(" (replaced)") for line in messages)
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == first


def test_a_picture_says_nothing_of_its_film_s_folder(tmp_path: Path, predictor: Predictor) -> None:
    infer(predictor, [png(tmp_path / "Doe^Jane" / "film.png")], overlays=tmp_path / "pictures")
    assert b"Jane" not in (tmp_path / "pictures" / "film.png.png").read_bytes()


def test_pictures_are_not_taken_for_films_of_the_next_run(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    png(folder / "film.png")
    for _ in range(2):
        lines = typed(tmp_path, folder, "--overlay", folder / "pictures")
        assert [line["source"] for line in lines] == [str(folder / "film.png")]
    assert below(folder) == {"film.png", "pictures/film.png.png"}
    search = Search(leave_out=(folder / "pictures",))
    assert find_inputs([folder / "pictures"], search=search) == [folder / "pictures"] and search.passed_over
    assert find_inputs([folder / "pictures"]) == [folder / "pictures" / "film.png.png"]  # of a run that writes none


@pytest.mark.parametrize("option", ["--overlay", "--dicom"])
def test_results_beside_films_are_passed_over(tmp_path: Path, option: str) -> None:
    folder = tmp_path / "archive"
    film = scan(folder / "june") if option == "--dicom" else png(folder / "june" / "film.png")
    plain = png(folder / "sr-1.png")  # no name alone makes a result of a film
    copied = folder / "sc-1.2.dcm"
    copied.write_bytes(scan(tmp_path / "elsewhere").read_bytes())
    for _ in range(3):
        done = edgecxr(
            "infer", folder, option, folder, "--model", tiny_bundle(tmp_path / "bundle").path, "--json", "--force",
            runs=tmp_path / "runs",
        )  # fmt: skip
        sources = {json.loads(line)["source"] for line in done.out.splitlines()}
        assert sources == {str(path) for path in (film, plain, copied)}, done.err
    assert "results of edgecxr (" in done.err


def test_two_runs_do_not_replace_each_other_s_pictures(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    films, pictures = (
        [png(tmp_path / folder / "film.png", 60 * n + 30) for n, folder in enumerate("ab")],
        tmp_path / "p",
    )
    place = film_files._place

    def late(*arguments: Any) -> tuple[Path, bool]:
        place_of_film = place(*arguments)
        if arguments[1] == films[0] and not (pictures / "film.png.png").exists():
            infer(predictor, films[1:], overlays=pictures)  # another run is quicker
        return place_of_film

    monkeypatch.setattr(film_files, "_place", late)
    infer(predictor, films[:1], overlays=pictures)
    assert len({path.read_bytes() for path in pictures.iterdir()}) == len(list(pictures.iterdir())) == 2


def test_a_full_disk_of_pictures_ends_in_one_line_and_loses_no_result(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [png(tmp_path / f"{n}.png", 40 * n + 40) for n in range(4)]
    results, pictures = tmp_path / "results.jsonl", tmp_path / "pictures"
    real, written = atomic.new_file, 0

    def full(folder: Path) -> object:
        nonlocal written
        written += 1
        if written > 2:
            raise OSError(28, "No space left on device")
        return real(folder)

    monkeypatch.setattr(atomic, "new_file", full)
    with pytest.raises(UsageError, match=r"2\.png\.png.*No space left.*make room there and"):
        infer(predictor, films, resume=results, overlays=pictures)
    assert below(pictures) == {"0.png.png", "1.png.png"} and len(results.read_text().splitlines()) == 2
    monkeypatch.setattr(atomic, "new_file", real)
    assert infer(predictor, films, resume=results, overlays=pictures) == 0
    assert len(below(pictures)) == 4 == len(results.read_text().splitlines())

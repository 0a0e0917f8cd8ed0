from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.errors import UsageError
from edgecxr.runtime.infer import infer_paths
from edgecxr.runtime.predictor import PHANTOM_WARNING, Predictor
from edgecxr.runtime.types import NOTICE
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    return Predictor(tiny_bundle(tmp_path / "model"))


def png(path: Path, grey: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((56, 56), np.uint8)
    pixels[:28, :28] = grey
    Image.fromarray(pixels).save(path, "PNG")
    return path


def test_results_come_in_the_order_of_the_paths_and_the_rejected_are_counted(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [png(tmp_path / "b.png"), tmp_path / "gone.png", png(tmp_path / "a.png"), tmp_path / "gone too.png"]
    assert infer_paths(predictor, paths, True, False, None) == 2
    printed = capsys.readouterr()
    assert [json.loads(line)["source"] for line in printed.out.splitlines()] == [str(path) for path in paths]
    assert printed.err == ""


def test_a_result_is_printed_before_the_next_film_is_read(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    films = [png(tmp_path / "a.png"), png(tmp_path / "b.png")]
    predict = predictor.predict_with_film
    printed: list[str] = []

    def watched(path: Path) -> object:
        printed.append(capsys.readouterr().out)
        return predict(path)

    monkeypatch.setattr(predictor, "predict_with_film", watched)
    infer_paths(predictor, films, True, False, None)
    assert printed[0] == "" and json.loads(printed[1])["source"] == str(films[0])


def test_for_people_the_notice_is_printed_once(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    assert infer_paths(predictor, [png(tmp_path / "a.png"), png(tmp_path / "b.png")], False, False, None) == 0
    out = capsys.readouterr().out
    assert out.count(NOTICE) == 1 and "attention" not in out


def test_an_attention_map_without_json_is_refused(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UsageError, match=r"--attention .*add --json, or --overlay"):
        infer_paths(predictor, [png(tmp_path / "a.png")], False, True, None)


def test_a_file_in_place_of_the_folder_of_pictures_is_refused_before_any_film(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    film = png(tmp_path / "a.png")
    for place in (film, film / "below"):
        with pytest.raises(UsageError) as caught:
            infer_paths(predictor, [film], True, False, place)
        assert "--overlay" in str(caught.value) and "EDGECXR_RUNS" not in str(caught.value)
        assert capsys.readouterr().out == ""


def test_many_files_show_progress_on_standard_error(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in range(10):
        png(tmp_path / f"{count}.png")
    infer_paths(predictor, [tmp_path], True, False, None)
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == 10 and printed.err == "infer: 10/10\n"


def test_the_warnings_of_the_model_are_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Predictor(tiny_bundle(tmp_path / "phantoms", data={"phantom": True})) as predictor:
        infer_paths(predictor, [png(tmp_path / "a.png"), png(tmp_path / "b.png")], False, False, None)
    assert capsys.readouterr().out.count(PHANTOM_WARNING) == 1


def test_pictures_are_named_after_films_and_none_replaces_another_of_the_same_run(
    tmp_path: Path, predictor: Predictor, capsys: pytest.CaptureFixture[str]
) -> None:
    films = [png(tmp_path / folder / "film.png") for folder in "abc"]
    films += [png(tmp_path / "film.png.2"), png(tmp_path / "d" / "film.png.2")]
    long = [png(tmp_path / folder / f"{'x' * 230}.png") for folder in "ef"]
    pictures = tmp_path / "pictures"
    infer_paths(predictor, films + long, True, False, pictures)
    names = {path.name for path in pictures.iterdir()}
    assert len(names) == 7
    assert {"film.png.png", "film.png.2.png", "film.png.3.png", f"{'x' * 200}.png", f"{'x' * 200}.2.png"} <= names
    said = [line.removeprefix("overlay: ") for line in capsys.readouterr().err.splitlines()]
    assert {Path(line).name for line in said} == names


def test_a_second_run_replaces_the_pictures_of_the_first(tmp_path: Path, predictor: Predictor) -> None:
    film, pictures = tmp_path / "film.png", tmp_path / "pictures"
    contents = []
    for grey in (200, 90):
        infer_paths(predictor, [png(film, grey)], True, False, pictures)
        contents.append((pictures / "film.png.png").read_bytes())
    assert contents[0] != contents[1] and len(list(pictures.iterdir())) == 1

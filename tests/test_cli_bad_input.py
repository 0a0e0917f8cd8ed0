"""Bad input through the command line: one line that says what to do, the right exit code, and nothing lost."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgecxr.errors import REASONS
from tests.cli_workspace import STUDENT, CommandResult, copied, edgecxr, image_folder, trained
from tests.films.dicom_files import film, write
from tests.kill_points import contents
from tests.tiny_bundle import tiny_bundle


@pytest.fixture
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "model").path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "shades")


@pytest.fixture
def prepared(tmp_path: Path, labelled: Path) -> Path:
    """Return a workspace with a data set from PNGs, made without torch."""
    assert edgecxr("prepare", "folder", labelled, "--workers", "1", runs=tmp_path / "runs").code == 0
    return tmp_path / "runs"


def ramp(bits: int = 12) -> np.ndarray:
    return np.linspace(0, (1 << bits) - 1, 64 * 64).reshape(64, 64).astype(np.uint16)


def scan(folder: Path, name: str = "film.dcm", **elements: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write(film(ramp(), **{"BitsStored": 12, **elements}), folder, name)


def results(typed: CommandResult) -> list[dict[str, object]]:
    return [json.loads(line) for line in typed.out.splitlines()]


# ---- infer


def text(path: Path) -> None:
    path.write_text("patient has a cough")


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    path.write_bytes(scan(path.parent, "whole").read_bytes()[:-2000])


def header_only(path: Path) -> None:
    path.write_bytes(scan(path.parent, "whole").read_bytes()[:200])


def without_pixels(path: Path) -> None:
    scan(path.parent, path.name, PixelData=None)


def undecodable(path: Path) -> None:
    from tests.films.dicom_files import compressed

    write(compressed(film(ramp()), "1.2.840.10008.1.2.4.90", b"\xff\x4f\xff\x51 no JPEG 2000"), path.parent, path.name)


def blank(path: Path) -> None:
    write(film(np.full((64, 64), 7, np.uint8)), path.parent, path.name)


def for_processing(path: Path) -> None:
    scan(path.parent, path.name, PresentationIntentType="FOR PROCESSING")


def cut_png(path: Path) -> None:
    picture = io.BytesIO()
    Image.fromarray(ramp(8).astype(np.uint8)).save(picture, "PNG")
    path.write_bytes(picture.getvalue()[:-40])


def pipe(path: Path) -> None:
    os.mkfifo(path)


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


def empty_folder(path: Path) -> None:
    path.mkdir()


def folder_without_films(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("nothing here")


def nothing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (text, "not-an-image"), (empty, "not-an-image"), (truncated, "malformed"), (header_only, "malformed"),
        (without_pixels, "no-pixels"), (undecodable, "undecodable"), (blank, "blank"), (for_processing, "unsupported"),
        (cut_png, "malformed"), (pipe, "not-an-image"), (dangling, "not-found"), (empty_folder, "not-found"),
        (folder_without_films, "not-found"), (nothing, "not-found"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)  # fmt: skip
def test_a_bad_film_is_one_rejected_row_and_the_next_film_is_still_predicted(
    tmp_path: Path, model: Path, make: Callable[[Path], None], reason: str
) -> None:
    bad = tmp_path / "bad.dcm"
    make(bad)
    typed = edgecxr("infer", bad, scan(tmp_path), "--model", model, "--json", runs=tmp_path)
    # What is no film in a folder is counted at the end.
    assert typed.code == 3 and typed.err.count("\n") == 1 + (make is folder_without_films), typed
    rejected, good = results(typed)
    assert (rejected["source"], rejected["status"], rejected["reason"]) == (str(bad), "rejected", reason)
    message = str(rejected["message"])
    # It names the file, and after a colon says what to do.
    assert str(bad) in message and ": " in message.partition(str(bad))[2] and "\n" not in message
    assert good["status"] == "ok"


@pytest.mark.parametrize(
    "name",
    [
        "\u80ba \u0440\u0435\u043d\u0442\u0433\u0435\u043d \U0001fac1.dcm",
        "x" * 251 + ".dcm",
        "-film.dcm",
        "a\nb.dcm",
        "a\x1b[31m.dcm",
    ],
)
def test_unusual_names_are_read_drawn_and_printed(tmp_path: Path, model: Path, name: str) -> None:
    scan(tmp_path / "films", name)
    pictures = tmp_path / "pictures"
    typed = edgecxr("infer", tmp_path / "films", "--model", model, "--json", "--overlay", pictures, runs=tmp_path)
    assert typed.code == 0
    (result,) = results(typed)
    assert result["source"] == str(tmp_path / "films" / name)
    assert len(list(pictures.iterdir())) == 1
    assert len(typed.err.splitlines()) == 1 and "\x1b" not in typed.err
    plain = edgecxr("infer", tmp_path / "films", "--model", model, runs=tmp_path)
    assert plain.code == 0 and "\x1b" not in plain.out


def test_a_result_that_the_terminal_cannot_show_is_escaped(tmp_path: Path, labelled: Path) -> None:
    runs = tmp_path / "\u80ba"
    environment = os.environ | {"EDGECXR_RUNS": str(runs), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "edgecxr", "prepare", "folder", str(labelled), "--workers", "1"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended
    assert "24 images in " in ended.stdout and "\\u80ba/data/shades" in ended.stdout
    assert (runs / "data" / "shades" / "dataset.json").exists()


@pytest.mark.parametrize("length", [256, 5000])
def test_a_name_that_is_too_long_is_rejected_like_any_other(tmp_path: Path, model: Path, length: int) -> None:
    typed = edgecxr("infer", "x" * length, "--model", model, "--json", runs=tmp_path)
    assert typed.code == 3
    assert [result["reason"] for result in results(typed)] == ["not-found"]


def test_pictures_that_cannot_be_written_are_a_wrong_option(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").touch()
    typed = edgecxr("infer", scan(tmp_path), "--model", model, "--overlay", tmp_path / "file", runs=tmp_path)
    assert typed.code == 2 and str(tmp_path / "file") in typed.error


# ---- bundles


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "SHA256SUMS"])
@pytest.mark.parametrize("at", [0, -2])
@pytest.mark.parametrize("command", ["infer", "verify"])
def test_a_bundle_with_one_changed_byte_is_not_used(
    tmp_path: Path, model: Path, name: str, at: int, command: str
) -> None:
    content = bytearray((model / name).read_bytes())
    content[at] ^= 1
    (model / name).write_bytes(content)
    args = ("infer", scan(tmp_path), "--model", model) if command == "infer" else ("bundle", "verify", model)
    typed = edgecxr(*args, runs=tmp_path)
    assert typed.code == 4
    assert typed.out == "" if command == "infer" else "FAILED" in typed.out
    assert str(model) in typed.error and "export" in typed.error


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "SHA256SUMS"])
def test_a_bundle_without_one_of_its_files_is_not_used(tmp_path: Path, model: Path, name: str) -> None:
    (model / name).unlink()
    for args in (("infer", scan(tmp_path), "--model", model), ("bundle", "show", model)):
        typed = edgecxr(*args, runs=tmp_path)
        assert typed.code == 4 and name in typed.error and "export" in typed.error


def test_a_card_of_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    tiny_bundle(tmp_path / "model", format=99, version="9.0")
    typed = edgecxr("infer", scan(tmp_path), "--model", tmp_path / "model", runs=tmp_path)
    assert typed.code == 4 and re.search(r"newer edgecxr \(9\.0\): upgrade", typed.error)


@pytest.mark.parametrize("make", [text, empty_folder, nothing], ids=lambda make: make.__name__)
def test_what_is_no_bundle_is_said_to_be_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "thing")
    for variables, args in (({}, ("--model", tmp_path / "thing")), ({"EDGECXR_MODEL": str(tmp_path / "thing")}, ())):
        typed = edgecxr("infer", scan(tmp_path), *args, runs=tmp_path, **variables)
        assert typed.code == 4 and str(tmp_path / "thing") in typed.error


@pytest.mark.parametrize("command", [("infer", "x", "--model"), ("bundle", "show"), ("evaluate",), ("export",)])
def test_a_name_of_a_model_that_no_file_system_takes_is_a_missing_model(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    typed = edgecxr(*command, "x" * 5000, runs=tmp_path)
    assert typed.code == 4 and "x" * 5000 in typed.error


def test_a_bundle_that_does_not_say_its_data_needs_the_option(prepared: Path, model: Path) -> None:
    typed = edgecxr("evaluate", model, runs=prepared)
    assert typed.code == 3 and "--data" in typed.error
    other = edgecxr("evaluate", model, "--data", "shades", runs=prepared)
    assert other.code == 3 and "data set shades lacks Cardiomegaly" in other.error


def test_a_damaged_bundle_is_not_evaluated_as_if_it_were_a_run(runs: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(runs / "export" / STUDENT, tmp_path / "bundle")
    (bundle / "SHA256SUMS").unlink()
    typed = edgecxr("evaluate", bundle, runs=runs)
    assert typed.code == 4 and "SHA256SUMS is missing" in typed.error


# ---- runs


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: edit(run / "card.json", arch="small"), "does not fit the architecture of its card"),
        (lambda run: flip(run / "best.safetensors", -1), "has changed since its card was written"),
        (lambda run: (run / "best.safetensors").unlink(), "does not exist: train again"),
        (lambda run: edit(run / "card.json", format=99), "newer edgecxr"),
        (lambda run: (run / "card.json").write_text("{"), "is not a model card"),
        (lambda run: (run / "card.json").write_bytes(b"\xff\xfe\x00"), "card.json cannot be read"),
    ],
    ids=["other architecture", "changed weights", "no weights", "newer card", "half a card", "binary card"],
)
@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_damaged_run_is_not_used_and_an_earlier_bundle_stays(
    runs: Path, tmp_path: Path, damage: Callable[[Path], object], message: str, command: str
) -> None:
    workspace = copied(runs, tmp_path / "runs")
    bundle = workspace / "export" / STUDENT
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    damage(workspace / STUDENT)
    typed = edgecxr(command, STUDENT, runs=workspace)
    assert (typed.code, typed.out) == (4, "")
    assert message in typed.error and str(workspace / STUDENT) in typed.error
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_run_whose_data_set_was_prepared_anew_asks_which_one_to_take(runs: Path, tmp_path: Path) -> None:
    workspace = copied(runs, tmp_path / "runs")
    edit(workspace / "data" / "phantom" / "dataset.json", hash="0" * 64)
    typed = edgecxr("evaluate", runs=workspace)
    assert typed.code == 3 and "is not the one" in typed.error and "--data" in typed.error
    assert edgecxr("evaluate", "--data", "phantom", runs=workspace).code == 0


@pytest.mark.parametrize("make", [text, empty_folder, nothing], ids=lambda make: make.__name__)
def test_pretrained_takes_only_a_safetensors_file(runs: Path, tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "weights")
    typed = edgecxr("train", "--pretrained", tmp_path / "weights", runs=runs)
    assert typed.code == 4 and str(tmp_path / "weights") in typed.error


# ---- prepared data


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: (data / "dataset.json").write_text("{"),
        lambda data: (data / "dataset.json").write_text("[]"),
        lambda data: (data / "images.npy").write_bytes((data / "images.npy").read_bytes()[:-1]),
        lambda data: (data / "images.npy").write_bytes(b""),
        lambda data: (data / "images.npy").unlink(),
        lambda data: (data / "table.csv").unlink(),
        lambda data: (data / "table.csv").write_text("id,patient,split,abnormal,Light\n1,1,train,0,0\n"),
    ],
    ids=["half json", "other json", "short images", "empty images", "no images", "no table", "other table"],
)
def test_a_damaged_data_set_is_named_and_preparing_it_again_mends_it(
    prepared: Path, labelled: Path, damage: Callable[[Path], object]
) -> None:
    data = prepared / "data" / "shades"
    damage(data)
    typed = edgecxr("train", runs=prepared)
    assert (typed.code, typed.out) == (3, "")
    assert str(data) in typed.error
    assert edgecxr("prepare", "folder", labelled, "--workers", "1", runs=prepared).code == 0
    assert len(np.load(data / "images.npy")) == 24


def test_a_data_set_of_a_newer_format_asks_for_an_upgrade(prepared: Path) -> None:
    edit(prepared / "data" / "shades" / "dataset.json", format=99)
    typed = edgecxr("train", runs=prepared)
    assert typed.code == 3 and "upgrade edgecxr" in typed.error


# ---- prepare


def rewrite(folder: Path, *lines: str) -> None:
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("lines", "options", "message"),
    [
        (("picture,Dark", "0.png,0", "1.png,1"), (), "has no column 'image'"),
        (("image,Dark", "0.png,0", "1.png,1"), ("--labels", "Drak"), "did you mean 'Dark'?"),
        (("image,Dark", "0.png,0", "1.png,1"), ("--patient-column", "who"), "has no column 'who'"),
        (("image,Dark", "0.png,perhaps", "1.png,maybe"), (), "no column that holds only 0, 1 or nothing"),
        (("image,Dark", "0.png,perhaps", "1.png,1"), (), "column 'Dark' holds 'perhaps'"),
        (("image,Dark", "0.png,perhaps", "1.png,1"), ("--labels", "Dark"), "line 2"),
        (("image,Dark", "0.png,0", "1.png,-1"), ("--labels", "Dark"), "line 3"),
        (("image,Dark", *(f"{i}.png,1" for i in range(24))), (), "no label has both positive and negative"),
        (("image,Dark", "a.png,0", "b.png,1"), (), "none of the 2 images"),
        (("image,Dark", "0.png,0", "0.png,1"), (), "lists 0.png again"),
        (("image,Dark", "0.png,0", ",1"), (), "names no image"),
        (("image,Dark", "0.png,0,1"), (), "has 3 cells where the header has 2"),
        (("image,Dark",), (), "has no rows"),
        (("image,Dark,split", "0.png,0,exam", "1.png,1,train"), (), "a split is train, val or test"),
    ],
)
def test_a_wrong_table_is_named_with_what_is_wrong_in_it(
    tmp_path: Path, labelled: Path, lines: tuple[str, ...], options: tuple[str, ...], message: str
) -> None:
    rewrite(labelled, *lines)
    typed = edgecxr("prepare", "folder", labelled, "--workers", "1", *options, runs=tmp_path / "runs")
    assert (typed.code, typed.out) == (3, "")
    assert message in typed.error and str(labelled / "labels.csv") in typed.error
    assert not (tmp_path / "runs" / "data").exists()


def test_a_table_that_is_not_text_is_malformed(tmp_path: Path, labelled: Path) -> None:
    (labelled / "labels.csv").write_bytes("image,Dark\n".encode("utf-16"))
    typed = edgecxr("prepare", "folder", labelled, runs=tmp_path / "runs")
    assert typed.code == 3 and re.search(r"UTF-16 text: .*table", typed.error)


def test_images_that_are_missing_or_damaged_are_counted_and_listed_and_the_rest_is_prepared(
    tmp_path: Path, labelled: Path
) -> None:
    (labelled / "3.png").unlink()
    (labelled / "4.png").write_text("not a picture")
    (labelled / "5.png").unlink()
    typed = edgecxr("prepare", "folder", labelled, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 0
    assert "21 images" in typed.out and "rejected: not-found 2, not-an-image 1" in typed.out
    rejected = (tmp_path / "runs/data/shades/rejected.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in rejected[1:]] == [
        ["3.png", "not-found"], ["4.png", "not-an-image"], ["5.png", "not-found"],
    ]  # fmt: skip


def test_no_usable_image_at_all_is_an_error(tmp_path: Path, labelled: Path) -> None:
    for picture in labelled.glob("*.png"):
        picture.write_text("not a picture")
    typed = edgecxr("prepare", "folder", labelled, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 3 and "no image of shades can be used (not-an-image: 24)" in typed.error
    assert not (tmp_path / "runs" / "data" / "shades").exists()


def test_a_vindr_folder_that_is_empty_missing_or_half_there_says_which_file_is_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "half" / "annotations").mkdir(parents=True)
    for split in ("train", "test"):
        header = "image_id,rad_id,Cardiomegaly,No finding"
        (tmp_path / f"half/annotations/image_labels_{split}.csv").write_text(f"{header}\n{split}1,R1,1,0\n")
    for name, message in (
        ("empty", "annotations/image_labels_train.csv does not exist"),
        ("missing", "annotations/image_labels_train.csv does not exist"),
        ("half", "with its .dicom files is not there"),
    ):
        typed = edgecxr("prepare", "vindr", tmp_path / name, "--labels", "Cardiomegaly", runs=tmp_path / "runs")
        assert typed.code == 3 and message in typed.error and str(tmp_path / name) in typed.error


@pytest.mark.parametrize("kind", ["folder", "vindr"])
@pytest.mark.parametrize("path", ["missing", "x" * 5000])
def test_a_path_that_does_not_exist(tmp_path: Path, kind: str, path: str) -> None:
    typed = edgecxr("prepare", kind, path, runs=tmp_path)
    assert typed.code == 3 and path in typed.error


def test_phantoms_are_not_written_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("the only copy")
    typed = edgecxr("prepare", "phantom", tmp_path / "mine", "--n", "8", runs=tmp_path / "runs")
    assert typed.code == 3 and "name another folder" in typed.error
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_data_set_does_not_replace_what_edgecxr_has_not_made(tmp_path: Path, labelled: Path) -> None:
    mine = tmp_path / "runs" / "data" / "shades"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("the only copy")
    typed = edgecxr("prepare", "folder", labelled, "--workers", "1", runs=tmp_path / "runs")
    assert typed.code == 2 and str(mine) in typed.error
    assert (mine / "thesis.txt").read_text() == "the only copy"


# ---- the workspace


def unwritable(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "file").touch()
    yield tmp_path / "file"
    yield tmp_path / "file" / "below"
    yield Path("/proc/edgecxr-cannot-be-made")  # refused to root, too
    yield tmp_path / ("x" * 300)


def test_a_workspace_that_cannot_be_written_is_said_at_once(tmp_path: Path, labelled: Path) -> None:
    for runs in unwritable(tmp_path):
        for args in (("folder", labelled, "--workers", "1"), ("phantom", "--n", "8", "--workers", "1")):
            typed = edgecxr("prepare", *args, runs=runs)
            assert typed.code == 2 and "EDGECXR_RUNS" in typed.error, (runs, args)
    assert (tmp_path / "file").read_bytes() == b""


def test_a_workspace_that_cannot_be_read_holds_nothing(tmp_path: Path) -> None:
    for runs in unwritable(tmp_path):
        assert edgecxr("infer", "film.dcm", runs=runs).code in (2, 4)
        assert edgecxr("train", runs=runs).code in (2, 3)
        assert edgecxr("evaluate", "model", runs=runs).code in (2, 4)


def test_a_read_only_workspace(runs: Path, tmp_path: Path) -> None:
    workspace = copied(runs, tmp_path / "runs")
    # Root may write everywhere, unless it gives up the capability.
    bound = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
    if bound and (shutil.which(bound[0]) is None or subprocess.run([*bound, "true"]).returncode):
        pytest.skip("root cannot give up its right to write everywhere here")
    before = contents(workspace)
    folders = [path for path in (workspace, *workspace.rglob("*")) if path.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        for args in (
            ["distill", "--res", "56", "--epochs", "1"],
            ["export", "--name", "b"],
            ["prepare", "phantom", "--n", "8"],
        ):
            command = [*bound, sys.executable, "-m", "edgecxr", *args]
            environment = os.environ | {"EDGECXR_RUNS": str(workspace)}
            ended = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
            error = ended.stderr.splitlines()[-1]
            assert error.startswith("error: ") and "cannot be written" in error and "EDGECXR_RUNS" in error, error
        assert contents(workspace) == before
    finally:
        for folder in folders:
            folder.chmod(0o755)


# ---- anything


@lru_cache
def fixed_model() -> Path:
    return tiny_bundle(Path(tempfile.mkdtemp(prefix="edgecxr-test-")) / "model").path


@lru_cache
def valid(kind: str) -> bytes:
    if kind == "png":
        picture = io.BytesIO()
        Image.fromarray(ramp(8).astype(np.uint8)).save(picture, "PNG")
        return picture.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        return scan(Path(folder)).read_bytes()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid film with some bytes changed, and perhaps a part taken out or its end cut off."""
    content = bytearray(valid(draw(st.sampled_from(["dicom", "png"]))))
    # Headers are where changes do most harm.
    places = st.one_of(st.integers(0, min(1023, len(content) - 1)), st.integers(0, len(content) - 1))
    for place, value in draw(st.lists(st.tuples(places, st.integers(0, 255)), max_size=12)):
        content[place] = value
    start, length = draw(places), draw(st.integers(0, 64))
    del content[start : start + length]
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


films = st.one_of(
    mutated(),
    st.binary(max_size=600),
    st.binary(max_size=300).map(lambda body: b"\0" * 128 + b"DICM" + body),
    st.binary(max_size=300).map(lambda body: b"\x89PNG\r\n\x1a\n" + body),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=films)
def test_whatever_bytes_a_film_holds_infer_predicts_or_rejects_it(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.dcm"
        path.write_bytes(content)
        typed = edgecxr("infer", path, "--model", fixed_model(), "--json", runs=Path(folder))
    (result,) = results(typed)
    assert typed.err == ""
    if typed.code == 0:
        assert result["status"] == "ok" and 0 <= result["abnormal"]["probability"] <= 1  # type: ignore[index]
    else:
        assert typed.code == 3 and result["reason"] in REASONS
        assert len(str(result["message"]).splitlines()) == 1


def is_new(word: str) -> bool:
    return not os.path.lexists(word) and word.strip() not in ("", ".", "..")


# What a shell can pass: no NUL.
words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40).filter(is_new)
commands = st.one_of(
    st.tuples(words),
    st.tuples(st.just("infer"), st.just("gone.dcm"), st.just("--model"), words),
    st.tuples(st.just("infer"), words),
    st.tuples(st.just("evaluate"), words),
    st.tuples(st.just("evaluate"), st.just("--data"), words),
    st.tuples(st.just("export"), words),
    st.tuples(st.just("bundle"), st.sampled_from(["show", "verify"]), words),
    st.tuples(st.just("prepare"), words),
    st.tuples(st.just("prepare"), st.sampled_from(["folder", "vindr"]), words),
    st.tuples(st.just("prepare"), st.just("folder"), st.just("."), st.just("--labels"), words),
    st.tuples(st.just("train"), st.just("--data"), words),
    st.tuples(st.just("distill"), st.just("--res"), words),
    st.tuples(st.just("distill"), st.just("--res"), st.just("28"), st.just("--method"), words),
    st.tuples(st.just("distill"), st.just("--res"), st.just("28"), st.just("--data"), words),
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(args=commands)
def test_whatever_is_typed_nothing_fails_unexpectedly(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = edgecxr(*args, runs=tmp_path / "runs")
    if {"-h", "--help", "--version"} & set(args):
        return
    assert typed.code in (2, 3, 4), typed
    assert "Traceback" not in typed.err and "unexpected" not in typed.err
    assert typed.out == "" or args[0] == "infer"
    assert not (tmp_path / "runs").exists()


HOSTILE = "a\x1b[31m\x9b2J\u202e\u200b\r\x7f\nerror: x"


def test_nothing_of_strangers_is_obeyed_by_a_terminal(tmp_path: Path) -> None:
    """Names of files, films that are none, and records: whatever is printed of them is printable."""
    film = tmp_path / f"{HOSTILE}.dcm"
    film.write_bytes(b"\0" * 128 + b"DICM" + HOSTILE.encode())
    report = tmp_path / f"{HOSTILE}.json"
    report.write_text('{"schema": "edgecxr-benchmark", "version": "\\u009b\\u202e\\u007f"}')
    (tmp_path / "labels.csv").write_text(f'image,Edema\n"{HOSTILE}",1\n', encoding="utf-8")
    model = ("--model", fixed_model())
    for command in (
        ("infer", film, *model), ("infer", film, "--json", *model), ("infer", tmp_path / HOSTILE, *model),
        ("infer", film, "--model", HOSTILE), ("report", report), ("benchmark", "--compare", report, report),
        ("bundle", "show", tmp_path / HOSTILE), ("prepare", "folder", tmp_path / "labels.csv"),
        ("data", "show", HOSTILE), ("--debug", "report", report), (HOSTILE,),
    ):  # fmt: skip
        typed = edgecxr(*command, runs=tmp_path / "runs")
        assert typed.code in (2, 3, 4), typed
        for line in (typed.out + typed.err).split("\n"):
            assert line.isprintable(), (command, line)

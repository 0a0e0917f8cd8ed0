import csv
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgecxr.data import decode
from edgecxr.data.cache import Prepared, contact_sheet, prepare
from edgecxr.data.folder import Folder
from edgecxr.errors import EdgeCxrError, InputError, UsageError
from edgecxr.runtime.preprocess import to_base

COUNT = 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """30 images of noise with two findings; image 3 is text, image 5 is missing, image 7 is small."""
    folder = tmp_path / "films"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = ["image,patient,split,Edema,Nodule\n"]
    for i in range(COUNT):
        side = 100 if i == 7 else 240
        Image.fromarray(rng.integers(0, 256, (side, side), dtype=np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,p{i},{('train', 'val', 'test')[i % 3]},{i % 2},{'' if i == 1 else 0.5}\n")
    (folder / "3.png").write_text("not a film")
    (folder / "5.png").unlink()
    (folder / "labels.csv").write_text("".join(lines))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_prepared_is_what_the_reader_and_the_resize_give(source: Path, tmp_path: Path) -> None:
    dataset = Folder(source)
    seen: list[tuple[int, int]] = []
    prepared = prepare(dataset, tmp_path / "out", 1, lambda done, total: seen.append((done, total)))
    kept = [i for i in range(COUNT) if i not in (3, 5)]
    assert seen == [(i, COUNT) for i in range(COUNT + 1)]
    assert prepared.images.shape == (28, 224, 224)
    for row in (0, 3, 5, 27):
        np.testing.assert_array_equal(prepared.images[row], to_base(dataset.read(kept[row]).pixels))
    assert prepared.labels == ("Edema", "Nodule")
    for name in ("ids", "patients", "splits", "targets", "abnormal"):
        np.testing.assert_array_equal(getattr(prepared, name), getattr(dataset, name)[kept])
    assert prepared.targets.dtype == np.float32
    assert prepared.rows("val").tolist() == [i for i, k in enumerate(kept) if k % 3 == 1]
    assert prepared.name == "films"
    assert not prepared.phantom


def test_rejected_images_and_warnings_are_recorded(source: Path, tmp_path: Path) -> None:
    prepared = prepare(Folder(source), tmp_path / "out", 1)
    with (prepared.path / "rejected.csv").open(newline="") as file:
        rejected = [(row["id"], row["reason"]) for row in csv.DictReader(file)]
    assert rejected == [("3.png", "not-an-image"), ("5.png", "not-found")]
    assert prepared.info["rejected"] == {"not-an-image": 1, "not-found": 1}
    assert list(prepared.info["warnings"].values()) == [1]
    assert "100 x 100" in next(iter(prepared.info["warnings"]))
    val = prepared.info["counts"]["val"]
    assert (val["images"], val["patients"]) == (10, 10)
    assert val["labels"]["Edema"] == {"positive": 5, "negative": 5, "unknown": 0}
    assert val["labels"]["Nodule"] == {"positive": 9, "negative": 0, "unknown": 1}
    assert "source" not in prepared.summary()["provenance"]


def test_more_processes_give_the_same_bytes(source: Path, tmp_path: Path) -> None:
    one = prepare(Folder(source), tmp_path / "one", 1)
    two = prepare(Folder(source), tmp_path / "two", 2)
    assert contents(one.path) == contents(two.path)
    assert {path.name for path in tmp_path.iterdir()} == {"films", "one", "two"}


KILLED = """
import os, signal, sys
from edgecxr.data import decode
from edgecxr.data.cache import prepare
from edgecxr.data.folder import Folder
decode.COMMIT_SECONDS = 0
def progress(done, total):
    if done == 12:
        os.kill(os.getpid(), signal.SIGKILL)
prepare(Folder(sys.argv[1]), sys.argv[2], int(sys.argv[3]), progress)
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_goes_on_where_it_was(source: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(source), str(out), str(workers)], capture_output=True)
    assert killed.returncode == -9
    assert not out.exists()
    with (tmp_path / ".out.partial" / "journal.jsonl").open("a") as file:
        file.write('[20, "", "')  # a line that the crash cut off
    seen: list[int] = []
    resumed = prepare(Folder(source), out, 1, lambda done, total: seen.append(done))
    # All but the rejected of the first twelve are done; those are tried again, since their cause may have been mended.
    assert 9 <= seen[0] <= 12
    assert seen == list(range(seen[0], COUNT + 1))
    assert contents(resumed.path) == contents(prepare(Folder(source), tmp_path / "whole", 1).path)
    assert not (tmp_path / ".out.partial").exists()


def interrupt(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "COMMIT_SECONDS", 0)

    def stop(done: int, total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(Folder(source), out, 1, stop)


def test_work_on_other_inputs_is_thrown_away(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    interrupt(source, out, monkeypatch)
    Image.effect_noise((240, 240), 50).save(source / "0.png")
    seen: list[int] = []
    prepared = prepare(Folder(source), out, 1, lambda done, total: seen.append(done))
    assert seen[0] == 0
    np.testing.assert_array_equal(prepared.images[0], to_base(Folder(source).read(0).pixels))


def test_a_finished_one_is_returned_at_once_until_its_inputs_change(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = prepare(Folder(source), out, 1)
    calls: list[int] = []
    again = prepare(Folder(source), out, 1, lambda done, total: calls.append(done))
    assert calls == []
    assert again.hash == first.hash
    Image.new("L", (240, 240)).save(source / "5.png")  # blank, but there
    (source / "3.png").write_bytes((source / "0.png").read_bytes())
    changed = prepare(Folder(source), out, 1)
    assert changed.info["rejected"] == {"blank": 1}
    assert changed.hash != first.hash
    np.testing.assert_array_equal(first.images[0], changed.images[0])  # the old map outlives its file


def test_the_old_one_stays_until_the_new_one_is_complete(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = prepare(Folder(source), out, 1)
    with (source / "labels.csv").open("a") as file:
        file.write("extra.png,p,train,1,1\n")
    interrupt(source, out, monkeypatch)
    assert Prepared.open(out).hash == first.hash


def test_a_damaged_one_is_made_again(source: Path, tmp_path: Path) -> None:
    first = prepare(Folder(source), tmp_path / "out", 1)
    (first.path / "table.csv").write_text("id\n")
    with pytest.raises(InputError):
        Prepared.open(first.path)
    assert prepare(Folder(source), tmp_path / "out", 1).hash == first.hash


def test_a_killed_worker_is_an_error_that_can_be_resumed(source: Path, tmp_path: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done == 4:
            for child in multiprocessing.active_children():
                child.kill()

    with pytest.raises(EdgeCxrError, match=r"a worker process was killed, .*run the same command again"):
        prepare(Folder(source), tmp_path / "out", 2, kill)
    assert len(prepare(Folder(source), tmp_path / "out", 2)) == 28


def test_nothing_usable_is_an_error(source: Path, tmp_path: Path) -> None:
    for path in source.glob("*.png"):
        path.write_text("not a film")
    with pytest.raises(InputError, match=r"no image of films can be used \(not-an-image: 29, not-found: 1\)") as caught:
        prepare(Folder(source), tmp_path / "out", 1)
    assert caught.value.reason == "dataset"
    assert not (tmp_path / "out").exists()


def test_a_fault_of_a_decoder_rejects_its_image_only(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Folder(source)
    read = dataset.read

    def faulty(index: int) -> object:
        return 1 / 0 if index == 0 else read(index)

    monkeypatch.setattr(dataset, "read", faulty)
    prepared = prepare(dataset, tmp_path / "out", 1)
    assert prepared.info["rejected"]["undecodable"] == 1
    assert "0.png: ZeroDivisionError: division by zero" in (prepared.path / "rejected.csv").read_text()


def test_folders_of_other_people_are_not_replaced(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="files that edgecxr has not made"):
        prepare(Folder(source), source, 1)


def test_two_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    def second(done: int, total: int) -> None:
        if done == 1:
            prepare(Folder(source), tmp_path / "out", 1)

    said = rf"process {os.getpid()} on .* is writing {tmp_path}/out: wait for it, or end it"
    with pytest.raises(UsageError, match=said):
        prepare(Folder(source), tmp_path / "out", 1, second)


def test_open_says_what_is_wrong_and_what_to_do(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no prepared data set.*edgecxr prepare"):
        Prepared.open(tmp_path)
    path = prepare(Folder(source), tmp_path / "out", 1).path
    whole = contents(path)
    info = json.loads(whole["dataset.json"])
    lines = whole["table.csv"].splitlines(keepends=True)
    for name, damaged, message in (
        ("dataset.json", whole["dataset.json"][:100], "is damaged"),
        ("dataset.json", json.dumps(info | {"format": 99}).encode(), "by a newer edgecxr"),
        ("dataset.json", json.dumps(info | {"labels": ["Edema"]}).encode(), "other columns"),
        ("table.csv", b"".join(lines[:-1]), "for 27 lines"),
        ("images.npy", whole["images.npy"][:-1], "is damaged"),
        ("images.npy", b"", "is damaged"),
    ):
        (path / name).write_bytes(damaged)
        with pytest.raises(InputError, match=message) as caught:
            Prepared.open(path)
        assert caught.value.reason == "dataset"
        assert "edgecxr prepare" in str(caught.value)
        (path / name).write_bytes(whole[name])
    Prepared.open(path).check()
    (path / "images.npy").write_bytes(whole["images.npy"][:-1] + bytes([whole["images.npy"][-1] ^ 1]))
    with pytest.raises(InputError, match="have changed since"):
        Prepared.open(path).check()


def test_the_contact_sheet_shows_the_images(source: Path, tmp_path: Path) -> None:
    prepared = prepare(Folder(source), tmp_path / "out", 1)
    assert (prepared.path / "contact_sheet.png").stat().st_size > 10_000
    contact_sheet(prepared, tmp_path / "sheet.png", n=7)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    first = prepared.images[np.argsort(prepared.abnormal, kind="stable")[0]]
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (224, 224))
    assert (windows[:40, :20] == first).all(axis=(2, 3)).sum() == 1

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgecxr.errors import ModelError
from edgecxr.runtime.bundle import Bundle, write_bundle
from tests.tiny_bundle import LABELS, tiny_bundle, tiny_card


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path / "bundle").path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_written_can_be_opened(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.card == tiny_card()
    assert bundle.card.labels == LABELS
    assert bundle.artefact() == folder / "model.onnx"
    assert bundle.verify() == [("card.json", True), ("model.onnx", True)]


def test_sha256sum_agrees(folder: Path) -> None:
    if not (tool := shutil.which("sha256sum")):
        pytest.skip("no sha256sum")
    done = subprocess.run([tool, "--strict", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["card.json: OK", "model.onnx: OK"]


@pytest.mark.parametrize("name", ["card.json", "model.onnx"])
@pytest.mark.parametrize("position", [0, -1])
def test_one_changed_byte_is_found(folder: Path, name: str, position: int) -> None:
    data = bytearray((folder / name).read_bytes())
    data[position] ^= 1
    bundle = Bundle.open(folder)
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError, match=rf"{name} has changed .*export it again or copy it again"):
        Bundle.open(folder)
    assert dict(bundle.verify()) == {"card.json": name != "card.json", "model.onnx": name != "model.onnx"}


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "SHA256SUMS"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=rf"{name} is missing.*export it again or copy it again"):
        Bundle.open(folder)


def test_unlisted_files_are_let_be(folder: Path) -> None:
    (folder / "engines").mkdir()
    (folder / "engines" / "model.engine").write_bytes(b"built here")
    assert Bundle.open(folder).card.name == "tiny-test"


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "a/../../outside"])
def test_the_list_cannot_point_outside(folder: Path, name: str) -> None:
    with (folder / "SHA256SUMS").open("a") as file:
        file.write(f"{'0' * 64}  {name}\n")
    with pytest.raises(ModelError, match="outside the bundle"):
        Bundle.open(folder)


@pytest.mark.parametrize("text", ["", "nonsense\n", f"{'0' * 64}  model.onnx\n"])
def test_a_damaged_list_is_refused(folder: Path, text: str) -> None:
    (folder / "SHA256SUMS").write_text(text)
    with pytest.raises(ModelError, match="SHA256SUMS"):
        Bundle.open(folder)


def test_a_list_that_is_not_text_is_refused(folder: Path) -> None:
    (folder / "SHA256SUMS").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="SHA256SUMS cannot be read"):
        Bundle.open(folder)


def test_a_model_that_the_list_leaves_out_is_not_handed_out(folder: Path) -> None:
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if "model.onnx" not in line))
    bundle = Bundle.open(folder)
    with pytest.raises(ModelError, match=r"does not list model\.onnx"):
        bundle.artefact()


def test_paths_that_are_no_bundle_are_explained(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist: make a bundle with `edgecxr export`"):
        Bundle.open(tmp_path / "absent")
    with pytest.raises(ModelError, match="is a file, not a bundle"):
        Bundle.open(folder / "model.onnx")


def test_an_absent_precision_names_what_there_is(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"no int8 model \(it has: fp32\)"):
        Bundle.open(folder).artefact("int8")


def test_a_new_bundle_replaces_the_old_one_as_a_whole(folder: Path) -> None:
    (folder / "stale.txt").write_text("of the old bundle")
    tiny_bundle(folder, name="second")
    assert Bundle.open(folder).card.name == "second"
    assert sorted(contents(folder)) == ["SHA256SUMS", "card.json", "model.onnx"]


def test_a_failure_leaves_the_old_bundle_and_nothing_else(folder: Path) -> None:
    before = contents(folder.parent)
    card = tiny_card(artefacts={"model.onnx": {"precision": "fp32"}, "model.fp16.onnx": {"precision": "fp16"}})
    files = {"model.onnx": folder / "model.onnx", "model.fp16.onnx": folder.parent / "absent.onnx"}
    with pytest.raises(ModelError, match=r"absent\.onnx cannot be copied"):
        write_bundle(folder, card, files)
    assert contents(folder.parent) == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bundle"]


@pytest.mark.parametrize("name", ["../model.onnx", "a/b.onnx", "card.json", "SHA256SUMS", "two\nlines", ""])
def test_names_that_cannot_be_listed_are_refused(folder: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be the name"):
        write_bundle(folder, tiny_card(), {"model.onnx": folder / "model.onnx", name: folder / "model.onnx"})


def test_a_card_that_promises_more_than_is_given_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"names model\.onnx"):
        write_bundle(tmp_path / "bundle", tiny_card(), {})
    assert not (tmp_path / "bundle").exists()


def test_a_card_of_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    folder = tiny_bundle(tmp_path / "bundle", format=99).path
    with pytest.raises(ModelError, match="upgrade edgecxr"):
        Bundle.open(folder)

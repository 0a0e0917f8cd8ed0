"""The pictures of README and docs are those that the records, the commands and the code of now make."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import images  # noqa: E402


def test_no_picture_is_stale():
    """`python docs/images.py --check` says the same, and its first lines say what to do."""
    assert images.stale(ROOT) == []


def test_every_picture_is_shown_and_every_picture_that_is_shown_is_there():
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md"]
    shown = {name for page in pages for name in re.findall(r"\]\((?:\S*/)?images/([\w-]+)\.png\)", page.read_text())}
    assert shown == set(images.PICTURES) == {path.stem for path in (ROOT / "docs" / "images").glob("*.png")}


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """What two of the pictures are made from, and the manifest that says so."""
    for name in ("curves", "by-size"):
        picture = images.PICTURES[name]
        for path in (f"docs/images/{name}.png", images.WALKTHROUGH, *picture.code, *picture.data):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / path, tmp_path / path)
        images.keep(tmp_path, name)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "change", "blamed"),
    [
        ("docs/images/curves.png", lambda data: data + b"\0", "curves"),
        ("edgecxr/plots/curves.py", lambda data: data + b"\nWIDTH = 3\n", "curves"),
        ("docs/walkthrough.md", lambda data: data.replace(b"--depth 6", b"--depth 5"), "curves"),
        ("benchmarks/results/cpu-2core/by-size-phantom10k.json", lambda data: data.replace(b"1", b"2", 1), "by-size"),
        ("edgecxr/plots/curves.py", lambda data: b"# a comment\n\n" + data, ""),
        ("docs/walkthrough.md", lambda data: data.replace(b"\n## ", b"\nwords\n\n## "), ""),
    ],
)
def test_a_picture_is_stale_once_something_that_it_is_made_from_has_changed(copied, path, change, blamed):
    before = (copied / path).read_bytes()
    (copied / path).write_bytes(change(before))
    assert (copied / path).read_bytes() != before
    messages = images.stale(copied, ("curves", "by-size"))
    assert [re.findall(r"images/([\w-]+)\.png is stale: .*" + re.escape(path), line) for line in messages] == (
        [[blamed]] if blamed else []
    )
    if blamed:
        images.keep(copied, blamed)
        assert images.stale(copied, ("curves", "by-size")) == []


def test_docstrings_and_comments_of_the_code_that_draws_do_not_count():
    code = '"""About."""\n\n# Why.\nx = "# text"\n\ndef f():\n    """Return\n\n    one.\n    """\n    return 1  # one\n'
    assert images.bare(code) == 'x = "# text"\ndef f():\n    return 1  # one'


def test_what_is_missing_is_named_and_nothing_is_drawn(tmp_path):
    with pytest.raises(images.CannotDraw, match=r"curves\.png .*record\.py"):
        images.PICTURES["curves"].draw(tmp_path, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


def test_a_picture_of_a_record_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    images.PICTURES["by-size"].draw(tmp_path, tmp_path / "by-size.png")
    assert (tmp_path / "by-size.png").read_bytes().startswith(b"\x89PNG")

"""A film is found however a table spells its path, if one file fits, and never outside of the folder."""

from __future__ import annotations

import tempfile
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecxr.data.adapters.film_paths import FilmPaths
from edgecxr.data.adapters.folder import folder
from tests.data.tables.test_findings import table

SPELLINGS = {
    "as it is": lambda path: path,
    "backslashes": lambda path: ".\\" + path.replace("/", "\\"),
    "upper": str.upper,
    "lower": str.lower,
    "decomposed": lambda path: unicodedata.normalize("NFD", path),
}


@settings(deadline=None)
@given(
    names=st.lists(st.sampled_from(["Train", "é1", "film-Ä", "x.Y"]), min_size=1, max_size=3),
    how=st.sampled_from(sorted(SPELLINGS)),
)
def test_one_file_that_fits_is_taken(names: list[str], how: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "set")
        file = root.joinpath(*names[:-1], f"{names[-1]}.png")
        file.parent.mkdir(parents=True)
        file.touch()
        paths = FilmPaths(root, root / "labels.csv")
        cell = SPELLINGS[how](str(file.relative_to(root)))
        assert paths.path(cell) == (str(file), "")
        plain = cell.replace("\\", "/").removeprefix("./") == str(file.relative_to(root))
        assert paths.respelt == (not plain)


def test_of_two_that_fit_none_is_taken_and_outside_is_outside(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name in ("a.png", "A.png", "B.png"):
        (root / name).touch()
    (tmp_path / "c.png").touch()
    (root / "D.png").symlink_to(tmp_path / "c.png")
    paths = FilmPaths(root, root / "labels.csv")
    assert [paths.path(name)[0] for name in ("a.png", "A.PNG", "b.png")] == [
        str(root / name) for name in ("a.png", "A.PNG", "B.png")
    ]
    assert "outside" in paths.path("../C.PNG")[1] and not Path(paths.path("..\\c.png")[0]).exists()
    assert paths.path("d.png")[0] == str(root / "d.png")  # which is missing; the link leads outside


@pytest.mark.parametrize("spell", [str.upper, ".\\{}".format])
def test_a_table_of_other_spellings_is_opened(tmp_path: Path, spell) -> None:  # type: ignore[no-untyped-def]
    path = table(tmp_path, {"Edema": ["0", "1"] * 5})
    for row in range(10):
        (tmp_path / f"{row}.png").touch()
    path.write_text(path.read_text().replace("0.png", spell("0.png")))
    dataset = folder(path)
    assert all(file.exists() for file in dataset.files)
    assert any(": 1, such as 0.PNG" in text for text in dataset.provenance["warnings"]) == (spell is str.upper)


@settings(deadline=None)
@given(
    start=st.sampled_from(["C:\\", "c:", "D:/", "\\\\server\\share\\", "\\", "..\\", "x\\..\\..\\"]),
    names=st.lists(st.sampled_from(["films", "a b"]), max_size=2),
    found=st.booleans(),
)
def test_a_path_of_windows_that_leads_out_is_said(start: str, names: list[str], found: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        root = Path(place, "set")
        root.mkdir()
        cell = start + "\\".join([*names, "0.png"])
        if found and "/" not in cell:
            (root / cell).touch()  # a name with backslashes, as Linux unpacks some archives
        problem = FilmPaths(root, root / "labels.csv").path(cell)[1]
        assert ("Windows" in problem) == (not (found and "/" not in cell)), problem

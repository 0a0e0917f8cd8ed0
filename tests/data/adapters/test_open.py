from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecxr.data.adapters.open import open_source
from edgecxr.errors import InputError, UsageError
from edgecxr.registry import DATASETS
from edgecxr.workspace import Workspace


class Spy:
    """An adapter that keeps what it is called with; its signature says which options there are."""

    arguments: dict[str, Any]

    def __init__(
        self,
        path: Path,
        labels: object = None,
        merge: str | None = None,
        seed: int = 0,
        name: str = "spy",
        ignore: object = (),
    ) -> None:
        type(self).arguments = {"path": path, "labels": labels, "merge": merge, "seed": seed, "ignore": ignore}
        self.name = name


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setitem(DATASETS, "spy", f"{__name__}:Spy")
    monkeypatch.setitem(DATASETS, "vindr", f"{__name__}:Spy")
    # The registry imports by name, and pytest may know this module under another.
    monkeypatch.setitem(sys.modules, __name__, types.SimpleNamespace(Spy=Spy))

    def open_(
        kind: str = "spy", path: Path | None = Path("here"), listed: dict[str, str | None] | None = None, **options: Any
    ) -> Any:
        return open_source(kind, path, options, listed or {}, 7, None, lambda done, total: None, Workspace(tmp_path))

    return open_


def test_only_what_was_given_reaches_the_adapter(opened: Callable[..., Any]) -> None:
    source = opened(merge=None, name="mine")
    assert source.name == "mine"
    assert Spy.arguments == {"path": Path("here"), "labels": None, "merge": None, "seed": 7, "ignore": ()}


def test_lists_are_cut_at_commas_and_blanks_around_names_do_not_count(opened: Callable[..., Any]) -> None:
    opened(listed={"labels": " Nodule/Mass, Edema ,", "ignore": "sex"})
    assert Spy.arguments["labels"] == ["Nodule/Mass", "Edema"] and Spy.arguments["ignore"] == ["sex"]


@pytest.mark.parametrize(
    ("typed", "labels"),
    [
        ("vindr22", "vindr22"),
        ("vindr41", "vindr41"),  # the adapter says which sets there are
        ("Cardiomegaly", ["Cardiomegaly"]),
        ("Cardiomegaly,Edema", ["Cardiomegaly", "Edema"]),
    ],
)
def test_a_single_word_for_vindr_is_a_set_of_labels_unless_it_is_a_finding(
    opened: Callable[..., Any], typed: str, labels: object
) -> None:
    opened("vindr", listed={"labels": typed})
    assert Spy.arguments["labels"] == labels


def test_options_that_the_adapter_does_not_have_are_all_named_as_they_were_typed(opened: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match=r"spy takes no --split-column, --n$"):
        opened(split_column="part", n=9, merge="mean")


def test_an_unknown_data_set_and_a_missing_path_are_wrong_usage(opened: Callable[..., Any]) -> None:
    with pytest.raises(UsageError, match="did you mean 'folder'"):
        opened("foldr")
    with pytest.raises(UsageError, match="edgecxr prepare spy PATH"):
        opened(path=None)


def test_a_phantom_without_a_path_is_made_in_the_workspace_under_its_name(tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []

    def phantom(name: str | None) -> Any:
        options = {"n": 8, "name": name}
        return open_source(
            "phantom", None, options, {}, 3, 1, lambda done, total: counts.append((done, total)), Workspace(tmp_path)
        )

    source = phantom("eight")
    assert (source.name, len(source), source.provenance["seed"]) == ("eight", 8, 3)
    assert (tmp_path / "eight" / "phantom.json").exists() and counts[0] == (0, 8) and counts[-1] == (8, 8)
    assert phantom(None).name == "phantom" and (tmp_path / "phantom" / "phantom.json").exists()


def test_phantoms_of_another_seed_are_not_mixed(tmp_path: Path) -> None:
    def phantom(seed: int) -> Any:
        return open_source("phantom", None, {"n": 8}, {}, seed, 1, lambda done, total: None, Workspace(tmp_path))

    phantom(0)
    with pytest.raises(InputError, match="another seed"):
        phantom(1)

"""What is passed on names no folder of the machine that made it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from edgecxr.bundle.bundle import Bundle
from edgecxr.data.prepared import Prepared
from edgecxr.resolve import shipped
from tests.cli_workspace import copied, edgecxr, trained

ROOT = Path(__file__).parents[2]
OF_A_MACHINE = re.compile(r"/(home|root|tmp|work|mnt|data|Users|var|opt|srv)/")


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (text for pair in value.items() for each in pair for text in texts(each))
    elif isinstance(value, list):
        yield from (text for each in value for text in texts(each))
    elif isinstance(value, str):
        yield value


def card_in(model: Path) -> dict[str, Any]:
    properties = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    card: dict[str, Any] = json.loads(properties["edgecxr_card"])
    return card


@pytest.mark.parametrize("folder", shipped(), ids=lambda folder: folder.name)
def test_a_bundle_that_comes_with_edgecxr_names_no_folder(folder: Path) -> None:
    bundle = Bundle.open(folder)
    for precision in ("fp32", "int8"):
        bundle.model(precision)  # is what SHA256SUMS and the card say
    cards = [json.loads((folder / "card.json").read_text()), *map(card_in, sorted(folder.glob("*.onnx")))]
    assert len(cards) == 3
    assert [text for card in cards for text in texts(card) if OF_A_MACHINE.search(text)] == []
    assert {card["training"]["pretrained"] for card in cards} == {"phantom-teacher"}


def test_cards_of_runs_and_bundles_name_no_folder_of_their_workspace(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    runs = copied(trained(tmp_path_factory), tmp_path / "runs")
    first = next(runs.glob("teacher-*"))
    typed = edgecxr("train", "--init", first, "--epochs", "1", "--batch", "16", "--name", "second", runs=runs)
    assert typed.code == 0, typed
    cards = [json.loads(path.read_text()) for path in runs.rglob("card.json")]
    cards += [card_in(path) for path in runs.rglob("*.onnx")]
    assert len(cards) >= 5 and any(card["training"]["pretrained"] == first.name for card in cards)
    folders = (str(runs), str(tmp_path_factory.getbasetemp()))
    assert [text for card in cards for text in texts(card) if any(folder in text for folder in folders)] == []


def test_no_record_names_a_folder_of_a_machine() -> None:
    records = [path for path in (ROOT / "benchmarks" / "results").rglob("*.json") if not path.is_symlink()]
    assert records
    assert [path.name for path in records if OF_A_MACHINE.search(path.read_text())] == []


def test_what_a_card_says_of_its_films_names_no_folder_whatever_option_named_it(tmp_path: Path) -> None:
    films, table = tmp_path / "films of ward 7", tmp_path / "elsewhere" / "ours.csv"
    films.mkdir()
    table.parent.mkdir()
    for number in range(12):
        Image.fromarray(np.full((64, 64), 5 + number, np.uint8) + np.eye(64, dtype=np.uint8)).save(
            films / f"{number}.png"
        )
    rows = [f"{number}.png,p{number},{number % 2},note" for number in range(12)]
    table.write_text("\n".join(["file,person,Edema,remark", *rows]) + "\n")
    columns = ("--image-column", "file", "--patient-column", "person", "--ignore", "remark")
    typed = edgecxr("prepare", "folder", table, "--images", films, *columns, runs=tmp_path / "runs")
    assert typed.code == 0, typed
    (facts,) = (tmp_path / "runs").rglob("dataset.json")
    prepared = Prepared.open(facts.parent)
    assert prepared.info["provenance"]["images"] == str(films), "the data set itself knows where they lie"
    assert [text for text in texts(prepared.summary()) if str(tmp_path) in text] == []
    assert prepared.summary()["provenance"]["patient_column"] == "person"

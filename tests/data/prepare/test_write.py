"""What had to be assumed of films is said when they are prepared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecxr.errors import GATE_REASONS
from edgecxr.films.read import read_film
from tests.cli_workspace import CommandResult, edgecxr
from tests.films.dicom_files import film, write

FILMS: tuple[dict[str, Any], ...] = (
    {"BodyPartExamined": "KNEE"}, {"ViewPosition": "LL"}, {"Modality": "CT"}, {"ViewPosition": "LL"},
    {"BodyPartExamined": "CHEST", "ViewPosition": "PA"}, {"WindowCenter": 100, "WindowWidth": -5},
    {"PatientOrientation": ["R", "F"]}, {"ViewPosition": "PA"},
)  # fmt: skip


def prepared(place: Path, films: tuple[dict[str, Any], ...]) -> tuple[CommandResult, Path]:
    """Prepare films with these elements, and return what was said and the prepared set."""
    (place / "films").mkdir()
    lines = ["image,patient,split,Edema"]
    for number, elements in enumerate(films):
        pixels = np.random.default_rng(number).integers(0, 4096, (128, 128)).astype(np.uint16)
        write(film(pixels, **elements), place / "films", f"{number}.dcm")
        lines.append(f"{number}.dcm,p{number},{'train' if number < 6 else 'val'},{number % 2}")
    (place / "films" / "labels.csv").write_text("\n".join(lines) + "\n")
    typed = edgecxr("prepare", "folder", place / "films", "--workers", "1", runs=place / "runs")
    return typed, place / "runs" / "data" / "films"


def test_each_kind_of_warning_is_printed_once_with_its_count_and_a_film(tmp_path: Path) -> None:
    typed, out = prepared(tmp_path, FILMS)
    assert typed.code == 0
    warnings = [line for line in typed.err.splitlines() if line.startswith("warning: ")]
    for word, count, name in (("KNEE", "1 film,", "0.dcm"), ("lateral view", "2 films,", "1.dcm"),
                              ("modality CT", "1 film,", "2.dcm")):  # fmt: skip
        (line,) = [line for line in warnings if word in line]
        assert count in line and name in line and "infer" in line
    info = json.loads((out / "dataset.json").read_text())
    assert len(info["warnings"]) >= 6 and info["warned"].keys() == info["warnings"].keys()
    for text, count in info["warnings"].items():
        (line,) = [line for line in warnings if line.startswith(f"warning: {text} (")]
        assert f"({count} film" in line and info["warned"][text] in line
    per_film = [json.loads(line) for line in (out / "decoded.jsonl").read_text().splitlines()]
    assert sum(info["warnings"].values()) == sum(len(warnings) for _, _, _, warnings, _, _ in per_film)
    again = edgecxr("prepare", "folder", tmp_path / "films", "--workers", "1", runs=tmp_path / "runs")
    assert again.code == 0 and [line for line in again.err.splitlines() if line.startswith("warning: ")] == warnings


@pytest.mark.parametrize("elements", FILMS[:3])
def test_what_prepare_counts_is_what_the_gate_objects_to(tmp_path: Path, elements: dict[str, Any]) -> None:
    typed, _ = prepared(tmp_path, (elements, *({"ViewPosition": "PA"},) * 7))
    (line,) = [line for line in typed.err.splitlines() if "refuses such" in line]
    (objection,) = read_film(tmp_path / "films" / "0.dcm").objections
    assert objection.message in line and objection.reason in GATE_REASONS and "0.dcm" in line

from __future__ import annotations

import json
import shutil

import pytest

from edgecxr.bundle.bundle import Bundle, write_bundle
from edgecxr.bundle.card import ModelCard
from edgecxr.errors import ModelError
from tests.tiny_bundle import tiny_bundle

PLAIN = {
    "name": "m", "labels": ["A", "B"], "size": 28, "tokens": 49, "patch": 4, "arch": "tiny", "depth": 2,
    "method": "mlcak", "format": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"operating_points": None},
        {"operating_points": {"youden": []}},
        {"operating_points": {"youden": {"A": "high"}}},
        {"operating_points": {"youden": {"A": float("nan")}}},
        {"temperature": {"A": "1"}},
        {"artefacts": []},
        {"size": 28.0},
        {"patch": 5},
        {"input": "stretch"},
        {"labels": ["A", "A"]},
        {"labels": ["abnormal"]},
        {"limits": "not for adults"},
        {"limits": [1]},
        {"limits": ["a"] * 9},
    ],
    ids=str,
)
def test_a_card_with_values_of_the_wrong_kind_is_refused(wrong):
    assert ModelCard.from_json(json.dumps(PLAIN), "card.json").labels == ("A", "B")
    with pytest.raises(ModelError, match=r"card\.json is not a model"):
        ModelCard.from_json(json.dumps(PLAIN | wrong), "card.json")


def test_the_model_file_of_another_bundle_is_refused_even_with_its_checksum(tmp_path):
    tiny_bundle(tmp_path / "one")
    bundle = Bundle.open(tmp_path / "one")
    name, facts = next(iter(bundle.card.artefacts.items()))
    stated = json.loads(bundle.card.to_json())
    stated["artefacts"][name] = facts | {"sha256": "0" * 64}
    shutil.copy(bundle.path / name, tmp_path / name)
    other = write_bundle(tmp_path / "two", ModelCard.from_json(json.dumps(stated), "x"), {name: tmp_path / name})
    with pytest.raises(ModelError, match=r"not the file that card\.json describes"):
        other.artefact("fp32")

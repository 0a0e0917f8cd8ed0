from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from edgecxr.bundle.bundle import SUMS, Bundle, seal
from edgecxr.bundle.gate import FILE, Gate, load_gate
from edgecxr.errors import GATE_REASONS, REASONS, ModelError
from edgecxr.storage.folders import CARD
from tests.tiny_bundle import tiny_bundle, tiny_gate


def test_the_distance_is_that_of_mahalanobis_for_the_whole_covariance() -> None:
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.normal(size=(6, 6)))[0][:2]
    variances, rest, mean = np.array([9.0, 4.0]), 0.25, rng.normal(size=6)
    covariance = rest * np.eye(6) + components.T @ np.diag(variances - rest) @ components
    distances = Gate(mean, components, variances, rest, 1.0, 1.0).distances(films := rng.normal(size=(5, 6)))
    away = films - mean
    expected = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    np.testing.assert_allclose(distances, np.sqrt(expected / 6), rtol=1e-9)


def test_every_reason_of_the_gate_is_a_reason() -> None:
    assert set(GATE_REASONS) <= set(REASONS)


def changed(folder: Path, content: bytes | None = None, **facts: object) -> Bundle:
    """Return a tiny bundle whose gate was changed, its checksums in order.

    Raises:
        ModelError: the card is none any more.
    """
    bundle = tiny_bundle(folder)
    card = json.loads((folder / CARD).read_text())
    (folder / SUMS).unlink()
    (folder / CARD).unlink()
    if content is not None:
        (folder / FILE).write_bytes(content)
        facts["sha256"] = hashlib.sha256(content).hexdigest()
    seal(folder, type(bundle.card).from_json(json.dumps(card | {"gate": card["gate"] | facts}), "card"))
    return Bundle.open(folder)


def test_a_bundle_gives_back_its_gate(tmp_path: Path) -> None:
    gate = load_gate(tiny_bundle(tmp_path / "model", gate=tiny_gate(1.5, 1.2)), "fp32")
    assert gate is not None and (gate.threshold, gate.usual) == (1.5, 1.2)
    np.testing.assert_allclose(gate.distances(np.array([[1, 1, 1, 1], [2, 0, 0, 0]], np.float32)), [1, 1])
    assert load_gate(tiny_bundle(tmp_path / "before", gate={}), "fp32") is None


def npy(array: np.ndarray, folder: Path) -> bytes:
    np.save(folder / "a.npy", array)
    return (folder / "a.npy").read_bytes()


def test_a_gate_that_is_not_what_the_card_says_is_refused(tmp_path: Path) -> None:
    huge = npy(np.zeros((1, 4), np.float32), tmp_path).replace(b"(1, 4)", b"(1, 1000000000000)")
    np.savez(tmp_path / "a.npz", np.zeros((1, 4), np.float32))
    contents = [
        b"", b"no array", npy(np.zeros((2, 4), np.float32), tmp_path), npy(np.zeros((1, 4)), tmp_path),
        npy(np.full((1, 4), np.nan, np.float32), tmp_path), npy(np.full((1, 4), 1e30, np.float32), tmp_path),
        npy(np.array([{}]), tmp_path), npy(np.zeros((1, 0), np.float32), tmp_path), huge[:128] + huge[-16:],
        npy(np.zeros((1, 1 << 20), np.float32), tmp_path), (tmp_path / "a.npz").read_bytes(),
    ]  # fmt: skip
    for number, content in enumerate(contents):
        bundle = changed(tmp_path / f"content-{number}", content)
        with pytest.raises(ModelError, match=r"quality gate in .* not what the .*export the model again"):
            load_gate(bundle, "fp32")
    with pytest.raises(ModelError, match=r"gate\.npy is not the file .*card\.json describes"):
        load_gate(changed(tmp_path / "another", sha256="0" * 64), "fp32")
    with pytest.raises(ModelError, match="not what the card"):
        load_gate(changed(tmp_path / "lacking", thresholds={}), "fp32")


@pytest.mark.parametrize(
    "facts",
    [
        {"thresholds": {"fp32": "x"}}, {"thresholds": {"fp32": True}}, {"thresholds": {"fp32": 1e999}},
        {"thresholds": {"fp32": -1.0}}, {"thresholds": {"fp32": 10**19}}, {"thresholds": []}, {"usual": 3},
        {"usual": {"fp32": float("nan")}}, {"variances": ["x"]}, {"variances": [[1.0, 2.0]] * 32}, {"variances": 1},
        {"variances": [0.5]}, {"variances": [1.0] * 2000}, {"rest": 0}, {"rest": None}, {"rest": 5e-324},
        {"rest": "1"}, {"sha256": None}, {"false_rejection": 2}, {"false_rejection": "much"},
    ],
)  # fmt: skip
def test_numbers_that_no_gate_has_are_refused_with_the_card(tmp_path: Path, facts: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=r"not a model card .*gate.*export the model again"):
        changed(tmp_path / "model", **facts)


def test_a_gate_without_a_checksum_is_refused(tmp_path: Path) -> None:
    bundle = tiny_bundle(tmp_path / "model")
    sums = (bundle.path / SUMS).read_text().splitlines(keepends=True)
    (bundle.path / SUMS).write_text("".join(line for line in sums if FILE not in line))
    with pytest.raises(ModelError, match=f"does not list {FILE}"):
        load_gate(Bundle.open(bundle.path), "fp32")

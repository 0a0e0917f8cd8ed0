"""What earlier versions made still opens: one small artefact of each kind, kept as it was written.

made_before/0.1.0.dev0.tar.xz was made by the version before the package got its wings: a prepared data set of twelve
pictures, a pack of it, a teacher and a student (their weights set to zero, so that they are small), and a bundle.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest

from edgecxr import resolve
from edgecxr.benchmark import record, report
from edgecxr.bundle.bundle import Bundle
from edgecxr.bundle.card import read_card
from edgecxr.data.pack import open_pack
from edgecxr.data.prepared import Prepared
from edgecxr.infer.predictor import Predictor
from edgecxr.workspace import Workspace

HERE = Path(__file__).parent
MADE = HERE / "made_before" / "0.1.0.dev0.tar.xz"


@pytest.fixture
def before(tmp_path: Path) -> Workspace:
    with tarfile.open(MADE) as archive:
        archive.extractall(tmp_path, filter="data")
    return Workspace(tmp_path)


def test_a_data_set_and_its_pack(before: Workspace) -> None:
    prepared = Prepared.open(before.data_dir("films"))
    prepared.check()
    assert (len(prepared), prepared.labels, len(prepared.boxes)) == (12, ("Edema", "Nodule"), 1)
    packed = open_pack(before.root / "pack.npz")
    assert np.array_equal(packed.images, prepared.images[prepared.rows("test")])


def test_a_bundle(before: Workspace) -> None:
    bundle = Bundle.open(before.export_dir("tiny"))
    assert bundle.card.stem == "patch"
    with Predictor(bundle.path, force=True) as predictor:
        size = predictor.card.size
        assert 0 <= predictor.predict(np.tile(np.linspace(0, 1, size, dtype=np.float32), (size, 1))).abnormal <= 1


def test_runs(before: Workspace) -> None:
    checkpoint = pytest.importorskip("edgecxr.train.checkpoint")
    from edgecxr.evaluate.evaluation import answer
    from edgecxr.train.config import TrainConfig

    prepared = Prepared.open(before.data_dir("films"))
    teacher = resolve.teacher(before, None, prepared)
    card = read_card(resolve.run(before, None, "student"))
    assert card.training["teacher_sha256"] == read_card(teacher).sha256
    for run in (teacher, before.root / card.name):
        model, _ = checkpoint.load_run(run)
        assert not any(value.any() for value in model.parameters())
        config = TrainConfig.from_json((run / "config.json").read_text(), "config.json")
        assert (config.stem, config.clip) == ("patch", 0)
        assert answer(before, run.name, None, "test").outputs.findings.shape == (4, 2)


def test_a_benchmark_s_record() -> None:
    kept = record.read(HERE.parent / "benchmarks" / "results" / "cpu-2core" / "benchmark-nih_dev-1thread.json")
    assert len(kept["rows"]) == 53
    assert "| student-" in report.markdown([kept], 0.02, None)

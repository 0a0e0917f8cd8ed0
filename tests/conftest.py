"""Small prepared data sets and runs that several tests share."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from edgecxr import resolve
from edgecxr.bundle.bundle import Bundle
from edgecxr.data.prepared import FIXED_COLUMNS, FORMAT, Prepared, content_hash
from edgecxr.workspace import Workspace
from tests.made_once import made_once

LABELS = ("Cardiomegaly", "Nodule/Mass")


def write_prepared(
    folder: Path,
    images: np.ndarray,
    targets: np.ndarray,
    abnormal: np.ndarray,
    splits: list[str],
    labels: tuple[str, ...] = LABELS,
    patients: list[str] | None = None,
    large: np.ndarray | None = None,
) -> Prepared:
    """Write a prepared data set straight from arrays: (N, 224, 224) uint8, (N, L), (N,); `large` is (N, 448, 448)."""
    folder.mkdir(parents=True)
    np.save(folder / "images.npy", images)
    if large is not None:
        np.save(folder / "images-448.npy", large)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow([*FIXED_COLUMNS, *labels])
        for i, split in enumerate(splits):
            values = ["" if np.isnan(v) else f"{v:g}" for v in (abnormal[i], *targets[i])]
            table.writerow([f"film{i}", patients[i] if patients else f"p{i}", split, *values])
    info = {
        "format": FORMAT, "name": folder.name, "labels": labels, "phantom": True, "images": len(images), "rejected": {},
        "counts": {}, "provenance": {}, "hash": content_hash(folder), "version": "test",
    }  # fmt: skip
    (folder / "dataset.json").write_text(json.dumps(info))
    return Prepared.open(folder)


def striped(count: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return films whose first label is bright on the left, whose second is bright below; both easy to learn."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, (count, 2)).astype(np.float32)
    images = rng.integers(40, 90, (count, 224, 224), dtype=np.uint8)
    images[targets[:, 0] == 1, :, :112] += 120
    images[targets[:, 1] == 1, 112:] += 40
    abnormal = targets.max(axis=1)
    targets[::7, 1] = np.nan
    splits = (["train"] * (count - 2 * (count // 4))) + ["val"] * (count // 4) + ["test"] * (count // 4)
    return images, targets, abnormal, splits


# The same examples at every run, so that a change is judged by what it changes. Others are looked for on purpose:
# `pytest --hypothesis-profile=new` tries new ones, `--hypothesis-profile=long -k changed_anywhere` does so for hours.
# How fast examples are made says more about what else the machine does than about a test.
BUSY = {"suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("usual", max_examples=60, derandomize=True, **BUSY)
settings.register_profile("new", max_examples=60, **BUSY)
settings.register_profile("long", max_examples=20_000, **BUSY)
settings.load_profile("usual")


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return write_prepared(tmp_path / "runs" / "data" / "striped", *striped())


@pytest.fixture
def detailed(tmp_path: Path) -> Prepared:
    """Films at 448 px whose 224 px images are not just their means."""
    images, *rest = striped(40)
    large = images.repeat(2, axis=1).repeat(2, axis=2)
    large += np.random.default_rng(1).integers(0, 4, large.shape, dtype=np.uint8)
    return write_prepared(tmp_path / "runs" / "data" / "detailed", images, *rest, large=large)


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Films as real ones are: several of a patient, unknown labels, and one that nobody has. Not to be changed."""
    images, targets, abnormal, splits = striped(48, seed=5)
    targets = np.column_stack([targets, np.zeros(48, np.float32)])
    abnormal[3::11] = np.nan
    values = images, targets, abnormal, splits, (*LABELS, "Edema"), [f"p{i // 2}" for i in range(48)]
    place = made_once(
        tmp_path_factory, "clinic", lambda place: write_prepared(place / "runs" / "data" / "clinic", *values)
    )
    return Prepared.open(place / "runs" / "data" / "clinic")


@dataclass(frozen=True)
class TrainedWorkspace:
    """A workspace with a teacher and a student of it, both trained for two epochs."""

    workspace: Workspace
    prepared: Prepared
    teacher: Path
    student: Path


@pytest.fixture(scope="session")
def finished(clinic: Prepared, tmp_path_factory: pytest.TempPathFactory) -> TrainedWorkspace:
    """Runs that tests may read and must not change."""
    pytest.importorskip("torch")
    workspace = Workspace(clinic.path.parents[1])
    names = made_once(tmp_path_factory, "finished", lambda place: _train(workspace, clinic, place / "names"))
    teacher, student = (Path(line) for line in (names / "names").read_text().splitlines())
    return TrainedWorkspace(workspace, clinic, teacher, student)


def _train(workspace: Workspace, clinic: Prepared, names: Path) -> None:
    """Train a teacher and its student, and write their folders into a file."""
    import torch

    from edgecxr.bundle.card import read_card
    from edgecxr.train.config import TrainConfig
    from edgecxr.train.device import Device
    from edgecxr.train.student import distil_student
    from edgecxr.train.teacher import train_teacher

    cpu = Device(torch.device("cpu"), "fp32")
    common = {"depth": 2, "epochs": 2, "batch": 12, "augment": 0.3}
    settings = TrainConfig(clinic.name, clinic.hash, patch=56, init="random", **common)
    teacher = train_teacher(workspace, clinic, settings, cpu, lambda *_: None)
    settings = TrainConfig(
        clinic.name,
        clinic.hash,
        size=28,
        patch=4,
        method="mlcak",
        init="teacher",
        teacher=teacher.name,
        teacher_sha256=read_card(teacher).sha256,
        **common,
    )
    student = distil_student(workspace, clinic, settings, teacher, cpu, lambda *_: None)
    names.write_text(f"{teacher}\n{student}\n")


@pytest.fixture(scope="session")
def bundled(finished: TrainedWorkspace, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The FP32 bundle of the student of `finished`. Not to be changed."""
    from edgecxr.export.export_bundle import export_bundle
    from edgecxr.export.recipe import Recipe

    def make(place: Path) -> None:
        export_bundle(finished.student, finished.prepared, place / "student", Recipe(precisions=("fp32",)))

    return Bundle.open(made_once(tmp_path_factory, "bundled", make) / "student")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """Data with the labels of `clinic`, enough of them to calibrate on and to judge by. Not to be changed."""
    images, targets, abnormal, splits = striped(96, seed=9)
    targets = np.column_stack([targets, np.zeros(96, np.float32)])
    folder = tmp_path_factory.mktemp("films") / "films"
    return write_prepared(folder, images, targets, abnormal, splits, (*LABELS, "Edema"))


@pytest.fixture(scope="session")
def complete(finished: TrainedWorkspace, films: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The student's bundle with FP32, FP16 and INT8 files. Not to be changed."""
    from edgecxr.export.export_bundle import export_bundle

    place = made_once(
        tmp_path_factory, "complete", lambda place: export_bundle(finished.student, films, place / "student")
    )
    return Bundle.open(place / "student")


@pytest.fixture(autouse=True)
def own_bundles_only(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Take no bundle that comes with edgecxr: tests say themselves which model they use."""
    monkeypatch.setattr(resolve, "SHIPPED", tmp_path_factory.getbasetemp() / "no-bundles")


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep torch to one thread: the tests run in several processes, and results shall not depend on the machine."""
    try:
        import torch
    except ImportError:  # a device, where the tests of the device side run all the same
        return
    torch.set_num_threads(1)

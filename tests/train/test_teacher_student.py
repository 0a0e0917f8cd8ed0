from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from edgecxr.errors import ModelError
from edgecxr.models.vit import TwoHeadViT
from edgecxr.train import student as student_module
from edgecxr.train.batches import view
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.train.student import distil_student
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace

CPU = Device(torch.device("cpu"), "fp32")


def settings(prepared, **changes) -> TrainConfig:
    small = {"size": 28, "patch": 4, "depth": 2, "method": "mlcak", "init": "teacher", "epochs": 2, "batch": 12}
    return TrainConfig(prepared.name, prepared.hash, **small | {"augment": 0.5} | changes)


def quiet(done: int, total: int, note: str) -> None:
    pass


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace(tmp_path / "runs")


@pytest.fixture(scope="module")
def small_teacher(clinic, tmp_path_factory) -> Path:
    """A teacher that is wider than its students."""
    config = settings(clinic, arch="small", size=224, patch=56, method="teacher", init="random", epochs=1)
    return train_teacher(Workspace(tmp_path_factory.mktemp("small")), clinic, config, CPU, quiet)


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return [
            {k: v for k, v in row.items() if k not in ("seconds", "images_per_s", "data_share")}
            for row in csv.DictReader(file)
        ]


def weights(run: Path) -> bytes:
    return (run / "best.safetensors").read_bytes()


def test_a_student_learns_what_is_easy_to_see(workspace, prepared):
    config = settings(prepared, init="random", method="none", epochs=6, lr=1e-3, batch=8)
    run = distil_student(workspace, prepared, config, None, CPU, quiet)
    rows = history(run)
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert max(float(row["val_auroc_findings"]) for row in rows) > 0.9
    assert max(float(row["val_auroc_abnormal"]) for row in rows) > 0.9


class Killed(Exception):
    pass


@pytest.mark.parametrize("moment", ["in epoch 2", "before the card"])
def test_an_interrupted_student_with_a_learnt_map_ends_as_an_uninterrupted_one(
    workspace, tmp_path, clinic, small_teacher, monkeypatch, moment
):
    config = settings(clinic, init="random")
    whole = distil_student(Workspace(tmp_path / "other"), clinic, config, small_teacher, CPU, quiet)

    def kill(done: int, total: int, note: str) -> None:
        if done == 3:
            raise Killed

    def killed(*args) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if moment == "before the card":
            patch.setattr(student_module, "finish", killed)
        distil_student(workspace, clinic, config, small_teacher, CPU, kill if moment == "in epoch 2" else quiet)
    torch.manual_seed(99)  # a new process has another state
    resumed = distil_student(workspace, clinic, config, small_teacher, CPU, quiet)
    assert [run.name for run in workspace.root.iterdir()] == ["student-tiny-28-mlcak-clinic"]
    assert history(resumed) == history(whole)
    assert weights(resumed) == weights(whole)
    assert (resumed / "card.json").read_bytes() == (whole / "card.json").read_bytes()
    # The map to the teacher's width serves the training only.
    assert not any("project" in name for name in load_file(resumed / "best.safetensors"))


def test_a_seed_decides_everything(workspace, finished):
    first, two, other = (
        distil_student(
            workspace, finished.prepared, settings(finished.prepared, seed=seed), finished.teacher, CPU, quiet
        )
        for seed in (1, 1, 2)
    )
    assert first != two
    assert weights(first) == weights(two)
    assert history(first) == history(two)
    assert weights(first) != weights(other)


def test_teacher_and_student_see_the_same_augmented_film(workspace, finished, monkeypatch):
    images_by_side = {224: [], 28: []}
    plain = TwoHeadViT.trace

    def spy(self, images):
        if torch.is_inference_mode_enabled():  # validation, which the teacher does not take part in
            return plain(self, images)
        assert self.training == (images.shape[-1] == 28)  # the teacher is in eval mode
        assert torch.is_grad_enabled() == (images.shape[-1] == 28)
        images_by_side[images.shape[-1]].append(images)
        return plain(self, images)

    monkeypatch.setattr(TwoHeadViT, "trace", spy)
    before = weights(finished.teacher)
    config = settings(finished.prepared, epochs=1, augment=1.0)
    distil_student(workspace, finished.prepared, config, finished.teacher, CPU, quiet)
    assert len(images_by_side[224]) == len(images_by_side[28]) == 2
    for large, small in zip(images_by_side[224], images_by_side[28], strict=True):
        assert torch.allclose(F.avg_pool2d(large, 8), small, atol=1e-6)
    originals = torch.from_numpy(finished.prepared.images[finished.prepared.rows("train")]).float()[:, None] / 255
    assert not any((film == originals).flatten(1).all(1).any() for film in images_by_side[224][0])
    assert weights(finished.teacher) == before


def test_a_teacher_of_448_px_and_its_student_see_the_same_augmented_film(workspace, detailed, monkeypatch):
    large = settings(detailed, size=448, patch=112, method="teacher", init="random")
    teacher = train_teacher(workspace, detailed, large, CPU, quiet)
    images_by_side = {448: [], 28: []}
    plain = TwoHeadViT._input  # of losses and of answers alike

    def spy(self, images):
        validating = torch.is_inference_mode_enabled()
        images_by_side[images.shape[-1]].append((validating, images))
        return plain(self, images)

    monkeypatch.setattr(TwoHeadViT, "_input", spy)
    distil_student(workspace, detailed, settings(detailed, epochs=1, augment=1.0), teacher, CPU, quiet)
    small = [images for validating, images in images_by_side[28] if not validating]
    assert len(small) == len(images_by_side[448]) > 1
    for (validating, film), ours in zip(images_by_side[448], small, strict=True):
        assert not validating
        assert torch.equal(view(film.mul(255).round(), 28), ours)
    # It is chosen by what a device sees.
    validated = torch.cat([images for validating, images in images_by_side[28] if validating])
    plain_films = detailed.inputs(detailed.rows("val"), 28)  # for the epoch, and for the card
    assert (validated.numpy() == np.concatenate([plain_films, plain_films])).all()
    images_by_side[448].clear()
    weights_only = settings(detailed, epochs=1, method="none")
    distil_student(workspace, detailed, weights_only, teacher, CPU, quiet)
    assert images_by_side[448] == []


def test_the_loss_is_that_of_equation_3(workspace, finished):
    config = settings(finished.prepared, epochs=1, alpha=2.0, beta=0.5, gamma=3.0)
    run = distil_student(workspace, finished.prepared, config, finished.teacher, CPU, quiet)
    row = {name: float(value) for name, value in history(run)[0].items()}
    distillation = 2 * row["kd_findings"] + 0.5 * row["kd_abnormal"] + 3 * row["kd_knowledge"]
    assert row["distillation"] == pytest.approx(distillation, rel=1e-5)
    assert row["loss"] == pytest.approx(row["bce_findings"] + row["bce_abnormal"] + distillation, rel=1e-5)
    assert min(row["kd_findings"], row["kd_abnormal"], row["kd_knowledge"]) > 0


def test_without_a_method_the_teacher_gives_its_weights_only(workspace, finished):
    config = settings(finished.prepared, method="none", epochs=1)
    run = distil_student(workspace, finished.prepared, config, finished.teacher, CPU, quiet)
    assert run.name == "student-tiny-28-none-clinic"
    row = history(run)[0]
    assert float(row["loss"]) == pytest.approx(float(row["bce_findings"]) + float(row["bce_abnormal"]), rel=1e-5)
    assert not any(name.startswith("kd_") for name in row)


def test_pretrained_weights_from_a_file_start_teacher_and_student(workspace, finished, tmp_path):
    file = tmp_path / "model.safetensors"
    save_file(timm.create_model("vit_tiny_patch16_224", depth=2).state_dict(), file)
    common = {"init": "pretrained", "pretrained": str(file), "epochs": 1, "lr": 1e-12}
    teacher = settings(finished.prepared, size=224, patch=56, method="teacher", **common)
    student = settings(finished.prepared, **common)
    for run in (
        train_teacher(workspace, finished.prepared, teacher, CPU, quiet),
        distil_student(workspace, finished.prepared, student, finished.teacher, CPU, quiet),
    ):
        kept = load_file(run / "best.safetensors")["vit.blocks.1.mlp.fc1.weight"]
        assert torch.allclose(kept, load_file(file)["blocks.1.mlp.fc1.weight"], atol=1e-6)


def test_weights_that_cannot_be_had_leave_no_folder_behind(workspace, finished, tmp_path, monkeypatch):
    common = {"init": "pretrained", "pretrained": str(tmp_path / "none.safetensors")}
    with pytest.raises(ModelError, match=r"none\.safetensors does not exist"):
        distil_student(
            workspace, finished.prepared, settings(finished.prepared, **common), finished.teacher, CPU, quiet
        )
    teacher = settings(finished.prepared, size=224, patch=56, method="teacher", **common)
    with pytest.raises(ModelError, match=r"none\.safetensors does not exist"):
        train_teacher(workspace, finished.prepared, teacher, CPU, quiet)
    damaged = tmp_path / "teacher"
    damaged.mkdir()
    for name in ("card.json", "best.safetensors"):
        (damaged / name).write_bytes((finished.teacher / name).read_bytes())
    (damaged / "best.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match=r"best\.safetensors has changed"):
        distil_student(workspace, finished.prepared, settings(finished.prepared), damaged, CPU, quiet)
    assert not workspace.root.exists()

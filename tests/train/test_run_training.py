"""What was typed -> the settings of a run."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import typer
from safetensors.torch import save_file

from edgecxr import cli
from edgecxr.bundle.card import ModelCard
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, UsageError
from edgecxr.evaluate.evaluation import answer, evaluate_model
from edgecxr.evaluate.explain import draw
from edgecxr.registry import METHODS
from edgecxr.train.checkpoint import load_run
from edgecxr.train.config import TrainConfig
from edgecxr.train.run_training import distill, once, train
from edgecxr.workspace import Workspace

QUICK = {"epochs": 1, "batch": 16, "augment": 0.0}


@pytest.fixture
def workspace(tmp_path, finished) -> Workspace:
    """An empty workspace that has the teacher of `finished`."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / finished.teacher.name).symlink_to(finished.teacher)
    return Workspace(tmp_path / "runs")


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory) -> Path:
    """Weights such as timm's hub has them."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, depth=2)
    file = tmp_path_factory.mktemp("hub") / "model.safetensors"
    save_file(model.state_dict(), file)
    return file


def config(run: Path) -> dict[str, object]:
    return json.loads((run / "config.json").read_text())


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
@pytest.mark.parametrize("tokens", [49, 16])
def test_every_method_trains_a_student_and_its_loss_is_the_sum_of_its_parts(workspace, finished, method, tokens):
    weights = {"alpha": 2.0, "beta": 0.5}
    run = distill(workspace, finished.prepared, QUICK | weights | {"res": 28, "tokens": tokens, "method": method})
    assert run.name == f"student-tiny-28-{method}"
    card = ModelCard.from_json((run / "card.json").read_text(), "card")
    assert (card.method, card.tokens, card.input) == (method, tokens, "native")
    row = {name: float(value) for name, value in history(run)[0].items()}
    expected = 2 * row["kd_findings"] + 0.5 * row["kd_abnormal"] + row.get("kd_knowledge", 0.0)
    assert row["distillation"] == pytest.approx(expected, rel=1e-4)
    assert row["loss"] == pytest.approx(row["bce_findings"] + row["bce_abnormal"] + expected, rel=1e-4)


def test_upsampling_keeps_the_teacher_s_own_grid(workspace, finished):
    typed = QUICK | {"res": 56, "tokens": 16, "input": "upsample"}
    run = distill(workspace, finished.prepared, typed)
    card = ModelCard.from_json((run / "card.json").read_text(), "card")
    assert (card.size, card.patch, card.tokens, card.input) == (56, 56, 16, "upsample")


def test_the_paper_s_settings(workspace, finished, imagenet):
    quick = {"epochs": 1, "pretrained": str(imagenet)}
    run = distill(workspace, finished.prepared, quick | {"res": 28, "paper": True})
    made = config(run)
    assert (made["patch"], made["init"], made["warmup"], made["batch"], made["lr"]) == (2, "pretrained", 0, 64, 5e-4)
    run = train(workspace, finished.prepared, quick | {"depth": 2, "patch": 32, "paper": True})
    assert (config(run)["init"], config(run)["warmup"], config(run)["patch"]) == ("pretrained", 0, 32)


def test_what_is_typed_beside_paper_counts_and_is_said(workspace, finished, capsys):
    typed = QUICK | {"res": 56, "tokens": 16, "init": "teacher", "paper": True}
    made = config(distill(workspace, finished.prepared, typed))
    assert (made["patch"], made["init"], made["epochs"], made["warmup"]) == (14, "teacher", 1, 0)
    said = capsys.readouterr().err
    assert "--paper, except for --init teacher --epochs 1 --batch 16 --tokens 16\n" in said


def test_a_convolutional_stem_starts_at_random_and_the_student_has_its_teacher_s(workspace, finished, capsys):
    typed = QUICK | {"stem": "conv", "patch": 32, "depth": 2}
    teacher = train(workspace, finished.prepared, typed)
    made = config(teacher)
    assert (made["stem"], made["init"], made["patch"], made["clip"]) == ("conv", "random", 32, 1)
    assert load_run(teacher)[1].stem == "conv"
    assert "init random" in capsys.readouterr().err
    student = distill(workspace, finished.prepared, QUICK | {"res": 28}, teacher=teacher.name)
    assert (config(student)["stem"], config(student)["init"]) == ("conv", "teacher")
    assert "the stem from random weights" in capsys.readouterr().err
    alike = distill(workspace, finished.prepared, QUICK | {"res": 224, "method": "none"}, teacher=teacher.name)
    assert config(alike)["stem"] == "conv"
    assert "random weights" not in capsys.readouterr().err
    plain = distill(workspace, finished.prepared, QUICK | {"res": 28, "stem": "patch"}, teacher=teacher.name)
    assert load_run(plain)[1].stem == "patch"


def test_a_convolutional_stem_goes_with_no_pretrained_weights(workspace, finished, imagenet):
    typed = {"stem": "conv", "patch": 32, "pretrained": str(imagenet)}
    with pytest.raises(UsageError, match="--stem conv has no pretrained weights"):
        train(workspace, finished.prepared, typed)
    with pytest.raises(UsageError, match="--stem conv has no pretrained weights"):
        distill(workspace, finished.prepared, {"res": 28, "stem": "conv", "init": "pretrained"})
    with pytest.raises(UsageError, match="never of 7 px"):
        distill(workspace, finished.prepared, {"res": 28, "stem": "conv", "tokens": 16})
    assert not list(workspace.root.glob("*conv*")) and not workspace.runs("student-tiny-28-mlcak")


def test_a_student_takes_its_teacher_s_weights_unless_something_else_is_said(workspace, finished):
    assert config(distill(workspace, finished.prepared, QUICK | {"res": 28}))["init"] == "teacher"
    typed = QUICK | {"res": 28, "init": "random", "method": "none"}
    assert config(distill(workspace, finished.prepared, typed))["teacher"] is None


def test_a_run_is_taken_for_done_only_if_all_of_its_settings_are_those(workspace, finished):
    typed = QUICK | {"res": 28, "seed": 4}
    settings = QUICK | {"method": "mlcak", "size": 28, "seed": 4}
    made = distill(workspace, finished.prepared, typed)
    distill(workspace, finished.prepared, typed | {"gamma": 10.0})  # the latest, and another
    distill(workspace, finished.prepared, typed | {"warmup": 0.5})

    def make():
        raise AssertionError

    assert once(workspace, finished.prepared, settings, make) == made
    assert once(workspace, finished.prepared, settings | {"gamma": 10.0}, make) != made
    with pytest.raises(AssertionError):
        once(workspace, finished.prepared, settings | {"alpha": 3.0}, make)


def test_a_student_of_fewer_blocks_learns_from_all_of_its_teacher_s(workspace, finished):
    deep = train(workspace, finished.prepared, QUICK | {"init": "random", "patch": 56, "depth": 4})
    run = distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": 2}, deep.name)
    card = ModelCard.from_json((run / "card.json").read_text(), "card")
    assert (card.depth, card.teacher, config(run)["init"]) == (2, deep.name, "teacher")
    assert float(history(run)[0]["kd_knowledge"]) > 0
    for depth, message in ((0, "--depth 0: from 2"), (6, "--depth 6: teacher .* has 4 blocks.*--init random")):
        with pytest.raises(UsageError, match=message):
            distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": depth}, deep.name)
    with pytest.raises(UsageError, match="--method one-to-one: the student has 2 blocks and the teacher 4"):
        distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": 2, "method": "one-to-one"}, deep.name)


def test_a_teacher_of_448_px_from_imagenet_s_weights_to_a_student_and_its_numbers(tmp_path, detailed, imagenet):
    workspace = Workspace(tmp_path / "runs")
    typed = QUICK | {"res": 448, "depth": 2, "patch": 112, "init": "pretrained", "pretrained": str(imagenet)}
    teacher = train(workspace, detailed, typed)
    assert teacher.name == "teacher-tiny-448"
    card = ModelCard.from_json((teacher / "card.json").read_text(), "card")
    assert (card.size, card.tokens, card.patch, config(teacher)["size"]) == (448, 16, 112, 448)
    run = distill(workspace, detailed, QUICK | {"res": 28})  # the latest teacher that fits
    assert config(run)["teacher"] == "teacher-tiny-448"
    answered, record = evaluate_model(workspace, teacher.name, None, "val", 50)
    rows = detailed.rows("val")
    images = torch.from_numpy(detailed.large[rows]).float().unsqueeze(1) / 255
    with torch.no_grad():
        findings = load_run(teacher)[0](images)[0].numpy()
    np.testing.assert_allclose(answered.outputs.findings, findings, atol=1e-5)
    assert record["images"] == len(rows)
    other = answer(workspace, run.name, None, "val")
    picture = draw([answered, other], "val", 2, 0, tmp_path / "explained.png")
    assert picture.stat().st_size > 10_000


def test_a_teacher_of_448_px_needs_films_of_that_size(workspace, finished, detailed):
    with pytest.raises(InputError, match=r"data set clinic in .* has no 448 px images.*--name clinic --size 448`"):
        train(workspace, finished.prepared, QUICK | {"res": 448, "depth": 2, "patch": 112, "init": "random"})
    with pytest.raises(UsageError, match="--res 112: there are 224, 448"):
        train(workspace, finished.prepared, QUICK | {"res": 112})
    with pytest.raises(UsageError, match="--res 448: there are 224, 112, 56, 28"):
        distill(workspace, finished.prepared, QUICK | {"res": 448})
    assert [run.name for run in workspace.root.iterdir() if run.name != "data"] == [finished.teacher.name]
    teacher = train(workspace, detailed, QUICK | {"res": 448, "depth": 2, "patch": 112, "init": "random"})
    (detailed.path / "images-448.npy").unlink()
    without = Prepared.open(detailed.path)
    with pytest.raises(InputError, match=r"has no 448 px images.*`edgecxr prepare --name detailed --size 448`"):
        distill(workspace, without, QUICK | {"res": 28}, teacher.name)
    with pytest.raises(InputError, match="has no 448 px images"):
        evaluate_model(workspace, teacher.name, None, "val", 50)
    assert config(distill(workspace, without, QUICK | {"res": 28, "method": "none"}, teacher.name))["init"] == "teacher"


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            {"method": "vanilla", "gamma": 2.0},
            "--gamma does nothing with --method vanilla, which takes --alpha",
        ),
        ({"method": "none", "alpha": 2.0}, "--alpha does nothing with --method none, which takes no weights"),
        ({"temperature": 2.0}, "--temperature does nothing with --method mlcak"),
        ({"input": "stretch"}, "--input stretch: there are native, upsample"),
        ({"method": "hinton", "temperature": 0.0}, "--temperature 0.0: more than 0"),
    ],
)
def test_an_option_that_would_do_nothing_or_harm_is_refused(workspace, finished, typed, message):
    with pytest.raises(UsageError) as error:
        distill(workspace, finished.prepared, QUICK | {"res": 28} | typed)
    assert message in str(error.value)
    assert [run.name for run in workspace.root.iterdir()] == [finished.teacher.name]


@pytest.mark.parametrize("command", ["train", "distill"])
def test_the_defaults_that_the_help_shows_are_those_of_a_run(command):
    config = TrainConfig("data", "hash").to_dict()
    shown = {}
    for option in typer.main.get_command(cli.app).commands[command].params:
        if isinstance(option.show_default, str) and option.name in config:
            shown[option.name] = option.show_default
    expected = {"epochs", "batch", "lr", "warmup", "augment"}
    assert shown.keys() >= expected | ({"arch", "patch", "depth", "init"} if command == "train" else {"temperature"})
    assert all(type(config[name])(default) == config[name] for name, default in shown.items())

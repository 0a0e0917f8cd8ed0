"""What was typed -> the settings of a run."""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import typer
from safetensors.torch import load_file, save_file

from edgecxr import cli
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.data.prepared import Prepared
from edgecxr.errors import InputError, ModelError, UsageError
from edgecxr.evaluate.evaluation import answer, evaluate_model
from edgecxr.evaluate.explain import draw
from edgecxr.registry import METHODS
from edgecxr.train import checkpoint, run_training
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
    assert run.name == f"student-tiny-28-{method}-clinic"
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
    facts = config(run)
    assert (facts["patch"], facts["init"], facts["warmup"], facts["batch"], facts["lr"]) == (
        2,
        "pretrained",
        0,
        64,
        5e-4,
    )
    run = train(workspace, finished.prepared, quick | {"depth": 2, "patch": 32, "paper": True})
    assert (config(run)["init"], config(run)["warmup"], config(run)["patch"]) == ("pretrained", 0, 32)


def test_what_is_typed_beside_paper_counts_and_is_said(workspace, finished, capsys):
    typed = QUICK | {"res": 56, "tokens": 16, "init": "teacher", "paper": True}
    facts = config(distill(workspace, finished.prepared, typed))
    assert (facts["patch"], facts["init"], facts["epochs"], facts["warmup"]) == (14, "teacher", 1, 0)
    stderr = capsys.readouterr().err
    assert "--paper, except for --init teacher --epochs 1 --batch 16 --tokens 16\n" in stderr


def test_a_convolutional_stem_starts_at_random_and_the_student_has_its_teacher_s(workspace, finished, capsys):
    typed = QUICK | {"stem": "conv", "patch": 32, "depth": 2}
    teacher = train(workspace, finished.prepared, typed)
    facts = config(teacher)
    assert (facts["stem"], facts["init"], facts["patch"], facts["clip"]) == ("conv", "random", 32, 1)
    assert load_run(teacher)[1].stem == "conv"
    stderr = capsys.readouterr().err
    assert "init random" in stderr and "learned faster" not in stderr
    student = distill(workspace, finished.prepared, QUICK | {"res": 28}, teacher=teacher.name)
    assert (config(student)["stem"], config(student)["init"]) == ("conv", "teacher")
    assert "stem from random weights" in capsys.readouterr().err
    alike = distill(workspace, finished.prepared, QUICK | {"res": 224, "method": "none"}, teacher=teacher.name)
    assert config(alike)["stem"] == "conv"
    assert "random weights" not in capsys.readouterr().err
    plain = distill(workspace, finished.prepared, QUICK | {"res": 28, "stem": "patch"}, teacher=teacher.name)
    assert load_run(plain)[1].stem == "patch"


def test_a_start_from_random_weights_says_which_stem_learned_faster(workspace, finished, capsys):
    films = len(finished.prepared.rows("train"))
    train(workspace, finished.prepared, QUICK | {"init": "random", "patch": 56, "depth": 2})
    assert "learned faster" in capsys.readouterr().err
    distill(workspace, finished.prepared, QUICK | {"res": 28, "init": "random", "method": "none", "depth": 2})
    assert f"{films:,} training films" in capsys.readouterr().err
    distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": 2})
    assert "learned faster" not in capsys.readouterr().err


def test_a_run_with_a_convolutional_stem_starts_another_by_its_name_or_by_its_file(
    workspace, finished, imagenet, capsys
):
    conv, frozen = QUICK | {"stem": "conv", "patch": 32, "depth": 2}, {"lr": 1e-12}
    first = train(workspace, finished.prepared, conv)
    before = load_run(first)[0].state_dict()
    own = {"pretrained": str(first / "best.safetensors")}

    def equal(run: Path, source: dict[str, torch.Tensor]) -> set[str]:
        after = load_run(run)[0].state_dict()
        alike = {key for key, value in source.items() if key in after and after[key].shape == value.shape}
        return {key for key in alike if torch.allclose(after[key], source[key], atol=1e-6)}

    def learnt(names: set[str]) -> set[str]:
        return {key for key in names if "running_" not in key and "num_batches" not in key}

    body = learnt({key for key in before if "_head." not in key})
    assert any("backbone" in key for key in body)
    named = train(workspace, finished.prepared, QUICK | frozen | {"init": first.name})
    assert config(named)["stem"] == "conv" and learnt(equal(named, before)) == learnt(set(before))
    filed = train(workspace, finished.prepared, conv | frozen | own)
    assert config(filed)["init"] == "pretrained" and learnt(equal(filed, before)) >= body
    assert "findings_head.weight" not in equal(filed, before)  # of which findings, the file does not say
    assert "random weights" not in capsys.readouterr().err
    options = QUICK | frozen | {"res": 28, "method": "none", "depth": 2, "stem": "conv"} | own
    student = distill(workspace, finished.prepared, options)
    shared = {key for key in body if "patch_embed" not in key and "pos_embed" not in key}
    assert learnt(equal(student, before)) >= shared and "stem from random" in capsys.readouterr().err
    of_imagenet = {f"vit.{key}": value for key, value in load_file(imagenet).items()}
    mixed = train(workspace, finished.prepared, conv | frozen | {"pretrained": str(imagenet)})
    assert learnt(equal(mixed, of_imagenet)) >= {key for key in shared if key.startswith("vit.blocks.")}
    assert "stem from random" in capsys.readouterr().err
    with pytest.raises(ModelError, match=r"best\.safetensors has a convolutional stem.*add --stem conv"):
        train(workspace, finished.prepared, QUICK | {"patch": 32, "depth": 2} | own)


def test_a_convolutional_stem_has_no_weights_of_imagenet(workspace, finished):
    typed = {"stem": "conv", "patch": 32, "init": "pretrained"}
    with pytest.raises(UsageError, match=r"--stem conv .*no ImageNet weights"):
        train(workspace, finished.prepared, typed)
    with pytest.raises(UsageError, match=r"--stem conv .*no ImageNet weights"):
        distill(workspace, finished.prepared, {"res": 28, "stem": "conv", "init": "pretrained"})
    with pytest.raises(UsageError, match="never of 7 px"):
        distill(workspace, finished.prepared, {"res": 28, "stem": "conv", "tokens": 16})
    assert not list(workspace.root.glob("*conv*")) and not workspace.runs("student-tiny-28-mlcak-clinic")


def test_a_student_takes_its_teacher_s_weights_unless_something_else_is_said(workspace, finished):
    assert config(distill(workspace, finished.prepared, QUICK | {"res": 28}))["init"] == "teacher"
    typed = QUICK | {"res": 28, "init": "random", "method": "none"}
    assert config(distill(workspace, finished.prepared, typed))["teacher"] is None


def test_a_run_is_taken_for_done_only_if_all_of_its_settings_are_those(workspace, finished):
    typed = QUICK | {"res": 28, "seed": 4}
    settings = QUICK | {"method": "mlcak", "size": 28, "seed": 4}
    run = distill(workspace, finished.prepared, typed)
    distill(workspace, finished.prepared, typed | {"gamma": 10.0})  # the latest, and another
    distill(workspace, finished.prepared, typed | {"warmup": 0.5})

    def make():
        raise AssertionError

    assert once(workspace, finished.prepared, settings, make) == run
    assert once(workspace, finished.prepared, settings | {"precision": "auto"}, make) == run
    assert once(workspace, finished.prepared, settings | {"gamma": 10.0}, make) != run
    with pytest.raises(AssertionError):
        once(workspace, finished.prepared, settings | {"alpha": 3.0}, make)


def test_a_run_from_a_file_of_weights_is_done_wherever_the_file_lies(workspace, finished, imagenet):
    options = QUICK | {"depth": 2, "arch": "tiny", "init": "pretrained", "pretrained": str(imagenet)}
    run = train(workspace, finished.prepared, options)
    # The card goes with bundles to others, whom folders of this machine do not concern.
    assert load_run(run)[1].training["pretrained"] == imagenet.name

    def make():
        raise AssertionError

    settings = options | {"method": "teacher", "size": 224}
    assert once(workspace, finished.prepared, settings, make) == run
    with pytest.raises(AssertionError):
        once(workspace, finished.prepared, settings | {"pretrained": "others.safetensors"}, make)


def test_a_student_of_fewer_blocks_learns_from_all_of_its_teacher_s(workspace, finished):
    deep = train(workspace, finished.prepared, QUICK | {"init": "random", "patch": 56, "depth": 4})
    run = distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": 2}, deep.name)
    card = ModelCard.from_json((run / "card.json").read_text(), "card")
    assert (card.depth, card.teacher, config(run)["init"]) == (2, deep.name, "teacher")
    assert float(history(run)[0]["kd_knowledge"]) > 0
    for depth, message in ((0, "--depth 0: from 2"), (6, "--depth 6: teacher .* has 4 blocks.*--init random")):
        with pytest.raises(UsageError, match=message):
            distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": depth}, deep.name)
    with pytest.raises(UsageError, match=r"--method one-to-one: .*student has 2 blocks .*teacher 4"):
        distill(workspace, finished.prepared, QUICK | {"res": 28, "depth": 2, "method": "one-to-one"}, deep.name)


def test_a_teacher_of_448_px_from_imagenet_s_weights_to_a_student_and_its_numbers(tmp_path, detailed, imagenet):
    workspace = Workspace(tmp_path / "runs")
    typed = QUICK | {"res": 448, "depth": 2, "patch": 112, "init": "pretrained", "pretrained": str(imagenet)}
    teacher = train(workspace, detailed, typed)
    assert teacher.name == "teacher-tiny-448-detailed"
    card = ModelCard.from_json((teacher / "card.json").read_text(), "card")
    assert (card.size, card.tokens, card.patch, config(teacher)["size"]) == (448, 16, 112, 448)
    run = distill(workspace, detailed, QUICK | {"res": 28})  # the latest teacher that fits
    assert config(run)["teacher"] == "teacher-tiny-448-detailed"
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
    with pytest.raises(InputError, match=r"data set clinic in .* no 448 px images.*--name clinic --size 448`"):
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
        ({"method": "none", "trust": "val"}, "--trust val does nothing with --method none"),
        ({"labelled": 0}, "--labelled 0: at least 1"),
        ({"labelled": 9999}, "--labelled 9999: data set"),
        ({"method": "hinton", "temperature": 0.0}, "--temperature 0.0: more than 0"),
    ],
)
def test_an_option_that_would_do_nothing_or_harm_is_refused(workspace, finished, typed, message):
    with pytest.raises(UsageError) as error:
        distill(workspace, finished.prepared, QUICK | {"res": 28} | typed)
    assert message in str(error.value)
    assert [run.name for run in workspace.root.iterdir()] == [finished.teacher.name]


@pytest.mark.parametrize("same_labels", [True, False])
def test_a_run_goes_on_from_another_finished_one(workspace, finished, tmp_path, capsys, same_labels):
    prepared = finished.prepared
    if not same_labels:
        prepared = replace(prepared, labels=tuple(f"{label} elsewhere" for label in prepared.labels))
    # A rate too small to move anything: what comes out is what it began with.
    run = train(workspace, prepared, QUICK | {"init": finished.teacher.name, "lr": 1e-12})
    (before, card), (after, card_after) = load_run(finished.teacher), load_run(run)
    assert [getattr(card, k) == getattr(card_after, k) for k in ("arch", "depth", "stem", "patch")] == [True] * 4
    near = {
        key: torch.allclose(value, after.state_dict()[key], atol=1e-6)
        for key, value in before.state_dict().items() if value.is_floating_point()
    }  # fmt: skip
    assert all(near[key] for key in near if "_head." not in key)
    assert all(near[key] for key in near if "findings_head.weight" in key) is same_labels
    assert config(run)["init"] == "run" and config(run)["init_sha256"] == card.sha256
    options = QUICK | {"res": 28, "method": "none", "depth": 2}
    student = distill(workspace, prepared, options | {"init": finished.teacher.name})
    again = distill(workspace, prepared, options | {"init": student.name, "lr": 1e-12})
    weights = [load_run(run)[0].state_dict()["vit.blocks.0.attn.qkv.weight"] for run in (student, again)]
    assert torch.allclose(*weights, atol=1e-6)
    with pytest.raises(ModelError, match="nosuchrun"):
        train(workspace, prepared, QUICK | {"init": "nosuchrun"})
    with pytest.raises(UsageError, match="give one of them"):
        train(workspace, prepared, QUICK | {"init": run.name, "pretrained": "file"})


def test_a_teacher_is_trusted_by_validation_beside_the_undistilled_student_of_that_size(workspace, finished, capsys):
    options = QUICK | {"res": 28, "trust": "val", "labelled": 20}
    with pytest.raises(ModelError, match="distill --res 28 --method none"):
        distill(workspace, finished.prepared, options)
    other = distill(workspace, finished.prepared, QUICK | {"res": 28, "method": "none", "init": "random"})
    with pytest.raises(UsageError, match="student of 56 px"):
        distill(workspace, finished.prepared, options | {"res": 56}, undistilled=other.name)
    with pytest.raises(UsageError, match="--undistilled"):
        distill(workspace, finished.prepared, QUICK | {"res": 28}, undistilled=other.name)
    run = distill(workspace, finished.prepared, options)
    weights = config(run)["trust"]
    assert len(weights) == len(finished.prepared.labels) + 1 and all(0 <= weight <= 1 for weight in weights)
    assert config(run)["labelled"] == 20 and f"beside {other.name}" in capsys.readouterr().err
    assert TrainConfig.from_json((run / "config.json").read_text(), "").trust == tuple(weights)


@pytest.mark.parametrize("command", ["train", "distill"])
def test_the_defaults_that_the_help_shows_are_those_of_a_run(command):
    config = TrainConfig("data", "hash").to_dict()
    shown = {}
    for option in typer.main.get_command(cli.app_of()).commands[command].params:
        if isinstance(option.show_default, str) and option.name in config:
            shown[option.name] = option.show_default
    expected = {"epochs", "batch", "lr", "warmup", "augment"}
    assert shown.keys() >= expected | ({"arch", "patch", "depth", "init"} if command == "train" else {"temperature"})
    assert all(type(config[name])(default) == config[name] for name, default in shown.items())


def test_a_run_of_a_gpu_goes_on_in_its_precision_or_says_that_it_cannot(workspace, finished, monkeypatch):
    typed = QUICK | {"init": "random", "depth": 2, "patch": 56, "seed": 8}

    def begun_on_another_device(precision):
        def train_there(workspace, prepared, config, device, progress, fresh=False, *others):
            config = dataclasses.replace(config, precision=precision)
            with checkpoint.open_run(workspace, "teacher-tiny-224-clinic", config, fresh, device.fabric) as run:
                return run

        with monkeypatch.context() as patch:
            patch.setattr(run_training, "train_teacher", train_there)
            patch.setattr(run_training, "_kept", lambda run: "")
            return run_training.train(workspace, finished.prepared, dict(typed), "cpu")

    begun = begun_on_another_device("fp16")
    with pytest.raises(UsageError, match="--fresh"):
        run_training.train(workspace, finished.prepared, dict(typed), "cpu")
    (begun / "config.json").write_text((begun / "config.json").read_text().replace("fp16", "bf16"))
    assert run_training.train(workspace, finished.prepared, dict(typed), "cpu") == begun
    assert read_card(begun).training["precision"] == "bf16"

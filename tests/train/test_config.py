from __future__ import annotations

import json
import math

import pytest

from edgecxr.errors import ModelError, UsageError
from edgecxr.train.config import TrainConfig, patch_of


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "huge"}, "--arch huge: there are tiny, small, base"),
        ({"init": "zero"}, "--init zero: there are pretrained, teacher, random"),
        ({"precision": "int4"}, "--precision int4: there are auto, fp32, bf16, fp16"),
        ({"epochs": 0}, "--epochs 0"),
        ({"batch": 0}, "--batch 0"),
        ({"lr": 0.0}, "--lr 0.0"),
        ({"lr": math.nan}, "--lr nan"),
        ({"lr": math.inf}, "--lr inf"),
        ({"weight_decay": -0.1}, "weight_decay -0.1"),
        ({"weight_decay": math.nan}, "weight_decay nan"),
        ({"warmup": 1.0}, "--warmup 1.0"),
        ({"warmup": math.nan}, "--warmup nan"),
        ({"depth": 1}, "--depth 1"),
        ({"patch": 15}, "patches of 15 px do not tile 224 px"),
        ({"patch": 0}, "patches of 0 px"),
        ({"alpha": -1.0}, "--alpha, --beta and --gamma"),
        ({"beta": math.nan}, "--alpha, --beta and --gamma"),
        ({"gamma": math.inf}, "--alpha, --beta and --gamma"),
        ({"augment": 3.5}, "--augment 3.5"),
        ({"augment": math.nan}, "--augment nan"),
        ({"clip": -1.0}, "--clip -1.0"),
        ({"clip": math.nan}, "--clip nan"),
        ({"patience": 0}, "--patience 0: at least 1"),
        ({"ema": 1.0}, "--ema 1.0"),
        ({"ema": -0.1}, "--ema -0.1"),
        ({"ema": math.nan}, "--ema nan"),
        ({"class_weights": "equal"}, "--class-weights equal: there are none, balanced"),
        ({"stem": "cnn"}, "--stem cnn: there are patch, conv"),
        ({"stem": "conv"}, "--stem conv has no ImageNet weights"),
        ({"stem": "conv", "init": "random", "patch": 56}, "never of 56 px"),
        ({"stem": "conv", "init": "teacher", "size": 28, "patch": 7}, "never of 7 px"),
        ({"stem": "conv", "init": "random", "size": 28, "patch": 1}, "never of 1 px"),
        ({"init": "run"}, "--init: name the run"),
        ({"pretrained": "w.safetensors", "init": "random"}, "--pretrained goes with --init pretrained"),
    ],
)
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(UsageError) as error:
        TrainConfig("data", "hash", **changes)
    assert message in str(error.value)
    assert ";" not in str(error.value)  # and no other


def test_settings_come_back_from_their_file():
    config = TrainConfig("data", "hash", arch="small", size=28, patch=4, method="mlcak", teacher="t", lr=3e-4, seed=7)
    assert TrainConfig.from_json(json.dumps(config.to_dict()), "config.json") == config


def test_a_run_of_before_had_a_patch_embedding_and_no_clipping():
    before = TrainConfig("data", "hash", clip=0.0).to_dict()
    for later in ("stem", "clip", "patience", "ema", "class_weights"):
        del before[later]
    config = TrainConfig.from_json(json.dumps(before), "config.json")
    assert (config.stem, config.clip) == ("patch", 0)
    assert config != TrainConfig("data", "hash")


@pytest.mark.parametrize("text", ["", "[]", "null", '{"data": "x"}', '{"data": "x", "data_hash": "y", "speed": 1}'])
def test_a_file_without_settings_is_named(text):
    with pytest.raises(ModelError, match=r"folder/config\.json is not the configuration"):
        TrainConfig.from_json(text, "folder/config.json")


def test_the_schedule_is_the_paper_s():
    config = TrainConfig("data", "hash")
    assert (config.epochs, config.batch, config.lr, config.patch, config.depth) == (100, 64, 5e-4, 16, 12)


def test_patches_of_every_resolution_and_token_count():
    table = {(size, tokens): patch_of(size, tokens) for size in (224, 112, 56, 28) for tokens in (196, 49, 16)}
    assert table == {
        (224, 196): 16, (224, 49): 32, (224, 16): 56,
        (112, 196): 8, (112, 49): 16, (112, 16): 28,
        (56, 196): 4, (56, 49): 8, (56, 16): 14,
        (28, 196): 2, (28, 49): 4, (28, 16): 7,
    }  # fmt: skip
    with pytest.raises(UsageError, match="there are 196, 49, 16"):
        patch_of(28, 25)

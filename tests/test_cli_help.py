"""What the help shows, and what is suggested for a word of another tool."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path
from unittest import mock

import pytest
import typer

from edgecxr import cli
from edgecxr.cli.app import ALIASES
from edgecxr.errors import MissingPackage
from edgecxr.registry import DATASETS
from tests.cli_workspace import edgecxr

COMMANDS = typer.main.get_command(cli.app_of()).commands


@pytest.mark.parametrize(
    ("command", "section", "option"),
    [("prepare", "Only for folder", "--boxes"), ("prepare", "How films are read", "--workers"),
     ("train", "Schedule", "--epochs"), ("train", "Device", "--nodes"), ("distill", "Distillation", "--gamma"),
     ("distill", "Model", "--tokens"), ("train", "Options", "--name"), ("infer", "Model", "--threads"),
     ("infer", "Films", "--watch"), ("infer", "Results", "--overlay")],
)  # fmt: skip
def test_options_are_in_sections(tmp_path: Path, command: str, section: str, option: str) -> None:
    text = edgecxr(command, "--help", runs=tmp_path).out
    part = text.partition(f"\n{section}:\n")[2].partition("\n\n")[0]
    assert re.search(rf"^  {option}\b", part, re.MULTILINE), text


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_option_is_shown_once_and_can_be_read(tmp_path: Path, command: str) -> None:
    inner = getattr(COMMANDS[command], "commands", {"": COMMANDS[command]})
    for name, its in inner.items():
        text = edgecxr(command, *([name] if name else []), "--help", runs=tmp_path, COLUMNS="100").out
        text = text.partition("\n  Example")[0]
        for parameter in its.params:
            if parameter.param_type_name == "option" and not parameter.hidden:
                assert len(re.findall(rf"^  (?:-\w, )?{parameter.opts[0]}\b", text, re.MULTILINE)) == 1, parameter.name
        assert "range>" not in text and "<=" not in text and "default: (" not in text and "[[" not in text, text


@pytest.mark.parametrize(
    ("typed", "least"),
    [
        (("evaluate", "--replicates"), 100), (("benchmark", "--replicates"), 100), (("demo", "--n"), 8),
        (("prepare", "--n"), 8),
    ],
)  # fmt: skip
def test_a_least_number_is_told(tmp_path: Path, typed: tuple[str, str], least: int) -> None:
    command, option = typed
    text = " ".join(edgecxr(command, "--help", runs=tmp_path, COLUMNS="100").out.split())
    assert re.search(rf"{option} <int> [^-]*at least {least}\b", text), text
    kind = ("phantom",) if command == "prepare" else ()
    refused = edgecxr(command, *kind, option, str(least - 1), runs=tmp_path)
    assert refused.code == 2 and str(least) in refused.err and not list(tmp_path.iterdir())


def test_infer_says_what_it_does_without_an_option(tmp_path: Path) -> None:
    text = " ".join(edgecxr("infer", "--help", runs=tmp_path, COLUMNS="100").out.split())
    for option, default in (("--model", "EDGECXR_MODEL, else the latest"), ("--workers", "one per core")):
        assert re.search(rf"{option} [^-]*\[default: {default}\]", text), text
    assert "<str>" not in text and "<int>" not in text


@pytest.mark.parametrize("typed", ALIASES)
def test_a_word_of_another_tool_is_told_ours(tmp_path: Path, typed: str) -> None:
    assert typed not in COMMANDS
    refused = edgecxr(typed, runs=tmp_path)
    assert refused.code == 2 and f"'edgecxr {ALIASES[typed]}'" in refused.error
    assert edgecxr(*ALIASES[typed].split(), "--help", runs=tmp_path).code == 0


def test_a_shell_is_told_how_words_go_on(tmp_path: Path) -> None:
    def completions(words: str, count: int) -> list[str]:
        variables = {"_EDGECXR_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(count)}
        return edgecxr(runs=tmp_path, **variables).out.split()

    assert completions("edgecxr dis", 1) == ["distill"]
    assert completions("edgecxr prepare ", 2) == list(DATASETS)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "card.json").write_text("{}")
    assert completions("edgecxr distill --teacher m", 3) == ["mine"]


def test_without_torch_that_is_said_first(tmp_path: Path) -> None:
    from importlib.util import find_spec

    with mock.patch("importlib.util.find_spec", lambda name: None if name == "torch" else find_spec(name)):
        for command in (("train",), ("distill", "--res", "28")):
            typed = edgecxr(*command, runs=tmp_path)
            assert typed.code == MissingPackage.exit_code and "torch" in typed.error


def test_a_gpu_s_number_is_told_its_name(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgecxr.errors import UsageError
    from edgecxr.train.device import Device

    for typed, meant in (("0", "cuda:0"), ("12", "cuda:12"), ("gpu", "cuda?")):
        with pytest.raises(UsageError, match=re.escape(f"did you mean {meant}")):
            Device.choose(typed, "auto")


def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    from edgecxr.errors import ModelError
    from edgecxr.models import weights

    requests = []

    def unreachable(request: urllib.request.Request, timeout: float) -> None:
        requests.append((request.get_method(), timeout))
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(weights.huggingface_hub, "try_to_load_from_cache", lambda *names: None)
    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    with pytest.raises(ModelError, match="--pretrained FILE"):
        weights.pretrained_state("tiny", None)
    assert len(requests) == 1 and requests[0][1] <= 5
    # What is there already needs no network.
    monkeypatch.setattr(weights.huggingface_hub, "try_to_load_from_cache", lambda *names: str(tmp_path / "absent"))
    with pytest.raises(ModelError, match="absent"):
        weights.pretrained_state("tiny", None)
    assert len(requests) == 1

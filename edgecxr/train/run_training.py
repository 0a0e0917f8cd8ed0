"""`edgecxr train` and `edgecxr distill`: settings from what was typed, then the recipe, with progress."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecxr import registry, resolve
from edgecxr.bundle.card import read_card
from edgecxr.data.prepared import Prepared
from edgecxr.errors import UsageError
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE, SIZES
from edgecxr.models.vit import ARCHS
from edgecxr.registry import METHODS
from edgecxr.terminal import progress, say
from edgecxr.train.config import BEFORE, TrainConfig, patch_of
from edgecxr.train.device import Device
from edgecxr.train.student import distil_student, student_name
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace

ORDINARY = ("size", "input", "stem", "warmup", "weight_decay", "clip", "alpha", "beta", "gamma", "temperature")
"""Settings that a run has by default: one with others is another run, though nobody has named them."""

PAPER = {"init": "pretrained", "epochs": 100, "batch": 64, "lr": 5e-4, "warmup": 0.0, "clip": 0.0}
"""What --paper sets, unless something else is typed beside it; for students also 196 tokens."""


def train(
    workspace: Workspace,
    prepared: Prepared,
    typed: dict[str, Any],
    device: str = "auto",
    fresh: bool = False,
    compiled: bool = False,
) -> Path:
    """Train a teacher.

    Args:
        workspace: where the run is kept.
        prepared: the data set.
        typed: "res", "paper" and fields of `TrainConfig`; None stands for what was not typed.
        device: as `Device.choose` takes it.
        fresh: begin a new run even if an interrupted one could be continued.
        compiled: apply torch.compile.

    Returns:
        The run's folder.
    """
    settings = _settings(typed)
    if settings.get("init") == "teacher":
        raise UsageError("--init teacher is for students: a teacher starts from pretrained or random weights")
    if settings.get("stem") == "conv" and "pretrained" not in settings:
        settings.setdefault("init", "random")
    size = settings.pop("res", BASE_SIZE)
    if size not in (BASE_SIZE, LARGE_SIZE):
        raise UsageError(f"--res {size}: there are {BASE_SIZE}, {LARGE_SIZE}")
    config = TrainConfig(data=prepared.name, data_hash=prepared.hash, size=size, **settings)
    chosen = Device.choose(device, config.precision, compiled)
    stem = f", stem {config.stem}" if config.stem != "patch" else ""
    say(f"train a {config.arch} teacher on {prepared.name}{stem}, init {config.init} ({_where(chosen)})")
    with progress("train") as update:
        run = train_teacher(workspace, prepared, config, chosen, update, fresh)
    chosen.leave()
    say(_kept(run))
    return run


def distill(
    workspace: Workspace,
    prepared: Prepared,
    typed: dict[str, Any],
    teacher: str | None = None,
    device: str = "auto",
    fresh: bool = False,
    compiled: bool = False,
) -> Path:
    """Train a student.

    Args:
        workspace: where the run is kept, and where a teacher is looked for.
        prepared: the data set.
        typed: "res", "tokens", "paper" and fields of `TrainConfig`; None stands for what was not typed.
        teacher: name of its run; None takes the latest that fits, where one is needed.
        device: as `Device.choose` takes it.
        fresh: begin a new run even if an interrupted one could be continued.
        compiled: apply torch.compile.

    Returns:
        The run's folder.
    """
    settings = _settings(typed, tokens=196)
    size, tokens = settings.pop("res"), settings.pop("tokens", 49)
    if size not in SIZES:
        raise UsageError(f"--res {size}: there are {', '.join(map(str, SIZES))}")
    arch = settings.pop("arch", None)
    if arch is not None and arch not in ARCHS:
        raise UsageError(f"--arch {arch}: there are {', '.join(ARCHS)}")
    settings.setdefault("method", "mlcak")
    needs_teacher = _check_method(settings)
    init = settings.pop("init", "pretrained" if settings.get("pretrained") else None)
    teacher_run = teacher_card = None
    if needs_teacher or teacher is not None or init in (None, "teacher"):
        teacher_run = resolve.teacher(workspace, teacher, prepared)
        teacher_card = read_card(teacher_run)
    arch = arch or (teacher_card.arch if teacher_card else "tiny")
    # Pretrained weights have a patch embedding, whatever the teacher has.
    inherited = teacher_card.stem if teacher_card and init != "pretrained" else "patch"
    stem = settings.pop("stem", inherited)
    if init is None:
        init = (
            "teacher" if teacher_card and teacher_card.arch == arch else "pretrained" if stem == "patch" else "random"
        )
    depth = settings.pop("depth", teacher_card.depth if teacher_card else 12)
    if init == "teacher" and teacher_card and depth > teacher_card.depth:
        raise UsageError(
            f"--depth {depth}: teacher {teacher_card.name} has {teacher_card.depth} blocks, of which a student takes "
            "some; ask for no more, or for --init random"
        )
    config = TrainConfig(
        data=prepared.name,
        data_hash=prepared.hash,
        arch=arch,
        size=size,
        patch=patch_of(size, tokens, settings.get("input", "native")),
        depth=depth,
        stem=stem,
        teacher=teacher_card.name if teacher_card else None,
        teacher_sha256=teacher_card.sha256 if teacher_card else None,
        init=init,
        **settings,
    )
    chosen = Device.choose(device, config.precision, compiled)
    taught = f" with {teacher_card.name}" if teacher_card else ""
    other = teacher_card is not None and teacher_card.stem != stem
    shown = f", stem {stem}" if stem != "patch" or other else ""
    say(f"distill {student_name(config)}{taught} on {prepared.name}{shown}, init {init} ({_where(chosen)})")
    with progress("distill") as update:
        run = distil_student(workspace, prepared, config, teacher_run, chosen, update, fresh)
    chosen.leave()
    say(_kept(run))
    return run


def once(workspace: Workspace, prepared: Prepared, settings: dict[str, Any], make: Callable[[], Path]) -> Path:
    """Return the finished run that has these settings and data, else make one.

    Args:
        workspace: where to look.
        prepared: the data set.
        settings: fields of `TrainConfig`; those of `ORDINARY` that are not among them have their defaults.
        make: trains it, or goes on with it.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig) if field.name in ORDINARY}
    wanted = defaults | settings | {"data_hash": prepared.hash}
    for folder in workspace.finished_runs():
        training = BEFORE | read_card(folder).training
        if all(training.get(key) == value for key, value in wanted.items()):
            say(f"{folder} is done")
            return folder
    return make()


def _kept(run: Path) -> str:
    """Say which epoch's weights the run has kept; the last one is not always the best."""
    with (run / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    # As `write_epoch` chooses: the first of the best, the latest where nothing could be measured.
    best = max(rows, key=lambda row: -math.inf if math.isnan(float(row["score"])) else float(row["score"]))
    best = rows[-1] if math.isnan(float(best["score"])) else best
    findings, abnormal = (float(best[f"val_auroc_{task}"]) for task in ("findings", "abnormal"))
    return f"kept epoch {best['epoch']} of {len(rows)}: val AUROC findings {findings:.3f} abnormal {abnormal:.3f}"


def _where(device: Device) -> str:
    ranks = device.fabric.world_size
    return f"{f'{ranks} x ' if ranks > 1 else ''}{device.torch.type if ranks > 1 else device.torch}, {device.precision}"


def _settings(typed: dict[str, Any], **paper: Any) -> dict[str, Any]:
    """Return what was typed, on top of what --paper stands for, if that was typed."""
    given = {name: value for name, value in typed.items() if value is not None}
    if not given.pop("paper", False):
        return given
    paper = PAPER | paper
    other = [f"--{name} {given[name]}" for name in paper if name in given and given[name] != paper[name]]
    if other:
        say(f"--paper, except for {' '.join(other)}")
    return paper | given


def _check_method(settings: dict[str, Any]) -> bool:
    """Return whether the method needs a teacher; refuse options that it would not heed."""
    name = settings["method"]
    method = registry.resolve(METHODS, name, "method")
    for option in ("alpha", "beta", "gamma", "temperature"):
        if option in settings and option not in method.options:
            heeded = ", ".join(f"--{option}" for option in method.options) or "no weights"
            raise UsageError(f"--{option} does nothing with --method {name}, which takes {heeded}")
    return bool(method.needs_teacher)

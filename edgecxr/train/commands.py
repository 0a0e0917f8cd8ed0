"""`edgecxr train` and `edgecxr distill`: settings from what was typed, then the recipe, with progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgecxr import select
from edgecxr.console import progress, say
from edgecxr.data.prepared import Prepared
from edgecxr.errors import UsageError
from edgecxr.models.vit import ARCHS
from edgecxr.registry import METHODS, resolve
from edgecxr.runtime.preprocess import SIZES
from edgecxr.train.config import TrainConfig, patch_of
from edgecxr.train.device import Device
from edgecxr.train.student import distil_student, student_name
from edgecxr.train.teacher import train_teacher
from edgecxr.workspace import Workspace


def train(
    workspace: Workspace,
    prepared: Prepared,
    settings: dict[str, Any],
    pretrained: Path | None,
    device: str,
    fresh: bool,
) -> Path:
    """Train a teacher on `prepared`; `settings` are fields of `TrainConfig`. Returns the run's folder."""
    if settings["init"] == "teacher":
        raise UsageError("--init teacher is for students: a teacher starts from pretrained or random weights")
    config = TrainConfig(
        data=prepared.name, data_hash=prepared.hash, pretrained=str(pretrained) if pretrained else None, **settings
    )
    chosen = Device.choose(device, config.precision)
    say(f"train a {config.arch} teacher on {prepared.name} ({chosen.torch}, {chosen.precision})")
    with progress("train") as update:
        return train_teacher(workspace, prepared, config, chosen, update, fresh)


def distill(
    workspace: Workspace,
    prepared: Prepared,
    res: int,
    tokens: int,
    teacher: str | None,
    arch: str | None,
    init: str | None,
    settings: dict[str, Any],
    pretrained: Path | None,
    device: str,
    fresh: bool,
) -> Path:
    """Train a student on `prepared`; `settings` are further fields of `TrainConfig`. Returns the run's folder."""
    if res not in SIZES:
        raise UsageError(f"--res {res}: there are {', '.join(map(str, SIZES))}")
    if arch is not None and arch not in ARCHS:
        raise UsageError(f"--arch {arch}: there are {', '.join(ARCHS)}")
    if pretrained is not None and init is None:
        init = "pretrained"
    needs_teacher = resolve(METHODS, settings["method"], "method").needs_teacher
    teacher_run = teacher_card = None
    if needs_teacher or teacher is not None or init in (None, "teacher"):
        teacher_run = select.teacher(workspace, teacher, prepared)
        teacher_card = select.card_of(teacher_run)
    arch = arch or (teacher_card.arch if teacher_card else "tiny")
    if init is None:
        init = "teacher" if teacher_card and teacher_card.arch == arch else "pretrained"
    config = TrainConfig(
        data=prepared.name,
        data_hash=prepared.hash,
        arch=arch,
        size=res,
        patch=patch_of(res, tokens),
        depth=teacher_card.depth if teacher_card else 12,
        teacher=teacher_card.name if teacher_card else None,
        teacher_sha256=teacher_card.sha256 if teacher_card else None,
        init=init,
        pretrained=str(pretrained) if pretrained else None,
        **settings,
    )
    chosen = Device.choose(device, config.precision)
    taught = f" with {teacher_card.name}" if teacher_card else ""
    say(f"distill {student_name(config)}{taught} on {prepared.name}, init {init} ({chosen.torch}, {chosen.precision})")
    with progress("distill") as update:
        return distil_student(workspace, prepared, config, teacher_run, chosen, update, fresh)

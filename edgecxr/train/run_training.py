"""Training and distillation for `edgecxr train` and `edgecxr distill`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgecxr import registry, resolve
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.bundle.epoch_history import kept_epoch, read_history
from edgecxr.data.prepared import Prepared
from edgecxr.distill.trust import trust_weights
from edgecxr.errors import UsageError
from edgecxr.evaluate.scores import predict
from edgecxr.films.resize import BASE_SIZE, LARGE_SIZE, SIZES
from edgecxr.models.stem import learned_from_random
from edgecxr.models.vit import ARCHS
from edgecxr.registry import METHODS
from edgecxr.terminal import progress, say
from edgecxr.train import checkpoint
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.train.config import BEFORE, INITS, TrainConfig, patch_of
from edgecxr.train.device import Device
from edgecxr.train.epochs.epoch_report import load_writer
from edgecxr.train.epochs.stopping import PATIENCE, check_hours
from edgecxr.train.student import distil_student, student_name
from edgecxr.train.teacher import teacher_name, train_teacher
from edgecxr.vocabulary import ABNORMAL
from edgecxr.workspace import Workspace

ORDINARY = (
    "size",
    "input",
    "stem",
    "warmup",
    "weight_decay",
    "clip",
    "alpha",
    "beta",
    "gamma",
    "temperature",
    "trust",
    "labelled",
    "patience",
    "class_weights",
    "ema",
)
"""Settings that must have their defaults for a run to count as done, unless they are named."""

PAPER = {"init": "pretrained", "epochs": 100, "batch": 64, "lr": 5e-4, "warmup": 0.0, "clip": 0.0}
"""Settings of --paper, unless others are typed with it; students also get 196 tokens."""


def train(
    workspace: Workspace,
    prepared: Prepared,
    typed: dict[str, Any],
    device: str = "auto",
    fresh: bool = False,
    compiled: bool = False,
    name: str | None = None,
    tensorboard: bool = False,
    max_hours: float | None = None,
) -> Path:
    """Train a teacher.

    Args:
        workspace: where the run is kept.
        prepared: the data set.
        typed: "res", "paper" and fields of `TrainConfig`; None means not typed.
        device: as `Device.choose` accepts it.
        fresh: begin a new run even if an interrupted one could be continued.
        compiled: apply torch.compile.
        name: name of the run; None makes one of the settings.
        tensorboard: also write the history for TensorBoard.
        max_hours: limit of the hours that this call trains; None: no limit.

    Returns:
        The run's folder.

    Raises:
        TimeIsUp: `max_hours` are over before the run is finished.
    """
    _check_before_work(tensorboard, max_hours)
    if name is not None:
        workspace.check_free(name)
    settings = _settings(typed)
    begun_with = _of_run(workspace, settings)
    if begun_with is not None and begun_with.size == settings.get("res", BASE_SIZE):
        settings.setdefault("patch", begun_with.patch)
    if settings.get("init") == "teacher":
        raise UsageError(
            "--init teacher is for students: a teacher starts from pretrained or random weights, or a run's"
        )
    if settings.get("stem") == "conv" and "pretrained" not in settings:
        settings.setdefault("init", "random")
    size = settings.pop("res", BASE_SIZE)
    if size not in (BASE_SIZE, LARGE_SIZE):
        raise UsageError(f"--res {size}: there are {BASE_SIZE}, {LARGE_SIZE}")
    config = TrainConfig(data=prepared.name, data_hash=prepared.hash, size=size, **settings)
    chosen = _device(workspace, name or teacher_name(config), config, device, fresh, compiled)
    stem_note = f", stem {config.stem}" if config.stem != "patch" else ""
    say(f"train a {config.arch} teacher on {prepared.name}{stem_note}, init {config.init} ({_where(chosen)})")
    _say_stems(config, prepared)
    with progress("train") as update:
        run = train_teacher(workspace, prepared, config, chosen, update, fresh, name, tensorboard, max_hours)
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
    name: str | None = None,
    tensorboard: bool = False,
    undistilled: str | None = None,
    max_hours: float | None = None,
) -> Path:
    """Train a student.

    Args:
        workspace: where the run is kept and the teacher is looked up.
        prepared: the data set.
        typed: "res", "tokens", "paper" and fields of `TrainConfig`, "trust" being "all" or "val"; None means not typed.
        teacher: name of its run; None picks the latest that fits, if one is needed.
        device: as `Device.choose` accepts it.
        fresh: begin a new run even if an interrupted one could be continued.
        compiled: apply torch.compile.
        name: name of the run; None makes one of the settings.
        tensorboard: also write the history for TensorBoard.
        undistilled: name of the run without a teacher that trust "val" compares with; None picks the latest that fits.
        max_hours: limit of the hours that this call trains; None: no limit.

    Returns:
        The run's folder.

    Raises:
        TimeIsUp: `max_hours` are over before the run is finished.
    """
    _check_before_work(tensorboard, max_hours)
    if name is not None:
        workspace.check_free(name)
    settings = _settings(typed, tokens=196)
    size, tokens = settings.pop("res"), settings.pop("tokens", 49)
    if size not in SIZES:
        raise UsageError(f"--res {size}: there are {', '.join(map(str, SIZES))}")
    _of_run(workspace, settings)
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
    # Pretrained weights have a patch embedding, even if the teacher has a convolutional stem.
    inherited = teacher_card.stem if teacher_card and init != "pretrained" else "patch"
    stem = settings.pop("stem", inherited)
    if init is None:
        init = (
            "teacher" if teacher_card and teacher_card.arch == arch else "pretrained" if stem == "patch" else "random"
        )
    depth = settings.pop("depth", teacher_card.depth if teacher_card else 12)
    if init == "teacher" and teacher_card and depth > teacher_card.depth:
        raise UsageError(
            f"--depth {depth}: teacher {teacher_card.name} has {teacher_card.depth} blocks, from which those of the "
            "student are taken: give no more, or add --init random"
        )
    if settings.pop("trust", "all") == "val":
        if teacher_run is None or not needs_teacher:
            raise UsageError(f"--trust val does nothing with --method {settings['method']}, which has no teacher")
        settings["trust"] = _trust(workspace, prepared, teacher_run, undistilled, size, device)
    elif undistilled is not None:
        raise UsageError("--undistilled goes with --trust val")
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
    chosen = _device(workspace, name or student_name(config), config, device, fresh, compiled)
    teacher_note = f" with {teacher_card.name}" if teacher_card else ""
    stems_differ = teacher_card is not None and teacher_card.stem != stem
    stem_note = f", stem {stem}" if stem != "patch" or stems_differ else ""
    on = f"{teacher_note} on {prepared.name}{stem_note}, init {init} ({_where(chosen)})"
    say(f"distill {name or student_name(config)}{on}")
    _say_stems(config, prepared)
    with progress("distill") as update:
        run = distil_student(
            workspace, prepared, config, teacher_run, chosen, update, fresh, name, tensorboard, max_hours
        )
    chosen.leave()
    say(_kept(run))
    return run


def _check_before_work(tensorboard: bool, max_hours: float | None) -> None:
    """Refuse options that would only fail after a while."""
    check_hours(max_hours)
    if tensorboard:
        load_writer()


def _say_stems(config: TrainConfig, prepared: Prepared) -> None:
    """Say before a start from random weights which stem learns faster."""
    if config.init == "random" and config.stem == "patch":
        say(learned_from_random(len(prepared.rows("train"))))


def _of_run(workspace: Workspace, settings: dict[str, Any]) -> ModelCard | None:
    """Resolve an --init that names a run, and return its card.

    The run's architecture becomes the default.

    Raises:
        ModelError: there is no such run.
    """
    if settings.get("init") in (None, *INITS[:-1]):
        return None
    folder = resolve.run(workspace, settings["init"])
    card = read_card(folder)
    if settings.get("pretrained"):
        raise UsageError(f"--init {card.name} and --pretrained: give one of them")
    settings.update(init="run", pretrained=str(folder), init_sha256=card.sha256)
    for option in ("arch", "depth", "stem"):
        settings.setdefault(option, getattr(card, option))
    return card


def _trust(
    workspace: Workspace, prepared: Prepared, teacher: Path, undistilled: str | None, size: int, device: str
) -> tuple[float, ...]:
    """Return and print the trust in the teacher by finding."""
    other = resolve.undistilled(workspace, undistilled, prepared, size)
    torch_device = str(Device.choose(device, "fp32").torch)
    logits = []
    for run in (teacher, other):
        model, card = checkpoint.load_run(run)
        backend = TorchBackend(model, torch_device)
        logits.append(predict(backend, prepared, prepared.rows("val"), card.size).logits)
    weights = trust_weights(prepared, logits[0], logits[1])
    shares = ", ".join(f"{name} {weight:g}" for name, weight in zip((*prepared.labels, ABNORMAL), weights, strict=True))
    say(f"trust in {teacher.name} beside {other.name}, by validation: {shares}")
    return weights


def once(workspace: Workspace, prepared: Prepared, settings: dict[str, Any], make: Callable[[], Path]) -> Path:
    """Return the finished run with these settings and data, or make one.

    Args:
        workspace: where to look.
        prepared: the data set.
        settings: fields of `TrainConfig`; fields of `ORDINARY` that are missing must have their defaults.
        make: trains the run, or resumes it.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig) if field.name in ORDINARY}
    expected = defaults | settings | {"data_hash": prepared.hash}
    if expected.get("precision") == "auto":  # whatever it meant on the device of that run
        del expected["precision"]
    if expected.get("pretrained"):
        expected["pretrained"] = Path(str(expected["pretrained"])).name
    for folder in workspace.finished_runs():
        training = BEFORE | read_card(folder).training
        if training.get("pretrained"):  # a card says no more than the name; older ones have the path
            training["pretrained"] = Path(str(training["pretrained"])).name
        if all(training.get(key) == value for key, value in expected.items()):
            say(f"{folder} is done")
            return folder
    return make()


def _device(workspace: Workspace, name: str, config: TrainConfig, device: str, fresh: bool, compiled: bool) -> Device:
    """Return the device, with the precision of the run that goes on."""
    begun = None
    if config.precision == "auto" and not fresh:
        begun = checkpoint.begun_precision(workspace, name, config)
    try:
        return Device.choose(device, begun or config.precision, compiled)
    except UsageError as error:
        if begun is None:
            raise
        raise UsageError(f"{error}; an unfinished {name} was begun in {begun}: go on there, or add --fresh") from error


def _kept(run: Path) -> str:
    """Return the message about the epoch whose weights were kept.

    It is not always the last epoch.
    """
    history = read_history(run)
    best = kept_epoch(history)
    findings, abnormal = (best[f"val_auroc_{task}"] for task in ("findings", "abnormal"))
    card = read_card(run)
    early = f", ended by --patience {card.training['patience']}" if card.ended["reason"] == PATIENCE else ""
    kept = f"kept epoch {best['epoch']:.0f} of {len(history)}{early}"
    return f"{kept}: val AUROC findings {findings:.3f} abnormal {abnormal:.3f}"


def _where(device: Device) -> str:
    ranks = device.fabric.world_size
    return f"{f'{ranks} x ' if ranks > 1 else ''}{device.torch.type if ranks > 1 else device.torch}, {device.precision}"


def _settings(typed: dict[str, Any], **paper: Any) -> dict[str, Any]:
    """Return the typed settings, on top of --paper's if that was typed."""
    chosen = {name: value for name, value in typed.items() if value is not None}
    if not chosen.pop("paper", False):
        return chosen
    paper = PAPER | paper
    exceptions = [f"--{name} {chosen[name]}" for name in paper if name in chosen and chosen[name] != paper[name]]
    if exceptions:
        say(f"--paper, except for {' '.join(exceptions)}")
    return paper | chosen


def _check_method(settings: dict[str, Any]) -> bool:
    """Return whether the method needs a teacher.

    Raises:
        UsageError: an option was typed that the method does not use.
    """
    name = settings["method"]
    method = registry.resolve(METHODS, name, "method")
    for option in ("alpha", "beta", "gamma", "temperature"):
        if option in settings and option not in method.options:
            accepted = ", ".join(f"--{option}" for option in method.options) or "no weights"
            raise UsageError(f"--{option} does nothing with --method {name}, which takes {accepted}")
    return bool(method.needs_teacher)

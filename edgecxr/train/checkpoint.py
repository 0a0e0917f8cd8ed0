"""Files of a training run, written atomically and read safely.

Weights are safetensors, and last.pt is read without running pickled code.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save
from torch import nn

from edgecxr.bundle.bundle import sha256_of
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.films.resize import LARGE_SIZE
from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.models.weights import pretrained_state, read_safetensors, start_from
from edgecxr.storage.archives import open_zip
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.folders import CARD, CONFIG
from edgecxr.storage.locks import locked
from edgecxr.storage.reading import BadFile, open_file, read_text
from edgecxr.storage.unfinished import is_unfinished
from edgecxr.terminal import say
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.train.config import MAX_DEPTH, TrainConfig
from edgecxr.train.device import Device
from edgecxr.workspace import Workspace

FORMAT = 2
"""Format of last.pt; the first one, 1, has no number in the file."""

LAST = "last.pt"
BEST = "best.safetensors"
LOCK = "lock"

_LARGEST_CONFIG = 1 << 20
_LARGEST_BEST = 1 << 30
_LARGEST_LAST, _MOST_TENSORS = 64 << 30, 20_000


def start(model: TwoHeadViT, config: TrainConfig, labels: tuple[str, ...]) -> None:
    """Give a model the weights that its settings say it starts from.

    Random ones, and those of a student's teacher, are none of this function's business. Heads are copied from a run
    of the same labels only.

    Raises:
        ModelError: the weights are missing, damaged or of another architecture.
    """
    if config.init == "pretrained":
        file = Path(config.pretrained) if config.pretrained else None
        if not start_from(model, pretrained_state(config.arch, file), str(file or "timm's hub")):
            if config.stem == "patch":
                raise ModelError(f"{file} has a convolutional stem, and this model has none: add --stem conv")
            say(f"blocks start from {file}, the stem from random weights: the file's is another")
    elif config.init == "run":
        folder = str(config.pretrained)
        source, card = load_run(Path(folder))
        if card.sha256 != config.init_sha256:
            raise ModelError(f"{folder} has other weights than this training began with: add --fresh")
        same = card.labels == labels
        state = {key: value for key, value in source.state_dict().items() if same or "_head." not in key}
        if not start_from(model, state, folder):
            say(f"blocks start from {card.name}'s, the stem from random weights: its stem is another")


@contextmanager
def open_run(
    workspace: Workspace, name: str, config: TrainConfig, fresh: bool, fabric: Fabric, numbered: bool = True
) -> Iterator[Path]:
    """Yield the folder of a run, locked until the block ends.

    An unfinished run (one without a card) of the same name and the same settings is continued, unless `fresh`. If there
    are several processes, the first one chooses for all.

    Args:
        workspace: where the run is kept.
        name: its name; a new run whose name is taken gets a number.
        config: its settings.
        fresh: begin a new run even if one could be continued.
        fabric: connects the processes.
        numbered: False refuses a name that is taken, instead of numbering the run.

    Raises:
        UsageError: another process is training that run, the workspace cannot be written, the name is taken, or this
            process has other settings, data or teacher than the first.
    """
    with ExitStack() as locks:
        if not fabric.is_global_zero:
            placeholder: tuple[str, dict[str, Any]] = ("", {})
            chosen, theirs = fabric.broadcast(placeholder)
            _refuse_others(config.to_dict(), theirs)
            yield workspace.root / chosen
            return
        with workspace.naming(name):
            unfinished = None if fresh else _unfinished(workspace, name, config, locks, numbered)
            run = unfinished or workspace.new_run(name, numbered)
            if not unfinished:
                _hold(run, locks)
                if run.name != name:
                    say(f"{name} is there already, finished or with other settings: this is {run.name}")
            if not (run / CONFIG).exists():
                atomic_write(run / CONFIG, json.dumps(config.to_dict(), indent=1))
        fabric.broadcast((run.name, config.to_dict()))
        yield run


def _refuse_others(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuse to train together with other settings, data or teacher.

    Data differ if two machines prepared them separately, for example.
    """
    wrong = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if wrong:
        raise UsageError(
            f"this process differs from the first one in {', '.join(wrong)}: give all machines the same command, data "
            "set and teacher"
        )


def _unfinished(workspace: Workspace, name: str, config: TrainConfig, locks: ExitStack, numbered: bool) -> Path | None:
    for run in workspace.runs(name):
        if not numbered and run.name != name:
            continue
        if not (run / CARD).exists() and (_has_settings(run, config) or _is_empty(run)):
            _hold(run, locks)
            if not (run / CARD).exists():
                return run
            locks.close()  # another process has just finished it
    return None


def _hold(run: Path, locks: ExitStack) -> None:
    message = f"is training {run} with the same settings: wait for it, or begin another run with --fresh"
    with writing(run):
        locks.enter_context(locked(run / LOCK, message))


def _is_empty(run: Path) -> bool:
    """Return whether `run` has no files but those of a start.

    A process that was killed at once leaves such a folder.
    """
    return all(entry.name == LOCK or is_unfinished(entry.name) for entry in run.iterdir())


def begun_precision(workspace: Workspace, name: str, config: TrainConfig) -> str | None:
    """Return the precision of the unfinished run that goes on.

    A run keeps its precision on another device, where "auto" would mean another one.

    Args:
        workspace: where the run is looked for.
        name: of the run.
        config: its settings, with precision "auto".

    Returns:
        The precision; None if there is no such run, or it does not say which it has.
    """
    for run in workspace.runs(name):
        if not (run / CARD).exists():
            settings = _settings(run)
            if settings is not None and replace(settings, precision=config.precision) == config:
                return None if settings.precision == "auto" else settings.precision
    return None


def _has_settings(run: Path, config: TrainConfig) -> bool:
    """Return whether `run` has these settings."""
    settings = _settings(run)
    if settings is not None and settings.precision == "auto":  # of before it was stored as what it meant
        settings = replace(settings, precision=config.precision)
    return settings == config


def _settings(run: Path) -> TrainConfig | None:
    """Return a run's settings.

    None if they cannot be read, for example those of another version.
    """
    try:
        return TrainConfig.from_json(read_text(run / CONFIG, _LARGEST_CONFIG), str(run / CONFIG))
    except (ModelError, UsageError, OSError, BadFile):
        return None


def save_last(run: Path, state: dict[str, Any]) -> None:
    """Write the state of a run: what `resume` restores, and its "history"."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT} | state, buffer)
    atomic_write(run / LAST, buffer.getbuffer())


def load_last(run: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_last` wrote.

    Raises:
        ModelError: last.pt is damaged, or of another version.
    """
    path = run / LAST
    try:
        with open_file(path) as file:
            open_zip(file, _MOST_TENSORS, _LARGEST_LAST)
            file.seek(0)
            state = torch.load(file, map_location=device, weights_only=True)
        format_ = state.get("format", 1)
    except Exception as error:  # damaged bytes can make the unpickler raise any error
        raise ModelError(f"{path} is damaged ({type(error).__name__}): start again with --fresh") from error
    if type(format_) is not int or format_ != FORMAT:
        versions = f"its format is {brief(format_, 20)}, this one's {FORMAT}"
        raise ModelError(f"{path} is of another version of edgecxr ({versions}): start again with --fresh")
    return dict(state)


def resume(run: Path, device: Device, parts: dict[str, Any]) -> list[dict[str, Any]]:
    """Restore the state that `save_last` wrote, and return the history.

    A new run has an empty history. The first process reads, so that the others need not see its disk.

    Args:
        run: the run's folder.
        device: device and precision.
        parts: "learner", "optimizer", "scaler" and, if the weights are averaged, the "average", whose states are
            restored.

    Raises:
        ModelError: last.pt is damaged, of another version, or holds something else.
    """
    fabric = device.fabric
    has_state = fabric.is_global_zero and (run / LAST).exists()
    state = fabric.broadcast(load_last(run, torch.device("cpu")) if has_state else None)
    if state is None:
        return []
    try:
        # `fused` depends on this device. It decides where the optimizer's state is put, so it is set before.
        groups = state["optimizer"]["param_groups"]
        for saved, own in zip(groups, parts["optimizer"].param_groups, strict=True):
            saved["fused"] = own["fused"]
        for name, part in parts.items():
            if name != "scaler" or state[name]:  # empty if the run began without one
                part.load_state_dict(state[name])
        say(f"going on with {run.name} after epoch {len(state['history'])}")
        return list(state["history"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"{run / LAST} does not fit this run ({type(error).__name__}): start again with --fresh"
        ) from error


def save_best(run: Path, model: nn.Module) -> None:
    """Write the model's weights."""
    atomic_write(run / BEST, save({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}))


def load_best(run: Path, model: TwoHeadViT) -> None:
    """Read the best weights of a run into `model`.

    Raises:
        ModelError: the file is missing, damaged, or of another architecture.
    """
    state = read_safetensors(run / BEST)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()[1:2]
        raise ModelError(f"{run / BEST} does not fit the architecture of its card: {''.join(first).strip()}") from error


def finished_card(run: Path) -> ModelCard:
    """Read the card of a finished run.

    Raises:
        ModelError: there is no run, or it is not finished.
    """
    path = run / CARD
    if not path.exists():
        raise ModelError(f"{run} holds no finished training run (no {CARD}): type the command that began it once more")
    return read_card(run)


def load_run(run: Path) -> tuple[TwoHeadViT, ModelCard]:
    """Load the model of a finished run, in eval mode.

    The hash of its weights is checked.

    Raises:
        ModelError: the run is not finished, damaged, or of another architecture.
    """
    card = finished_card(run)
    if not (run / BEST).exists():
        raise ModelError(f"{run / BEST} does not exist: train again")
    if (run / BEST).stat().st_size > _LARGEST_BEST or card.depth > MAX_DEPTH or card.size > LARGE_SIZE:
        raise ModelError(f"{run} is larger than any model that edgecxr trains: take another run")
    if card.sha256 != sha256_of(run / BEST):
        raise ModelError(f"{run / BEST} has changed since its card was written: train again or restore the file")
    state = read_safetensors(run / BEST)
    with torch.device("meta"):  # takes no memory: a card may describe a model that is larger than the file
        described = build(card, len(card.labels)).state_dict()
    shapes = [{name: tensor.shape for name, tensor in tensors.items()} for tensors in (described, state)]
    if shapes[0] != shapes[1]:
        odd = min(name for name in {**described, **state} if shapes[0].get(name) != shapes[1].get(name))
        raise ModelError(f"{run / BEST} does not fit the architecture of its card, at {brief(odd, 80)}: train again")
    model = build(card, len(card.labels))
    model.load_state_dict(state)
    return model.eval(), card


def open_checkpoint(run: Path, device: str = "cpu", threads: int | None = None) -> TorchBackend:
    """Open a finished run as a backend.

    Args:
        run: its folder.
        device: torch device.
        threads: number of CPU threads that compute, in the whole process; None leaves it to torch.

    Raises:
        ModelError: see `load_run`.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchBackend(load_run(run)[0], device)


def open_checkpoint_cuda(run: Path, threads: int | None = None) -> TorchBackend:
    """Open a finished run on the first GPU.

    Arguments and errors are those of `open_checkpoint`.

    Raises:
        ModelError: there is no GPU that torch can use.
    """
    if not torch.cuda.is_available():
        raise ModelError(
            f"{run} cannot run on a GPU: torch {torch.__version__} finds none (`edgecxr doctor` says more)"
        )
    return open_checkpoint(run, "cuda", threads)

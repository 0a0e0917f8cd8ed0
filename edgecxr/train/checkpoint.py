"""The files of a training run: opened for a new or interrupted run, written atomically, read without pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors.torch import save
from torch import nn
from torch.amp.grad_scaler import GradScaler

from edgecxr.bundle.bundle import sha256_of
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import ModelError, UsageError, brief
from edgecxr.models.vit import TwoHeadViT, build
from edgecxr.models.weights import read_safetensors
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.folders import CARD
from edgecxr.storage.locks import locked
from edgecxr.terminal import say
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.train.config import TrainConfig
from edgecxr.train.device import Device
from edgecxr.workspace import Workspace

FORMAT = 2
"""Of last.pt: 1 was the first, which had no number."""

CONFIG = "config.json"
LAST = "last.pt"
BEST = "best.safetensors"
LOCK = "lock"


@contextmanager
def open_run(workspace: Workspace, name: str, config: TrainConfig, fresh: bool, fabric: Fabric) -> Iterator[Path]:
    """Give the folder of a run, which no other command can open until the block ends.

    An unfinished run (one without a card) of the same name and the same settings is continued, unless `fresh`. Of
    several processes the first one chooses for all.

    Raises:
        UsageError: another process is at work on that run, the workspace cannot be written, or this process has other
            settings, data or teacher than the first.
    """
    with ExitStack() as held:
        if not fabric.is_global_zero:
            nothing: tuple[str, dict[str, Any]] = ("", {})
            chosen, theirs = fabric.broadcast(nothing)
            _refuse_others(config.to_dict(), theirs)
            yield workspace.root / chosen
            return
        with workspace.naming(name):
            found = None if fresh else _unfinished(workspace, name, config, held)
            run = found or workspace.new_run(name)
            if not found:
                _hold(run, held)
                if run.name != name:
                    say(f"{name} is there already, finished or with other settings: this is {run.name}")
            if not (run / CONFIG).exists():
                atomic_write(run / CONFIG, json.dumps(config.to_dict(), indent=1))
        fabric.broadcast((run.name, config.to_dict()))
        yield run


def _refuse_others(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Refuse to train together on different data, such as two machines that prepared them on their own."""
    wrong = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if wrong:
        raise UsageError(
            f"this process differs from the first one in {', '.join(wrong)}: give all machines the same command, data "
            "set and teacher"
        )


def _unfinished(workspace: Workspace, name: str, config: TrainConfig, held: ExitStack) -> Path | None:
    for run in workspace.runs(name):
        if not (run / CARD).exists() and (_has_settings(run, config) or _is_empty(run)):
            _hold(run, held)
            if not (run / CARD).exists():
                return run
            held.close()  # finished just now
    return None


def _hold(run: Path, held: ExitStack) -> None:
    doing = f"is training {run} with the same settings: wait for it, or begin another run with --fresh"
    with writing(run):
        held.enter_context(locked(run / LOCK, doing))


def _is_empty(run: Path) -> bool:
    """Whether a kill left nothing of `run` but its folder."""
    return all(entry.name in (LOCK, f".{CONFIG}.tmp") for entry in run.iterdir())


def _has_settings(run: Path, config: TrainConfig) -> bool:
    """Whether `run` has these settings; one whose settings cannot be read, of another version perhaps, has not."""
    try:
        return TrainConfig.from_json((run / CONFIG).read_text(encoding="utf-8"), str(run / CONFIG)) == config
    except (ModelError, UsageError, OSError, UnicodeDecodeError):
        return False


def save_last(run: Path, state: dict[str, Any]) -> None:
    """Write what a resumed run needs: "learner", "optimizer", "scaler" and "history"."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT} | state, buffer)
    atomic_write(run / LAST, buffer.getbuffer())


def load_last(run: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_last` wrote.

    Raises:
        ModelError: damaged, or of another version.
    """
    path = run / LAST
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        format_ = state.get("format", 1)
    except Exception as error:  # damaged bytes make the unpickler raise whatever they happen to spell
        raise ModelError(f"{path} is damaged ({type(error).__name__}): start again with --fresh") from error
    if format_ != FORMAT:
        versions = f"its format is {brief(format_, 20)}, this one's {FORMAT}"
        raise ModelError(f"{path} is of another version of edgecxr ({versions}): start again with --fresh")
    return dict(state)


def resume(
    run: Path, device: Device, learner: nn.Module, optimizer: torch.optim.Optimizer, scaler: GradScaler
) -> list[dict[str, Any]]:
    """Bring what learns back to where `save_last` left it, and return the history; a new run has an empty one.

    The first process reads, so that the others need not see its disk.

    Raises:
        ModelError: last.pt is damaged, of another version, or holds something else.
    """
    fabric = device.fabric
    found = fabric.is_global_zero and (run / LAST).exists()
    state = fabric.broadcast(load_last(run, torch.device("cpu")) if found else None)
    if state is None:
        return []
    try:
        learner.load_state_dict(state["learner"])
        # How a step is computed is this device's own matter.
        fused = [group["fused"] for group in optimizer.param_groups]
        optimizer.load_state_dict(state["optimizer"])
        for group, value in zip(optimizer.param_groups, fused, strict=True):
            group["fused"] = value
        if state["scaler"]:  # empty where the run began without one
            scaler.load_state_dict(state["scaler"])
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
        ModelError: missing, damaged, or of another architecture.
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
    """Load the model of a finished run, in eval mode, after checking its hash.

    Raises:
        ModelError: not finished, damaged, or of another architecture.
    """
    card = finished_card(run)
    if not (run / BEST).exists():
        raise ModelError(f"{run / BEST} does not exist: train again")
    if card.sha256 != sha256_of(run / BEST):
        raise ModelError(f"{run / BEST} has changed since its card was written: train again or restore the file")
    model = build(card, len(card.labels))
    load_best(run, model)
    return model.eval(), card


def open_checkpoint(run: Path, device: str = "cpu", threads: int | None = None) -> TorchBackend:
    """Open a finished run as a backend; raises what `load_run` raises.

    Args:
        run: its folder.
        device: of torch.
        threads: of the CPU that compute, in the whole process; None leaves it to torch.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    return TorchBackend(load_run(run)[0], device)


def open_checkpoint_cuda(run: Path, threads: int | None = None) -> TorchBackend:
    """Open a finished run on the first GPU; arguments and errors are those of `open_checkpoint`.

    Raises:
        ModelError: there is no GPU that torch can use.
    """
    if not torch.cuda.is_available():
        raise ModelError(
            f"{run} cannot run on a GPU: torch {torch.__version__} finds none (`edgecxr doctor` says more)"
        )
    return open_checkpoint(run, "cuda", threads)

"""One training of `evidence.py`, in a process of its own: trains or goes on, scores the test split, writes the record.

    python benchmarks/evidence_work.py SPEC.json
    python benchmarks/evidence_work.py prepare WORD...

The runner starts it from the commit that the run belongs to. SPEC.json names the run, the folder of the plan and the
folder of the records; the second line is `edgecxr prepare WORD...`. It ends when its standard input does, that is, with
its parent, however that ends.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_plan import STARTS
from ratios import machine
from safetensors.torch import load, save

from edgecxr import NOTICE
from edgecxr.bundle.epoch_history import kept_epoch, read_history
from edgecxr.data.prepared import Prepared
from edgecxr.engines.backend import Outputs
from edgecxr.errors import CheckFailed, EdgeCxrError, InputError, ModelError
from edgecxr.evaluate.comparison import aurocs
from edgecxr.evaluate.scores import predict
from edgecxr.machine.cores import lacks_bfloat16
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.folders import CARD
from edgecxr.terminal import say
from edgecxr.train import checkpoint, run_training
from edgecxr.train.checkpoint_backend import TorchBackend
from edgecxr.train.config import TrainConfig, patch_of
from edgecxr.train.device import Device
from edgecxr.train.finish import finish
from edgecxr.vocabulary import ABNORMAL
from edgecxr.workspace import Workspace

SPLIT = "test"


def main() -> int:
    """Make the run; return the exit code."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if sys.argv[1] == "prepare":
        from edgecxr.cli import main as command_line

        sys.argv[0] = "edgecxr"
        command_line()
        return 0
    try:
        work(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
        return 0
    except EdgeCxrError as error:
        say(f"error: {error}")
        return error.exit_code


def _end_with_parent() -> None:
    os.read(0, 1)  # not sys.stdin, whose lock a thread may not hold when Python ends
    os._exit(1)


def work(spec: dict[str, Any]) -> None:
    """Train, or go on, and write the record; a run that diverges has a record that says so."""
    torch.set_num_threads(spec["threads"])
    folder, records = Path(spec["folder"]), Path(spec["records"])
    prepared = Prepared.open(folder / "data" / spec["data"])
    if prepared.hash != spec["data_hash"]:
        raise InputError(f"{prepared.path} is not the data set that {spec['id']} began with", "dataset")
    teacher = _taught(folder, records, spec["teacher"]) if spec["teacher"] else None
    named = spec["spec"]["settings"].get("start")
    start = None if named in STARTS else _taught(folder, records, named)
    workspace = Workspace(folder / "work" / spec["id"])
    undistilled = spec["spec"]["settings"].get("undistilled")
    weighed = _taught(folder, records, undistilled) if undistilled else None
    begun = {
        "run": spec["id"],
        "spec": spec["spec"],
        "commit": spec["commit"],
        "data": prepared.summary(),
        "teacher": teacher and {"run": spec["teacher"], "sha256": checkpoint.finished_card(teacher).sha256},
        "start": start and {"run": named, "sha256": checkpoint.finished_card(start).sha256},
        "undistilled": weighed and {"run": undistilled, "sha256": checkpoint.finished_card(weighed).sha256},
        "products": products(spec["spec"]["settings"].get("precision", "auto")),
    }
    try:
        run = next(iter(workspace.finished_runs()), None) or _train(spec, workspace, prepared, teacher, start, weighed)
    except CheckFailed as error:
        _write(records, spec, begun | {"status": "diverged", "message": str(error)})
        return
    trained = checkpoint.finished_card(run).training
    if (trained["data_hash"], trained["teacher_sha256"], trained["init_sha256"]) != (
        prepared.hash,
        teacher and begun["teacher"]["sha256"],
        start and begun["start"]["sha256"],
    ):
        raise ModelError(f"{run} was trained on other data, by another teacher or start: remove {workspace.root}")
    if spec["spec"]["keep_weights"]:
        _halve(run, prepared, records / f"{spec['id']}.safetensors")
    model, card = checkpoint.load_run(run)
    outputs = predict(TorchBackend(model), prepared, prepared.rows(SPLIT), card.size)
    atomic_write(records / f"{spec['id']}.npz", _packed(outputs))
    history = read_history(run)
    scored = aurocs(prepared, SPLIT, outputs.logits, np.ones((1, len(prepared.rows(SPLIT))), np.float32))
    test: dict[str, Any] = {task: _plain(areas.macro.value) for task, areas in scored.items()}
    test["labels"] = dict(zip(prepared.labels, map(_plain, scored["findings"].labels.tolist()), strict=True))
    weights = {"sha256": card.sha256} | ({"card": json.loads(card.to_json())} if spec["spec"]["keep_weights"] else {})
    if trained.get("trust"):
        begun["trust"] = dict(zip((*prepared.labels, ABNORMAL), trained["trust"], strict=True))
    best = int(kept_epoch(history)["epoch"])
    done = {"status": "done", "weights": weights, "history": history, SPLIT: test, "best_epoch": best}
    _write(records, spec, begun | done | {"minutes": round(sum(row["seconds"] for row in history) / 60, 1)})


def _write(records: Path, spec: dict[str, Any], record: dict[str, Any]) -> None:
    record = {"benchmark": "evidence"} | record | {"machine": machine(), "notice": NOTICE}
    atomic_write(records / f"{spec['id']}.json", json.dumps(record, indent=1) + "\n")


def _train(
    spec: dict[str, Any],
    workspace: Workspace,
    prepared: Prepared,
    teacher: Path | None,
    start: Path | None,
    undistilled: Path | None,
) -> Path:
    typed = dict(spec["spec"]["settings"]) | {"res": spec["spec"]["res"], "seed": spec["spec"]["seed"]}
    named = typed.pop("start", None)
    typed.pop("undistilled", None)
    typed["init"] = str(start) if start else named
    method = spec["spec"]["method"]
    if method == "teacher":
        tokens = typed.pop("tokens", None)
        typed["patch"] = patch_of(typed["res"], tokens) if tokens else None
        return run_training.train(workspace, prepared, typed, "cpu")
    return run_training.distill(
        workspace,
        prepared,
        typed | {"method": method},
        str(teacher) if teacher else None,
        "cpu",
        undistilled=str(undistilled) if undistilled else None,
    )


def products(precision: str) -> str:
    """Return what multiplies a run's matrices on this CPU, for its record."""
    if precision != "bf16":
        return "float32"
    return "bfloat16 by float32 instructions" if lacks_bfloat16() else "bfloat16"


def _taught(folder: Path, records: Path, name: str) -> Path:
    """Return a run that others need; on another machine than it was trained on, it is made of what lies by its record.

    Raises:
        ModelError: it is not the one of the record.
    """
    record = json.loads((records / f"{name}.json").read_text(encoding="utf-8"))
    sha256 = record["weights"]["sha256"]
    run = next(iter(Workspace(folder / "work" / name).finished_runs()), None)
    if run is None:
        run = folder / "taught" / sha256[:16]
    if not (run / CARD).exists():
        halves = load((records / f"{name}.safetensors").read_bytes())
        atomic_write(run / checkpoint.BEST, save({key: _whole(value) for key, value in halves.items()}))
        atomic_write(run / checkpoint.CONFIG, json.dumps(record["weights"]["card"]["training"], indent=1))
        atomic_write(run / CARD, json.dumps(record["weights"]["card"], indent=1))
    if checkpoint.load_run(run)[1].sha256 != sha256:
        raise ModelError(f"{run} is not the run {name} of {records}: give the runs that need it another plan")
    return run


def _halve(run: Path, prepared: Prepared, path: Path) -> None:
    """Round a run's weights to half precision, write them to `path`, and the run's card anew: it is what they are."""
    config = TrainConfig.from_json((run / checkpoint.CONFIG).read_text(encoding="utf-8"), str(run))
    state = load((run / checkpoint.BEST).read_bytes())
    halves = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    if not all(value.isfinite().all() for value in halves.values()):
        raise CheckFailed(f"weights of {run} are beyond half precision")
    atomic_write(path, save(halves))
    atomic_write(run / checkpoint.BEST, save({key: _whole(value) for key, value in halves.items()}))
    ending = checkpoint.finished_card(run).ended
    finish(run, config, prepared, Device.choose("cpu", config.precision), ending)


def _whole(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _packed(outputs: Outputs) -> bytes:
    """Return logits, and of attention the patch that gets most: what AUROCs and hit rates are made from."""
    file = io.BytesIO()
    strongest = outputs.attention.reshape(len(outputs.attention), -1).argmax(axis=1).astype(np.uint16)
    grid = np.uint8(outputs.attention.shape[1])
    np.savez_compressed(file, findings=outputs.findings, abnormal=outputs.abnormal, strongest=strongest, grid=grid)
    return file.getvalue()


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 5)


if __name__ == "__main__":
    sys.exit(main())

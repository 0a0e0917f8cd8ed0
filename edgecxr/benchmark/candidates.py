"""Candidates of a benchmark: every model, precision and engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr import registry, resolve
from edgecxr.bundle.bundle import SUMS, Bundle
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import ModelError, UsageError
from edgecxr.vocabulary import PRECISIONS
from edgecxr.workspace import Workspace

ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "torch-cuda")
"""Backends that compute on a GPU."""

ROLES = ("teacher", "student", "peer")
"""Roles of models; a peer is a third-party model for comparison."""

OPENER = "edgecxr.engines.backend:open_backend"
WEIGHTS = "best.safetensors"


@dataclass(frozen=True)
class Model:
    """A model, independent of the engine that runs it.

    Attributes:
        name: its name, unique in a benchmark.
        role: one of `ROLES`.
        shape: (channels, S, S) of an image.
        weights: "trained", or "random" if the model was not trained.
        labels: its findings.
        facts: further entries about it in a record.
        sha256: of the weights.
        teacher_sha256: of the weights of its teacher; None without one.
        data: the training data, as described by its card.
    """

    name: str
    role: str
    shape: tuple[int, int, int]
    weights: str
    labels: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    teacher_sha256: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Candidate:
    """A model at one precision on one engine.

    Attributes:
        model: the model.
        backend: name of the engine.
        precision: "fp32", "fp16" or "int8".
        opener: "module:function" that loads it, see `edgecxr.benchmark.model_process.Worker`.
        arguments: of that function.
        file: the model file; None if the model is built in memory.
        gpu: whether it computes on a GPU.
    """

    model: Model
    backend: str
    precision: str
    opener: str
    arguments: dict[str, Any]
    file: Path | None
    gpu: bool = False

    @property
    def id(self) -> str:
        """The id of its row in a record."""
        return f"{self.model.name}/{self.backend}/{self.precision}"

    @property
    def group(self) -> tuple[str, str]:
        """Engine and precision; candidates are compared within a group."""
        return self.backend, self.precision


def find(
    workspace: Workspace, names: Sequence[str], backends: Sequence[str], precisions: Sequence[str], threads: int
) -> tuple[list[Candidate], dict[str, str]]:
    """Find the candidates to measure.

    Args:
        workspace: with runs and bundles.
        names: runs and bundles, by name or path; empty means all of the workspace.
        backends: engines; empty means all.
        precisions: of bundles' files; empty means all.
        threads: CPU threads per engine.

    Returns:
        The candidates, sorted by engine, then precision, then role; and the unusable runs and bundles of the workspace,
        each with the reason.

    Raises:
        UsageError: unknown engine or precision.
        ModelError: nothing to measure, or a model in `names` is missing or damaged.
    """
    for name in backends:
        registry.check(registry.BACKENDS, name, "backend")
    if unknown := [precision for precision in precisions if precision not in PRECISIONS]:
        raise UsageError(f"--precision {unknown[0]}: there are {', '.join(PRECISIONS)}")
    by_id: dict[str, Candidate] = {}
    naming = _Naming()
    unusable: dict[str, str] = {}
    for folder in [path for name in names for path in resolve.runs_and_bundles(workspace, name)] or _all(workspace):
        try:
            for candidate in _of(folder, naming, threads):
                by_id.setdefault(candidate.id, candidate)
        except ModelError as error:
            if names:
                raise
            unusable[folder.name] = str(error)
    chosen = [
        candidate
        for candidate in by_id.values()
        if (not backends or candidate.backend in backends) and (not precisions or candidate.precision in precisions)
    ]
    if not chosen:
        filters = ", ".join([*backends, *precisions])
        if by_id and filters:
            have = ", ".join(
                dict.fromkeys(f"{candidate.model.name} {candidate.precision}" for candidate in by_id.values())
            )
            raise ModelError(f"no model here can run with {filters}: there are {have}")
        missing = "no bundle and no finished run"
        damaged = "".join(f"; {why}" for why in unusable.values())
        raise ModelError(
            f"{missing} in {workspace.root}: make runs, for torch, with `edgecxr train` and `edgecxr distill`, and "
            f"bundles, for other engines, with `edgecxr export`{damaged}"
        )
    return in_order(chosen), unusable


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates sorted by engine, then precision, then role."""
    engines = list(registry.BACKENDS)
    return sorted(
        candidates,
        key=lambda candidate: (
            engines.index(candidate.backend), PRECISIONS.index(candidate.precision), ROLES.index(candidate.model.role)
        ),
    )  # fmt: skip


def _all(workspace: Workspace) -> list[Path]:
    bundles = sorted(path.parent for path in (workspace.root / "export").glob(f"[!.]*/{SUMS}"))
    return [*bundles, *sorted(workspace.finished_runs())]


class _Naming:
    """A source of unique model names.

    A run and its bundle share a name. Models with different weights or different files get different names.
    """

    def __init__(self) -> None:
        self._weights: dict[str, str] = {}
        self._files: dict[tuple[str, str], str] = {}

    def name(self, card: ModelCard, files: dict[str, str]) -> str:
        """Return a unique name for a model.

        Args:
            card: of the model.
            files: precision -> hash of the model file.
        """
        number, name = 1, card.name
        while self._weights.setdefault(name, card.sha256) != card.sha256 or any(
            self._files.setdefault((name, precision), sha256) != sha256 for precision, sha256 in files.items()
        ):
            number += 1
            name = f"{card.name} #{number}"
        return name


def _of(folder: Path, naming: _Naming, threads: int) -> Iterator[Candidate]:
    """Yield the candidates of a run or bundle."""
    card = read_card(folder)
    if not card.artefacts:
        model = _model(naming.name(card, {}), card)
        for backend in registry.OF_CHECKPOINTS:
            arguments = {"name": backend, "path": folder, "threads": threads}
            yield Candidate(model, backend, "fp32", OPENER, arguments, folder / WEIGHTS, backend in ON_GPU)
        return
    bundle = Bundle.open(folder)
    files = {str(facts["precision"]): bundle.artefact(str(facts["precision"])) for facts in card.artefacts.values()}
    sums = {precision: bundle.sums[file.name] for precision, file in files.items()}
    model = _model(naming.name(card, sums), card)
    for precision, file in files.items():
        for backend in registry.BACKENDS:
            if backend not in registry.OF_CHECKPOINTS:
                # A process of its own opens the file, and takes no other content than was checked here.
                arguments = {"name": backend, "path": file, "sha256": sums[precision]}
                arguments |= {} if backend == "tensorrt" else {"threads": threads}
                yield Candidate(model, backend, precision, OPENER, arguments, file, backend in ON_GPU)


def _model(name: str, card: ModelCard) -> Model:
    facts = {key: getattr(card, key) for key in ("method", "arch", "depth", "tokens", "patch", "input", "teacher")}
    return Model(
        name,
        "teacher" if card.method == "teacher" else "student",
        (1, card.size, card.size),
        "trained" if card.data else "random",  # only trained models have data on their cards
        card.labels,
        facts
        | {"data": card.data.get("name"), "data_hash": card.data.get("hash"), "epochs": card.training.get("epochs")},
        card.sha256,
        card.training.get("teacher_sha256"),
        card.data,
    )

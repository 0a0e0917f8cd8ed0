"""What `edgecxr benchmark` measures: every model at every precision on every engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr import registry, resolve
from edgecxr.bundle.bundle import SUMS, Bundle, sha256_of
from edgecxr.bundle.card import ModelCard, read_card
from edgecxr.errors import ModelError, UsageError
from edgecxr.vocabulary import PRECISIONS
from edgecxr.workspace import Workspace

ON_GPU = ("onnxruntime-cuda", "onnxruntime-tensorrt", "tensorrt", "torch-cuda")
"""Backends whose arithmetic runs on a GPU."""

ROLES = ("teacher", "student", "peer")
"""Of models; a peer is one of others, for comparison."""

OPENER = "edgecxr.engines.backend:open_backend"
WEIGHTS = "best.safetensors"


@dataclass(frozen=True)
class Model:
    """A model, whatever runs it.

    Attributes:
        name: unique in a benchmark.
        role: one of `ROLES`.
        shape: (channels, S, S) of an image.
        weights: "trained", or "random" where the model has learnt nothing.
        labels: its findings.
        facts: what a record says of it besides.
        sha256: of the weights.
        teacher_sha256: of the weights of its teacher; None where it had none.
        data: what its card says of the data that it has learnt from.
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
        opener: "module:function" that loads it, as `edgecxr.benchmark.model_process.Worker` takes it.
        arguments: of that function.
        file: the model file; None where a model is made in memory.
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
        """Its name in a record."""
        return f"{self.model.name}/{self.backend}/{self.precision}"

    @property
    def group(self) -> tuple[str, str]:
        """What it is compared within: engine and precision."""
        return self.backend, self.precision


def find(
    workspace: Workspace, names: Sequence[str], backends: Sequence[str], precisions: Sequence[str], threads: int
) -> tuple[list[Candidate], dict[str, str]]:
    """Find what there is to measure.

    Args:
        workspace: where runs and bundles lie.
        names: runs and bundles, by name or path; none of them takes all of the workspace.
        backends: engines; none of them takes all.
        precisions: of bundles' files; none of them takes all that there are.
        threads: of the CPU, of each engine.

    Returns:
        The candidates, by engine, then precision, then model; and the runs and bundles of the workspace that cannot be
        used -> why.

    Raises:
        UsageError: no such engine or precision.
        ModelError: there is nothing to measure, or a model that was named is missing or damaged.
    """
    for name in backends:
        registry.check(registry.BACKENDS, name, "backend")
    if wrong := [precision for precision in precisions if precision not in PRECISIONS]:
        raise UsageError(f"--precision {wrong[0]}: there are {', '.join(PRECISIONS)}")
    found: dict[str, Candidate] = {}
    naming = _Naming()
    unusable: dict[str, str] = {}
    for folder in [path for name in names for path in resolve.runs_and_bundles(workspace, name)] or _all(workspace):
        try:
            for one in _of(folder, naming, threads):
                found.setdefault(one.id, one)
        except ModelError as error:
            if names:
                raise
            unusable[folder.name] = str(error)
    chosen = [
        one
        for one in found.values()
        if (not backends or one.backend in backends) and (not precisions or one.precision in precisions)
    ]
    if not chosen:
        asked = ", ".join([*backends, *precisions])
        if found and asked:
            have = ", ".join(dict.fromkeys(f"{one.model.name} {one.precision}" for one in found.values()))
            raise ModelError(f"none of the models here goes with {asked}: there are {have}")
        what = "no bundle and no finished run"
        damaged = "".join(f"; {why}" for why in unusable.values())
        raise ModelError(
            f"{what} in {workspace.root}: make runs, for torch, with `edgecxr train` and `edgecxr distill`, and "
            f"bundles, for other engines, with `edgecxr export`{damaged}"
        )
    return in_order(chosen), unusable


def in_order(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return candidates by engine, then precision, then role."""
    engines = list(registry.BACKENDS)
    return sorted(
        candidates,
        key=lambda one: (
            engines.index(one.backend), PRECISIONS.index(one.precision), ROLES.index(one.model.role)
        ),
    )  # fmt: skip


def _all(workspace: Workspace) -> list[Path]:
    bundles = sorted(path.parent for path in (workspace.root / "export").glob(f"[!.]*/{SUMS}"))
    return [*bundles, *sorted(workspace.finished_runs())]


class _Naming:
    """Gives models names that are unique: a run and its bundle share one, other weights or other files do not."""

    def __init__(self) -> None:
        self._weights: dict[str, str] = {}
        self._files: dict[tuple[str, str], str] = {}

    def name(self, card: ModelCard, files: dict[str, str]) -> str:
        """Return a name for what has this card and these files: precision -> hash."""
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
    model = _model(naming.name(card, {precision: sha256_of(file) for precision, file in files.items()}), card)
    for precision, file in files.items():
        for backend in registry.BACKENDS:
            if backend not in registry.OF_CHECKPOINTS:
                arguments = {"name": backend, "path": file} | ({} if backend == "tensorrt" else {"threads": threads})
                yield Candidate(model, backend, precision, OPENER, arguments, file, backend in ON_GPU)


def _model(name: str, card: ModelCard) -> Model:
    facts = {key: getattr(card, key) for key in ("method", "arch", "depth", "tokens", "patch", "input", "teacher")}
    return Model(
        name,
        "teacher" if card.method == "teacher" else "student",
        (1, card.size, card.size),
        "trained" if card.data else "random",  # whatever was trained says on what
        card.labels,
        facts
        | {"data": card.data.get("name"), "data_hash": card.data.get("hash"), "epochs": card.training.get("epochs")},
        card.sha256,
        card.training.get("teacher_sha256"),
        card.data,
    )

"""The plan of `evidence.py`: a TOML file -> the runs it asks for, in their order. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgecxr.errors import UsageError
from edgecxr.films.resize import INPUT_SIZES, SIZES
from edgecxr.registry import METHODS
from edgecxr.storage.settings import read_toml
from edgecxr.vocabulary import STEMS

STARTS = (None, "random", "teacher", "pretrained")
"""Values of `start`, besides the run whose weights are the start; None: the default of the commands.

A run is named by its id, or by its name for that of the same seed.
"""

_OF_A_RUN = ("name", "data", "method", "res", "teacher", "seeds", "turn", "against")
_SETTINGS = {
    "start": str, "stem": str, "arch": str, "depth": int, "tokens": int, "epochs": int, "batch": int, "lr": float,
    "warmup": float, "weight_decay": float, "clip": float, "augment": float, "alpha": float, "beta": float,
    "gamma": float, "temperature": float, "trust": str, "undistilled": str, "labelled": int, "precision": str,
}  # fmt: skip


_WITH_WEIGHTS = ("teacher", "undistilled", "start")  # keys that may name a run whose weights are needed


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: what it shares with the runs that differ from it by their seed, such as "mlcak".
        seed: of the initial weights, the order of films and the augmentation.
        data: name of the prepared data set.
        method: "teacher", or a distillation method.
        res: side of the image in pixels.
        teacher: id of the run that teaches it; None where none does.
        turn: runs of a lower turn come first.
        against: name of the runs that it is compared with; None: it is not.
        keep_weights: whether others need it: its weights are kept beside its record, in half precision, so that
            it can do so on any machine.
        settings: the other settings, by the names of the plan's file.
    """

    name: str
    seed: int
    data: str
    method: str
    res: int
    teacher: str | None
    turn: int
    against: str | None
    keep_weights: bool
    settings: dict[str, Any]

    @property
    def id(self) -> str:
        """Name and seed, such as "mlcak-s0"."""
        return f"{self.name}-s{self.seed}"

    @property
    def needs(self) -> list[str]:
        """Ids of the runs whose weights it needs: teacher, start, and whom its teacher's voice is weighed against."""
        named = (self.teacher, self.start, self.settings.get("undistilled"))
        return [name for name in named if name is not None]

    @property
    def start(self) -> str | None:
        """Id of the run whose weights it starts from; None if it starts from none."""
        start: str | None = self.settings.get("start")
        return None if start in STARTS else start

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the result, for records; the same keys at every version of the runner."""
        keys = ("name", "seed", "data", "method", "res", "teacher", "keep_weights")
        return {key: getattr(self, key) for key in keys} | {"settings": self.settings}


@dataclass(frozen=True)
class DataSet:
    """A data set of the plan.

    Attributes:
        name: what it is called in the workspace.
        prepare: arguments of `edgecxr prepare` that make it; empty where somebody else prepares it.
        hash: that it must have; None: whichever the first run saw.
    """

    name: str
    prepare: tuple[str, ...]
    hash: str | None


@dataclass(frozen=True)
class Plan:
    """A protocol's runs, those that come first first: by turn, then seed by seed.

    Attributes:
        name: that of its file.
        data: name -> data set.
        runs: in their order.
        commit: whose code trains them, so that all machines take the same; None: that of the first start.
        fewest_positives: test films with and without it that a finding needs to be told of and to count in the macro.
    """

    name: str
    data: dict[str, DataSet]
    runs: tuple[Run, ...]
    commit: str | None = None
    fewest_positives: int = 1

    def named(self, name: str) -> list[Run]:
        """Return the runs of a name, one for each seed."""
        return [run for run in self.runs if run.name == name]


def read_plan(file: Path) -> Plan:
    """Read a plan.

    Raises:
        UsageError: missing, or not a plan; says what is wrong.
    """
    try:
        return _plan(file.stem, read_toml(file))
    except (KeyError, TypeError, ValueError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"{file} is not a plan of trainings: {problem}") from error


def _plan(name: str, values: dict[str, Any]) -> Plan:
    _no_others(values, ("commit", "fewest_positives", "data", "settings", "run"), "the file")
    common = values.get("settings", {})
    for key, kind in (("settings", dict), ("data", dict), ("run", list)):
        _typed(key, values.get(key, kind()), kind)
    if not values["run"]:
        raise ValueError("there is no [[run]]")
    _no_others(common, tuple(_SETTINGS), "[settings]")
    data = {}
    for key, entry in values["data"].items():
        _no_others(_typed(f"data.{key}", entry, dict), ("prepare", "hash"), f"[data.{key}]")
        data[key] = DataSet(key, tuple(map(str, entry.get("prepare", ()))), entry.get("hash"))
    placed: list[tuple[int, int, int, Run]] = []
    names = {entry.get("name") for entry in values["run"] if isinstance(entry, dict)} - set(STARTS)
    for place, entry in enumerate(values["run"]):
        _typed("a [[run]]", entry, dict)
        if [other["name"] for other in values["run"]].count(entry["name"]) > 1:
            raise ValueError(f"there are two [[run]] {entry['name']}: give each kind its own name")
        _no_others(entry, (*_OF_A_RUN, *_SETTINGS), f"[[run]] {entry['name']}")
        settings = common | {key: value for key, value in entry.items() if key in _SETTINGS}
        for key, value in settings.items():
            settings[key] = _typed(f"{key} of {entry['name']}", value, _SETTINGS[key])
        seeds = _typed(f"seeds of {entry['name']}", entry.get("seeds", [0]), list)
        if not seeds:
            raise ValueError(f"{entry['name']} has no seeds")
        for seed in seeds:
            run = Run(
                name=_typed("a name", entry["name"], str),
                seed=_typed(f"a seed of {entry['name']}", seed, int),
                data=entry["data"],
                method=entry["method"],
                res=_typed(f"res of {entry['name']}", entry["res"], int),
                teacher=entry.get("teacher"),
                turn=_typed(f"turn of {entry['name']}", entry.get("turn", 1), int),
                against=entry.get("against"),
                keep_weights=any(
                    f"{entry['name']}-s{seed}" == _with_seed((common | other).get(key), other_seed, names)
                    for other in values["run"]
                    for other_seed in other.get("seeds", [0])
                    for key in _WITH_WEIGHTS
                ),
                settings=settings
                | ({"start": _with_seed(settings["start"], seed, names)} if "start" in settings else {}),
            )
            placed.append((run.turn, seed, place, run))
    runs = tuple(run for *_, run in sorted(placed, key=lambda entry: entry[:3]))
    _check(data, runs)
    commit = _typed("commit", values["commit"], str) if "commit" in values else None
    return Plan(name, data, runs, commit, _typed("fewest_positives", values.get("fewest_positives", 1), int))


def _with_seed(run: Any, seed: int, names: set[Any]) -> Any:
    """Return a run's id: one that is named without a seed has the same."""
    return f"{run}-s{seed}" if run in names else run


def _check(data: dict[str, DataSet], runs: tuple[Run, ...]) -> None:
    ids = [run.id for run in runs]
    for run in runs:
        for field, value, allowed in (
            ("method", run.method, ("teacher", *METHODS)),
            ("res", run.res, INPUT_SIZES if run.method == "teacher" else SIZES),
            ("tokens", run.settings.get("tokens", 49), (196, 49, 16)),
            ("stem", run.settings.get("stem", "patch"), STEMS),
            ("start", run.settings.get("start"), (*STARTS, *(name for name in ids if name != run.id))),
            ("arch", run.settings.get("arch", "tiny"), ("tiny", "small", "base")),
            ("precision", run.settings.get("precision", "auto"), ("auto", "fp32", "bf16", "fp16")),
        ):
            if value not in allowed:
                raise ValueError(
                    f"{field} of {run.name} is {value!r}, none of {', '.join(str(word) for word in allowed if word)}"
                )
        if ids.count(run.id) > 1:
            raise ValueError(f"there are two runs {run.id}")
        if not run.name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"{run.name!r} cannot be the name of a run: use letters, digits, '.', '-', '_'")
        if run.data not in data:
            raise ValueError(f"{run.name} is of data {run.data!r}, which no [data.{run.data}] describes")
        if run.teacher is not None and run.teacher not in ids:
            raise ValueError(f"the teacher of {run.name} is {run.teacher!r}, which is none of {', '.join(ids)}")
        if (run.settings.get("trust") == "val") != ("undistilled" in run.settings):
            raise ValueError(f'{run.name} has only one of trust = "val" and undistilled: give both, or none')
        undistilled = next((other for other in runs if other.id == run.settings.get("undistilled")), None)
        if "undistilled" in run.settings and (undistilled is None or undistilled.method != "none"):
            raise ValueError(f"undistilled of {run.name} is {run.settings['undistilled']!r}, no run of method none")
        teacher = next((other for other in runs if other.id == run.teacher), None)
        if teacher and (teacher.data != run.data or teacher.method != "teacher"):
            raise ValueError(f"the teacher of {run.name} is no teacher on {run.data}")
    _check_comparisons(runs)
    _check_order(runs)


def _check_comparisons(runs: tuple[Run, ...]) -> None:
    """Refuse comparisons with nothing, and of several teachers with several students."""
    for run in runs:
        others = {other.name for other in runs if other.data == run.data} - {run.name}
        if run.against is not None and run.against not in others:
            known_names = ", ".join(sorted(others)) or "no other run"
            raise ValueError(f"{run.name} is against {run.against!r}; on {run.data} there is {known_names}")
        ours, theirs = ([other for other in runs if other.name == name] for name in (run.name, run.against))
        unlike = theirs and (run.method == "teacher") != (theirs[0].method == "teacher")
        if unlike and min(len(ours), len(theirs)) > 1:
            raise ValueError(f"{run.name} is against {run.against}, both with several seeds: compare one teacher")


def _check_order(runs: tuple[Run, ...]) -> None:
    """Refuse runs that wait for each other."""
    needs = {run.id: set(run.needs) for run in runs}
    while able := [name for name, needed in needs.items() if not needed & needs.keys()]:
        for name in able:
            del needs[name]
    if needs:
        raise ValueError(f"{', '.join(needs)} wait for each other's weights")


def _no_others(values: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    others = sorted(set(values) - set(allowed))
    if others:
        raise ValueError(f"{where} has {', '.join(others)}; there are {', '.join(allowed)}")


def _typed(field: str, value: Any, kind: type) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{field} is {value!r}, not of type {kind.__name__}")
    return value

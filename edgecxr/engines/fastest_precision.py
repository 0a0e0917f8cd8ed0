"""Choose the faster one of a bundle's FP32 and INT8 models.

INT8 is faster where a CPU has instructions for it, and slower where it has none; which engine uses them is measured
rather than guessed. The choice is kept, since results must not change from run to run.
"""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgecxr import __version__, extras
from edgecxr.bundle.bundle import Bundle
from edgecxr.engines.backend import Backend, open_backend
from edgecxr.errors import UsageError, brief
from edgecxr.machine.cores import cpu
from edgecxr.storage.atomic import atomic_write
from edgecxr.storage.json_values import read_json
from edgecxr.storage.private import state_folder
from edgecxr.storage.reading import BadFile
from edgecxr.terminal import say
from edgecxr.vocabulary import AUTO, PRECISIONS

CHOICES = ("fp32", "int8")

LARGEST_SHARE = 0.95
"""INT8 is chosen if it takes at most this share of FP32's time: a measurement is off by a few per cent."""

_WARM, _LEAST, _SECONDS = 3, 11, 0.02  # runs before, rounds at least, seconds at least for each model
_MOST_SECONDS = 1.0
_FOLDER, _LARGEST = "precisions", 4096
_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "numpy")
_SWITCHES = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # of instructions that an engine may use


def chosen_precision(name: str, bundle: Bundle, backend: str, threads: int | None = None) -> str:
    """Return the precision that a user's word stands for.

    Args:
        name: one of `PRECISIONS`, or `AUTO`.
        bundle: the bundle.
        backend: a key of `edgecxr.registry.BACKENDS`.
        threads: of the backend; None is its own choice.

    Raises:
        UsageError: there is no such precision, or as `fastest_precision`.
        MissingPackage, ModelError: as `fastest_precision`.
    """
    if name not in (*PRECISIONS, AUTO):
        raise UsageError(f"precision {name}: there are {', '.join((*PRECISIONS, AUTO))}")
    return fastest_precision(bundle, backend, threads) if name == AUTO else name


def fastest_precision(bundle: Bundle, backend: str, threads: int | None = None) -> str:
    """Return the precision that is faster here, "fp32" or "int8".

    The first time, both models are run in turns for a few milliseconds; the choice is then kept for this bundle,
    backend and CPU in the state folder, until one of them or an engine's version changes.

    Args:
        bundle: the bundle.
        backend: a key of `edgecxr.registry.BACKENDS`.
        threads: of the backend; None is its own choice.

    Raises:
        UsageError: the backend is unknown, or the bundle has neither precision.
        MissingPackage: the backend's engine is not installed.
        ModelError: a model cannot be loaded, or fails.
    """
    sums = {str(facts.get("precision")): bundle.sums[name] for name, facts in bundle.card.artefacts.items()}
    names = [name for name in CHOICES if name in sums]
    if not names:
        raise UsageError(f"{bundle.path} has neither fp32 nor int8 to choose from: name its precision")
    if len(names) == 1:
        return names[0]
    path = state_folder() / _FOLDER / f"{_key(sums, backend, threads)}.json"
    try:
        kept = read_json(path, _LARGEST)
        if isinstance(kept, dict) and kept.get("precision") in names:
            return str(kept["precision"])
    except (OSError, BadFile):
        pass
    milliseconds = _measured(bundle, backend, threads)
    chosen = "int8" if milliseconds["int8"] <= LARGEST_SHARE * milliseconds["fp32"] else "fp32"
    facts = {"precision": chosen, "ms": milliseconds, "model": bundle.card.name, "backend": backend}
    times = " and ".join(f"{name} {milliseconds[name]:.2f} ms" for name in names)
    note = "kept for this machine"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps(facts) + "\n")
    except (OSError, UsageError) as error:
        note = f"not kept: {brief(error)}"
    say(f"precision: {chosen}, of {times} for one image ({note})")
    return chosen


def _key(sums: Mapping[str, str], backend: str, threads: int | None) -> str:
    """Return a digest of all that decides the times."""
    here = cpu()
    versions = [extras.installed(package) for package in _PACKAGES]
    switches = [os.environ.get(name) for name in _SWITCHES]
    cause = [__version__, dict(sums), backend, threads, here.model, here.allowed, here.vectors, here.int8]
    return hashlib.sha256(json.dumps([cause, versions, switches], sort_keys=True).encode()).hexdigest()[:32]


def _measured(bundle: Bundle, backend: str, threads: int | None) -> dict[str, float]:
    """Return the median time of one image by precision, in milliseconds."""
    options: dict[str, Any] = {} if threads is None else {"threads": threads}
    image = np.zeros((1, 1, bundle.card.size, bundle.card.size), np.float32)
    image[..., ::2, 1::3] = 0.7
    opened: dict[str, Backend] = {}
    try:
        for name in CHOICES:
            opened[name] = open_backend(backend, bundle.model(name), **options)
        for model in opened.values():
            for _ in range(_WARM):
                model.run(image)
        seconds: dict[str, list[float]] = {name: [] for name in CHOICES}
        began = time.perf_counter()
        while True:
            for name, model in opened.items():  # in turns, so that what disturbs one disturbs the other
                start = time.perf_counter()
                model.run(image)
                seconds[name].append(time.perf_counter() - start)
            enough = len(seconds["fp32"]) >= _LEAST and min(map(sum, seconds.values())) >= _SECONDS
            if enough or time.perf_counter() - began > _MOST_SECONDS:
                return {name: round(1000 * statistics.median(values), 4) for name, values in seconds.items()}
    finally:
        for model in opened.values():
            model.close()

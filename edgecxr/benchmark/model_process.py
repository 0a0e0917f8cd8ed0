"""Worker processes that run one model each.

Models and engines in separate processes cannot disturb each other or this program.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.engines.backend import Outputs
from edgecxr.errors import EdgeCxrError, InputError, MissingPackage, brief
from edgecxr.vocabulary import FloatArray
from edgecxr.workers.pool import Pool
from edgecxr.workers.work import Work, WorkerEnd

# Seconds after which a process counts as hung; long, since TensorRT in ONNX Runtime may build an engine at the start.
START_LIMIT, LIMIT, SCORE_LIMIT = 3600.0, 1800.0, 24 * 3600.0


class Refused(Exception):
    """An error that a worker reported, or the end of its process.

    Attributes:
        absent: whether a package is missing, so that other models would fail on this engine too.
    """

    def __init__(self, message: str, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


class Worker:
    """A process with one loaded model.

    Args:
        opener: "module:function", which returns an object with `run(images)` and `close()`.
        arguments: keyword arguments of that function.
        shape: (channels, S, S) of an image.

    Attributes:
        start: seconds from the start of the process to the first answer: "process" (Python and what it imports), "open"
            (engine and model) and "first" (the first image).
        engine: the file that the engine built from the model file and runs; None if there is none.

    Raises:
        Refused: the model does not load or does not run.
    """

    def __init__(self, opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
        self._pool = Pool(Work(_do, _taken, _as_ended), 1)
        self._over = ""
        try:
            begun = time.monotonic()
            self.start: dict[str, float] = self._ask("open", begun, opener, arguments, shape, limit=START_LIMIT)
            engine = self._ask("engine")
            self.engine = None if engine is None else Path(engine)
        except BaseException:
            self.close()
            raise

    def time(self, batch: int, runs: int, warm: int = 0) -> list[float]:
        """Time runs of a batch.

        Args:
            batch: images in it.
            runs: timed runs.
            warm: untimed runs before them.

        Returns:
            The seconds of each timed run.
        """
        return self._ask("time", batch, runs, warm)

    def busy(self, batch: int, seconds: float) -> tuple[int, float]:
        """Run a batch repeatedly for about `seconds`, at least once.

        Returns:
            The number of images and the seconds they took.
        """
        images, elapsed = self._ask("busy", batch, seconds)
        return images, elapsed

    def film(self, path: Path, runs: int) -> dict[str, list[float]]:
        """Time the way from a film's file to the model's answer.

        Returns:
            "decode", "preprocess" and "model" -> seconds of each run.
        """
        return self._ask("film", path, runs)

    def memory(self) -> float | None:
        """Return the peak resident memory so far.

        Returns:
            MiB; None if unknown, as on systems other than Linux.
        """
        return self._ask("memory")

    @property
    def pid(self) -> int:
        """The process id."""
        return self._pool.pids[0]

    @property
    def alive(self) -> bool:
        """Whether the process can answer further requests."""
        return not self._over

    def score(self, data: Path, hash: str, split: str, batch: int) -> Outputs:
        """Return the model's outputs on a split.

        Attention maps and features are left out; the maps are an empty array.

        Args:
            data: a prepared data set or a pack.
            hash: its expected hash.
            split: its name.
            batch: images at a time.
        """
        logits: FloatArray = self._ask("score", data, hash, split, batch, limit=SCORE_LIMIT)
        return Outputs(logits[:, :-1], logits[:, -1], np.empty((0, 0, 0), np.float32))

    def close(self) -> None:
        """End the process."""
        self._over = self._over or "its process was ended"
        self._pool.close()

    def _ask(self, action: str, *arguments: Any, limit: float | None = None) -> Any:
        if self._over:
            raise Refused(self._over)
        self._pool.submit((action, *arguments), LIMIT if limit is None else limit)
        ((_, answer),) = self._pool.poll(math.inf)
        if isinstance(answer, WorkerEnd):
            # One that ended between two requests has answered neither.
            code = self._pool.last_code if answer.code is None else answer.code
            self._over = _problem_of(WorkerEnd(answer.reason, code))
            self.close()
            raise Refused(self._over)
        if isinstance(answer, Refused):
            raise answer
        return answer


def _taken(request: tuple[Any, ...], reply: Any, data: bytes) -> Any:
    """Return the answer in a worker's reply, or the error in it."""
    if "lost" in reply:
        return WorkerEnd("killed")
    if "refused" in reply:
        return Refused(str(reply["refused"]), bool(reply["absent"]))
    if request[0] == "score":
        return np.frombuffer(data, np.float32).reshape(reply["answer"])
    return reply["answer"]


def _as_ended(request: tuple[Any, ...], ended: WorkerEnd) -> WorkerEnd:
    return ended


def _problem_of(ended: WorkerEnd) -> str:
    """Return a message about how a process ended."""
    if ended.reason == "too-slow":
        return "it did not answer in time"
    if ended.code is not None and ended.code >= 0:
        return f"its process ended with {ended.code}"
    is_signal = ended.code is not None and -ended.code in set(signal.Signals)
    name = signal.Signals(-(ended.code or 0)).name if is_signal else "a signal"
    hint = ": too little memory?" if ended.reason in ("killed", "memory") else ""
    return f"its process was ended by {name}{hint}"


class _Noise:
    """Random images, since latency does not depend on the content."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._images = np.random.default_rng(0).random((1, *shape), np.float32)

    def batch(self, size: int) -> np.ndarray:
        if len(self._images) < size:
            self._images = np.resize(self._images, (size, *self.shape))
        return self._images[:size]


_loaded: list[tuple[Any, _Noise]] = []  # the only model of this process


def _do(request: tuple[Any, ...]) -> tuple[dict[str, Any], bytes]:
    """Answer a request in a worker."""
    action, *arguments = request
    try:
        if action == "open":
            return {"answer": _open(*arguments)}, b""
        if not _loaded:  # the process with the model has ended, and this one is in its place
            return {"lost": True}, b""
        model, noise = _loaded[0]
        if action == "score":
            logits = np.asarray(_score(model, noise, *arguments), np.float32)
            return {"answer": logits.shape}, logits.tobytes()
        return {"answer": _ANSWERS[action](model, noise, *arguments)}, b""
    except Exception as error:
        message, absent = _described(error)
        return {"refused": message, "absent": absent}, b""


def _open(begun: float, opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> dict[str, float]:
    from edgecxr.registry import load

    os.dup2(2, 1)  # keeps what engines print out of standard output, which is for results
    start = {"process": time.monotonic() - begun}
    since = time.perf_counter()
    model, noise = load(opener, opener)(**arguments), _Noise(shape)
    start["open"] = time.perf_counter() - since
    since = time.perf_counter()
    model.run(noise.batch(1))
    start["first"] = time.perf_counter() - since
    _loaded.append((model, noise))
    return start


def _described(error: Exception) -> tuple[str, bool]:
    if isinstance(error, EdgeCxrError):
        return brief(error, 400), isinstance(error, MissingPackage)
    return brief(f"{type(error).__name__}: {error}", 400), False


def _time(model: Any, noise: _Noise, batch: int, runs: int, warm: int) -> list[float]:
    images = noise.batch(batch)
    for _ in range(warm):
        model.run(images)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        model.run(images)
        seconds.append(time.perf_counter() - start)
    return seconds


def _busy(model: Any, noise: _Noise, batch: int, seconds: float) -> tuple[int, float]:
    images, done = noise.batch(batch), 0
    start = time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        model.run(images)
        done += batch
    return done, elapsed


def _film(model: Any, noise: _Noise, path: Path, runs: int) -> dict[str, list[float]]:
    from edgecxr.films.read import read_radiograph
    from edgecxr.films.resize import model_input

    channels, size, _ = noise.shape
    seconds: dict[str, list[float]] = {"decode": [], "preprocess": [], "model": []}
    for number in range(runs + 1):
        times = [time.perf_counter()]
        film = read_radiograph(path)
        times.append(time.perf_counter())
        image = model_input(film, size)
        times.append(time.perf_counter())
        model.run(np.repeat(image, channels, axis=1) if channels > 1 else image)
        times.append(time.perf_counter())
        if number:  # the first run does not count, since it loads the readers
            for name, first, last in zip(seconds, times, times[1:], strict=False):
                seconds[name].append(last - first)
    return seconds


def _memory(model: Any, noise: _Noise) -> float | None:
    if sys.platform == "linux":  # getrusage would include memory of the parent before this process became Python
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def _engine(model: Any, noise: _Noise) -> str | None:
    file = getattr(model, "engine_file", None)
    return None if file is None else os.fspath(file)


def _score(model: Any, noise: _Noise, data: Path, hash: str, split: str, batch: int) -> FloatArray:
    from edgecxr.data.pack import SUFFIX, open_pack
    from edgecxr.data.prepared import Prepared
    from edgecxr.evaluate.scores import predict

    prepared = open_pack(data) if data.suffix == SUFFIX else Prepared.open(data)
    if prepared.hash != hash:
        raise InputError(f"{data} has changed since this began", "dataset")
    return predict(model, prepared, prepared.rows(split), noise.shape[-1], batch).logits


_ANSWERS: dict[str, Callable[..., Any]] = {
    "time": _time, "busy": _busy, "film": _film, "memory": _memory, "engine": _engine,
}  # fmt: skip

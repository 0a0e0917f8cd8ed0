"""A process that runs one model when it is its turn: models and engines cannot disturb each other, nor this program."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.errors import EdgeCxrError, InputError, MissingPackage, brief

# Seconds after which a process is taken to hang. ONNX Runtime's TensorRT may build an engine when it starts.
START_LIMIT, LIMIT, SCORE_LIMIT = 3600.0, 1800.0, 24 * 3600.0


class Refused(Exception):
    """What a worker could not do.

    Attributes:
        absent: a package is missing, so that other models of the same engine need not be tried.
    """

    def __init__(self, message: str, absent: bool = False) -> None:
        super().__init__(message)
        self.absent = absent


class Worker:
    """A process with one loaded model.

    Args:
        opener: "module:function", which returns an object with `run(images)` and `close()`.
        arguments: what that function is given.
        shape: (channels, S, S) of an image.

    Attributes:
        start: seconds from the start of the process to the first answer: "process" (Python and what it imports), "open"
            (engine and model) and "first" (the first image).
        engine: the file that the engine made of the model file and runs; None where there is no such file.

    Raises:
        Refused: the model does not load or does not run.
    """

    def __init__(self, opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Ctrl-C goes to every process of a terminal; the child inherits this, and does not hear of it while it starts.
        resource_tracker.ensure_running()  # which would undo it
        heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        begun = time.monotonic()
        self._process = context.Process(target=_serve, args=(theirs, begun, opener, arguments, shape), daemon=True)
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, heard)
        theirs.close()
        try:
            self.start: dict[str, float] = self._answer(START_LIMIT)
            self.engine: Path | None = self._ask("engine")
        except BaseException:
            self.close()
            raise

    def time(self, batch: int, runs: int, warm: int = 0) -> list[float]:
        """Return the seconds of `runs` runs of a batch, after `warm` that do not count."""
        return self._ask("time", batch, runs, warm)

    def busy(self, batch: int, seconds: float) -> tuple[int, float]:
        """Run a batch again and again; return the number of images and the seconds they took."""
        return self._ask("busy", batch, seconds)

    def film(self, path: Path, runs: int) -> dict[str, list[float]]:
        """Return the seconds of "decode", "preprocess" and "model" from a file to an answer, for each run."""
        return self._ask("film", path, runs)

    def memory(self) -> float | None:
        """Return the largest resident memory so far in MiB; None where the system does not tell."""
        return self._ask("memory")

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return not self._pipe.closed and self._process.is_alive()

    def score(self, data: Path, hash: str, split: str, batch: int) -> Any:
        """Return what the model says of a split, as `edgecxr.engines.backend.Outputs` without attention maps.

        Args:
            data: a prepared data set or a pack.
            hash: that it must have.
            split: its name.
            batch: images at a time.
        """
        self._send("score", data, hash, split, batch)
        return self._answer(SCORE_LIMIT)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join(10)  # inside a driver a process may not even die

    def _ask(self, *request: Any) -> Any:
        self._send(*request)
        return self._answer()

    def _send(self, *request: Any) -> None:
        try:
            self._pipe.send(request)
        except OSError:
            raise Refused(self._end()) from None

    def _answer(self, limit: float = LIMIT) -> Any:
        try:
            if not self._pipe.poll(limit):
                self.close()
                raise Refused(f"it did not answer within {limit:.0f} s")
            well, answer = self._pipe.recv()
        except (EOFError, OSError):
            raise Refused(self._end()) from None
        if not well:
            raise Refused(*answer)
        return answer

    def _end(self) -> str:
        self._process.join(5)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            hint = ": too little memory?" if name == "SIGKILL" else ""
            return f"its process was ended by {name}{hint}"
        return f"its process ended with {code}"


class _Noise:
    """Random images: how long a model takes does not depend on what it sees."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._images = np.random.default_rng(0).random((1, *shape), np.float32)

    def batch(self, size: int) -> np.ndarray:
        if len(self._images) < size:
            self._images = np.resize(self._images, (size, *self.shape))
        return self._images[:size]


def _serve(pipe: Connection, begun: float, opener: str, arguments: dict[str, Any], shape: tuple[int, ...]) -> None:
    os.dup2(2, 1)  # standard output is for results, and engines print what they like
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    noise = _Noise(shape)
    try:
        start = {"process": time.monotonic() - begun}
        since = time.perf_counter()
        model = _load(opener, arguments)
        start["open"] = time.perf_counter() - since
        since = time.perf_counter()
        model.run(noise.batch(1))
        start["first"] = time.perf_counter() - since
    except Exception as error:
        pipe.send((False, _described(error)))
        return
    pipe.send((True, start))
    while True:
        try:
            what, *request = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            pipe.send((True, _ANSWERS[what](model, noise, *request)))
        except BrokenPipeError:
            return
        except Exception as error:
            pipe.send((False, _described(error)))


def _load(opener: str, arguments: dict[str, Any]) -> Any:
    from edgecxr.registry import load

    return load(opener, opener)(**arguments)


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
    while (past := time.perf_counter() - start) < seconds or not done:
        model.run(images)
        done += batch
    return done, past


def _film(model: Any, noise: _Noise, path: Path, runs: int) -> dict[str, list[float]]:
    from edgecxr.films.read import read_radiograph
    from edgecxr.films.resize import model_input

    channels, size, _ = noise.shape
    found: dict[str, list[float]] = {"decode": [], "preprocess": [], "model": []}
    for number in range(runs + 1):
        times = [time.perf_counter()]
        film = read_radiograph(path)
        times.append(time.perf_counter())
        image = model_input(film, size)
        times.append(time.perf_counter())
        model.run(np.repeat(image, channels, axis=1) if channels > 1 else image)
        times.append(time.perf_counter())
        if number:  # the first run loads the readers
            for name, first, last in zip(found, times, times[1:], strict=False):
                found[name].append(last - first)
    return found


def _memory(model: Any, noise: _Noise) -> float | None:
    if sys.platform == "linux":  # getrusage would count what the parent had before this process became Python
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def _engine(model: Any, noise: _Noise) -> Path | None:
    return getattr(model, "engine_file", None)


def _score(model: Any, noise: _Noise, data: Path, hash: str, split: str, batch: int) -> Any:
    from edgecxr.data.pack import SUFFIX, open_pack
    from edgecxr.data.prepared import Prepared
    from edgecxr.evaluate.scores import predict

    prepared = open_pack(data) if data.suffix == SUFFIX else Prepared.open(data)
    if prepared.hash != hash:
        raise InputError(f"{data} has changed since this began", "dataset")
    outputs = predict(model, prepared, prepared.rows(split), noise.shape[-1], batch)
    return dataclasses.replace(outputs, attention=outputs.attention[:0], features=None)  # nobody asks for these


_ANSWERS: dict[str, Callable[..., Any]] = {
    "time": _time, "busy": _busy, "film": _film, "memory": _memory, "engine": _engine, "score": _score,
}  # fmt: skip

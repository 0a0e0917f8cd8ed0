"""`edgecxr infer`: films in, results on standard output, pictures in a folder."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from edgecxr.console import printable, progress, say
from edgecxr.errors import UsageError
from edgecxr.runtime.predictor import Predictor, find_inputs, predict_files
from edgecxr.runtime.report import Result, print_results, to_json
from edgecxr.runtime.types import Prediction, Radiograph, Rejection
from edgecxr.workspace import atomic_write

_LONGEST = 200
_MANY = 10


def infer_paths(predictor: Predictor, paths: list[Path], as_json: bool, attention: bool, overlays: Path | None) -> int:
    """Predict from files and folders and print the results as they come.

    Args:
        predictor: the model.
        paths: files and folders.
        as_json: one JSON object per file instead of a table.
        attention: put the attention map into the JSON; goes with `as_json` only.
        overlays: a folder for one PNG per film, or None.

    Returns:
        The number of files that were rejected.

    Raises:
        UsageError: an overlay cannot be written, or options do not go together.
        ModelError: the model failed.
    """
    if attention and not as_json:
        raise UsageError("--attention puts the map into the JSON: add --json, or --overlay DIR to see it")
    if overlays is not None and os.path.exists(overlays) and not os.path.isdir(overlays):
        raise UsageError(f"--overlay {overlays} is a file, where pictures are to be written: give a folder")
    rejected = 0
    names = _Names()

    def draw(film: Radiograph, prediction: Prediction) -> None:
        if overlays is not None:
            target = overlays / names.new(Path(prediction.source).name)
            _draw(film, prediction, target)
            say(f"overlay: {printable(str(target))}")

    def results() -> Iterator[Result]:
        nonlocal rejected
        films = find_inputs(paths)
        # On a terminal the results themselves show how far it is.
        with progress("infer") if len(films) >= _MANY and not sys.stdout.isatty() else nullcontext() as update:
            for done, result in enumerate(predict_files(predictor, films, draw), start=1):
                rejected += isinstance(result, Rejection)
                yield result
                if update:
                    update(done, len(films))

    if as_json:
        for result in results():
            print(to_json(result, attention), flush=True)
    else:
        print_results(results(), common=predictor.warnings)
    return rejected


def _draw(film: Radiograph, prediction: Prediction, target: Path) -> None:
    import io

    from edgecxr.runtime.overlay import overlay

    picture = io.BytesIO()
    overlay(film, prediction).save(picture, format="PNG")
    atomic_write(target, picture.getbuffer(), "give another folder with --overlay")


class _Names:
    """File names of pictures, each given once: two folders may hold films of one name."""

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._count: Counter[str] = Counter()

    def new(self, film: str) -> str:
        """Return the name of the picture of a film with this file name."""
        # File systems take 255 bytes, and the ending and that of the unfinished file are still to come.
        stem = film
        while len(os.fsencode(stem)) > _LONGEST:
            stem = stem[:-1]
        while True:
            self._count[stem] += 1
            number = self._count[stem]
            name = f"{stem}.png" if number == 1 else f"{stem}.{number}.png"
            if name not in self._given:
                self._given.add(name)
                return name

"""`edgecxr infer`: films in, results on standard output, pictures in a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from edgecxr.console import printable, say
from edgecxr.runtime.predictor import Predictor, find_inputs, predict_files
from edgecxr.runtime.report import Result, print_results, to_json
from edgecxr.runtime.types import Prediction, Radiograph, Rejection
from edgecxr.workspace import atomic_write

_LONGEST = 200


def infer_paths(predictor: Predictor, paths: list[Path], as_json: bool, attention: bool, overlays: Path | None) -> int:
    """Predict from files and folders and print the results as they come.

    Args:
        predictor: the model.
        paths: files and folders.
        as_json: one JSON object per file instead of a table.
        attention: put the attention map into the JSON.
        overlays: a folder for one PNG per film, or None.

    Returns:
        The number of files that were rejected.

    Raises:
        UsageError: an overlay cannot be written.
        ModelError: the model failed.
    """
    rejected = 0
    names = _Names()

    def draw(film: Radiograph, prediction: Prediction) -> None:
        if overlays is not None:
            target = overlays / names.new(Path(prediction.source).name)
            _draw(film, prediction, target)
            say(f"overlay: {printable(str(target))}")

    def results() -> Iterator[Result]:
        nonlocal rejected
        for result in predict_files(predictor, find_inputs(paths), draw):
            rejected += isinstance(result, Rejection)
            yield result

    if as_json:
        for result in results():
            print(to_json(result, attention), flush=True)
    else:
        print_results(results())
    return rejected


def _draw(film: Radiograph, prediction: Prediction, target: Path) -> None:
    import io

    from edgecxr.runtime.overlay import overlay

    picture = io.BytesIO()
    overlay(film, prediction).save(picture, format="PNG")
    atomic_write(target, picture.getbuffer())


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

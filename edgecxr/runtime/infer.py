"""`edgecxr infer`: films in, results on standard output, pictures in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgecxr.console import say
from edgecxr.runtime.predictor import Predictor, find_inputs, predict_files
from edgecxr.runtime.report import Result, print_results, to_json
from edgecxr.runtime.types import Prediction, Radiograph, Rejection
from edgecxr.workspace import atomic_write


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
    names: dict[str, int] = {}

    def draw(film: Radiograph, prediction: Prediction) -> None:
        if overlays is not None:
            target = overlays / _overlay_name(Path(prediction.source), names)
            _draw(film, prediction, target)
            say(f"overlay: {target}")

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


def _overlay_name(source: Path, names: dict[str, int]) -> str:
    """Return a file name that no earlier film of this run has: two folders may hold films of one name."""
    number = names[source.name] = names.get(source.name, 0) + 1
    return f"{source.name}.png" if number == 1 else f"{source.name}.{number}.png"

"""How well the quality gate of bundles tells chest films from what else there is.

    python benchmarks/gate.py BUNDLE... --data NAME... --others DIR --out benchmarks/results/cpu-2core/gate.json

For each bundle: what its card says (films of its own test split, and these changed); the test films of other prepared
data sets, which another hospital's films are like; and, of a folder of films of other things, how many `infer` would
refuse, by reason, and which it would not. Ends with 6 if the films of a bundle's own test split refute the share that
its threshold promises: if the lower end of the 95 % interval is above it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from ratios import finish, judged, record

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.films.find import find_inputs
from edgecxr.films.radiograph import FilmRead, Radiograph
from edgecxr.infer.film_readers import Readers
from edgecxr.infer.prediction import Rejection
from edgecxr.infer.predictor import Predictor
from edgecxr.workspace import Workspace

BATCH = 64


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--data", nargs="*", default=[], help="prepared data sets")
    parser.add_argument("--others", type=Path, help="folder of films of other things")
    parser.add_argument("--precision", default="fp32", help="which of the bundles' models")
    parser.add_argument("--out", type=Path, help="file of the record")
    args = parser.parse_args()
    others = read(args.others) if args.others else []  # first: it forks
    results = [measured(bundle, others, args) for bundle in args.bundles]
    settings = {"precision": args.precision, "data": args.data, "others": len(others)}
    return finish(record("gate", settings, results), args.out)


def read(folder: Path) -> list[FilmRead | Rejection]:
    """Read a folder at 224 px, for models of up to that size; each picture once, however often it is there."""
    with Readers(2) as readers:
        reads = [film for part in readers.read(find_inputs([folder]), 224) for film in part]
    pictures: dict[bytes, FilmRead | Rejection] = {}
    for film in reads:
        name = Path(film.source).relative_to(folder)
        key = film.image.tobytes() if isinstance(film, FilmRead) else str(name).encode()
        pictures.setdefault(key, film)
    return list(pictures.values())


def measured(bundle: Path, others: list[FilmRead | Rejection], args: argparse.Namespace) -> dict[str, Any]:
    """Return the rates of a bundle."""
    with Predictor(bundle, precision=args.precision) as predictor:
        card = predictor.card
        rates = card.gate["rates"][args.precision]
        own = rates.get("films", {"low": 1.0, "refused": 0, "images": 0})  # without, nothing is shown
        films = {}
        for name in args.data:
            prepared = Prepared.open(Workspace.default().data_dir(name))
            if prepared.hash != card.data.get("hash"):
                images = prepared.images_for(card.size)[prepared.rows("test")]
                films[name] = share(refused(predictor, [as_read(image) for image in images]))
        result: dict[str, Any] = {
            "name": card.name, "data": card.data.get("name"), "size": card.size, "tokens": card.tokens,
            "depth": card.depth, "false_rejection": card.gate["false_rejection"], "rates": rates, "other_data": films,
            "checks": [judged(f"{card.name} on {card.data.get('name')}", own["low"], card.gate["false_rejection"])],
        }  # fmt: skip
        if others:
            readable = [film for film in others if isinstance(film, FilmRead)]
            reasons = refused(predictor, readable)
            result["others"] = share(reasons) | {
                "unreadable": len(others) - len(readable),
                "reasons": dict(Counter(reason for reason in reasons if reason)),
                "taken": [
                    Path(*Path(film.source).parts[-2:]).as_posix()
                    for film, reason in zip(readable, reasons, strict=True)
                    if not reason
                ],
            }
            # By their looks alone, without what the files say of themselves.
            looks = [as_read(film.image) for film in readable if not {"tiny"} & {o.reason for o in film.objections}]
            result["others_by_pixels"] = share(refused(predictor, looks))
        print(f"{card.name} on {card.data.get('name')}: {own['refused']}/{own['images']}", file=sys.stderr, flush=True)
        return result


def as_read(image: np.ndarray) -> FilmRead:
    """Return a film of which nothing is known but its pixels."""
    from edgecxr.films.read import film_of

    return film_of(Radiograph(image.astype(np.float32) / np.float32(255), "film"), len(image))


def refused(predictor: Predictor, films: list[FilmRead]) -> list[str]:
    """Return for each film the reason that the gate would refuse it for, or ""."""
    reasons = []
    for start in range(0, len(films), BATCH):
        for result in predictor.look(films[start : start + BATCH]):
            objections = result.gate.objections if result.gate else ()
            reasons.append(objections[0].reason if objections else "")
    return reasons


def share(reasons: list[str]) -> dict[str, Any]:
    """Return how many were refused, of how many, and the share with its 95 % interval."""
    count = sum(map(bool, reasons))
    rate = metrics.proportion(count, len(reasons))
    return {"refused": count, "images": len(reasons), "value": rate.value, "low": rate.low, "high": rate.high}


if __name__ == "__main__":
    sys.exit(main())

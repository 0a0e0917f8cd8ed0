"""How often `edgecxr export` says "pass" of a model that lost more AUROC than it may; a simulation.

    python benchmarks/verdicts.py --out benchmarks/results/cpu-2core/verdicts.json

The scores of a checkpoint are two normal distributions. A model of lower precision loses AUROC in one of three ways: a
little noise on every film, a guess on some films, or some abnormal films that look normal to it. It loses at one task
and nothing at the other. Each case is judged by `same_auroc`, as export does. Ends with 6 if, at any number of films
and in any way, more than one case in twenty is a false "pass". The share of models without any loss that pass is
recorded beside it: it says how many films it takes.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from ratios import finish, judged, record

from edgecxr import metrics
from edgecxr.data.prepared import Prepared
from edgecxr.data.tables.boxes import Boxes
from edgecxr.evaluate.comparison import aurocs
from edgecxr.export.parity import PASS, Truth, same_auroc

SIZES = ((4, 1), (20, 2), (40, 20), (50, 25), (80, 40), (100, 20), (200, 20), (200, 100), (500, 50), (1000, 400))
"""Films, and how many of them are positive."""

WAYS = ("noise", "guesses", "misses")
LIMIT = 0.05

_NORMAL = NormalDist()


def main() -> int:
    """Simulate, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=400, help="simulated models for each number of films and way")
    parser.add_argument("--replicates", type=int, default=400, help="of the bootstrap")
    parser.add_argument("--auroc", type=float, default=0.85, help="of the checkpoint")
    parser.add_argument("--lost", type=float, default=0.035, help="AUROC that the other model loses")
    parser.add_argument("--tolerance", type=float, default=0.01, help="AUROC that it may lose")
    parser.add_argument("--sizes", nargs="*", default=[f"{films}:{positives}" for films, positives in SIZES])
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest share of false passes")
    parser.add_argument("--out", type=Path, help="file of the record")
    args = parser.parse_args()
    sizes = [tuple(map(int, size.split(":"))) for size in args.sizes]
    results = [simulated(films, positives, args) for films, positives in sizes]
    names = ("cases", "replicates", "auroc", "lost", "tolerance")
    return finish(record("verdicts", {name: getattr(args, name) for name in names}, results), args.out)


def simulated(films: int, positives: int, args: argparse.Namespace) -> dict[str, Any]:
    """Return the share of verdicts "pass" by way of losing, and without any loss."""
    targets = (np.arange(films) < positives).astype(np.float32)
    prepared = Prepared(
        Path("simulated"), np.zeros((films, 1, 1), np.uint8), ("finding",), np.arange(films).astype(str),
        np.arange(films).astype(str), np.full(films, "val"), targets[:, None], targets,
        Boxes(np.empty(0, np.intp), np.empty(0, np.intp), np.empty((0, 4), np.float32)), {"name": "simulated"},
    )  # fmt: skip
    weights = metrics.patient_weights(prepared.patients, args.replicates)
    passed = dict.fromkeys((*WAYS, "no loss"), 0)
    rng = np.random.default_rng(0)
    for case in range(args.cases):
        exact = scores(rng, targets, args.auroc)
        logits = np.column_stack([exact, exact]).astype(np.float32)
        truth = Truth(prepared, "val", logits, weights, aurocs(prepared, "val", logits, weights))
        for way in WAYS:
            lower = logits.copy()
            lower[:, case % 2] = lossy(rng, exact, targets, way, args.auroc, args.lost)
            passed[way] += same_auroc(truth, lower, args.tolerance).status == PASS
        passed["no loss"] += same_auroc(truth, logits, args.tolerance).status == PASS
    shares = {way: count / args.cases for way, count in passed.items()}
    print(f"{films} films, {positives} positive: {shares}", file=sys.stderr, flush=True)
    checks = [judged(f"{films} films, {positives} positive, {way}", shares[way], args.limit) for way in WAYS]
    return {"films": films, "positive": positives, "passed": shares, "checks": checks}


def scores(rng: np.random.Generator, targets: np.ndarray, auroc: float) -> np.ndarray:
    """Draw the scores of a checkpoint of an AUROC: normal, of variance 1 in each class."""
    return _distance(auroc) * targets + rng.normal(size=len(targets))


def lossy(
    rng: np.random.Generator, exact: np.ndarray, targets: np.ndarray, way: str, auroc: float, lost: float
) -> np.ndarray:
    """Return scores whose expected AUROC is `auroc` - `lost`."""
    if way == "noise":
        variance = (_distance(auroc) / _distance(auroc - lost)) ** 2 - 1
        return exact + rng.normal(size=len(exact)) * math.sqrt(variance)
    if way == "misses":  # each misses half of all comparisons
        chosen = (rng.random(len(exact)) < lost / (auroc - 0.5)) & (targets == 1)
        return np.where(chosen, rng.normal(size=len(exact)), exact)
    middle = _distance(auroc) / 2
    # Of a pair of films, none, one or both are guessed.
    one_lossy = _NORMAL.cdf(middle / math.sqrt(2))
    least, most = 0.0, 1.0
    for _ in range(50):
        share = (least + most) / 2
        expected = (1 - share) ** 2 * auroc + 2 * share * (1 - share) * one_lossy + share**2 / 2
        least, most = (share, most) if expected > auroc - lost else (least, share)
    return np.where(rng.random(len(exact)) < least, middle + rng.normal(size=len(exact)), exact)


def _distance(auroc: float) -> float:
    """Return the distance of the means of two normal distributions."""
    return _NORMAL.inv_cdf(auroc) * math.sqrt(2)


if __name__ == "__main__":
    sys.exit(main())

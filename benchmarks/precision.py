"""What FP16 and INT8 files lose on a test split, paired with the FP32 file on the same films, and how large they are.

    python benchmarks/precision.py BUNDLE... --data NAME --out benchmarks/results/cpu-2core/precision-NAME.json

Takes bundles of `edgecxr export` and a prepared data set of the workspace, and runs every file by ONNX Runtime on the
CPU. The AUROC drop of both tasks has a 95 % interval, bootstrap by patient. Ends with 6 if an INT8 file is larger than
0.3 times the FP32 one.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from ratios import finish, judged, record

from edgecxr.bundle.bundle import Bundle
from edgecxr.data.prepared import Prepared
from edgecxr.engines.onnxruntime import OnnxRuntimeBackend
from edgecxr.export.parity import Truth, logits_of, same_auroc
from edgecxr.workspace import Workspace

LIMIT = 0.3


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE")
    parser.add_argument("--data", required=True, help="prepared data set")
    parser.add_argument("--split", default="test")
    parser.add_argument("--replicates", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--limit", type=float, default=LIMIT, help="largest INT8 file, in FP32 files")
    parser.add_argument("--out", type=Path, help="file of the record")
    args = parser.parse_args()
    prepared = Prepared.open(Workspace.default().data_dir(args.data))
    results = [measured(Bundle.open(path), prepared, args) for path in args.bundles]
    settings = {"data": args.data, "split": args.split, "replicates": args.replicates, "phantom": prepared.phantom}
    return finish(record("precision", settings, results), args.out)


def measured(bundle: Bundle, prepared: Prepared, args: argparse.Namespace) -> dict[str, Any]:
    """Return sizes, AUROCs and AUROC drops of a bundle's files."""
    card = bundle.card
    reference = OnnxRuntimeBackend(bundle.artefact("fp32"))
    truth = Truth.of(reference, prepared, args.split, card.size, args.replicates)
    sizes = {str(facts["precision"]): int(facts["bytes"]) for facts in card.artefacts.values()}
    result: dict[str, Any] = {
        "name": card.name,
        "stem": card.stem,
        "target": card.target.get("name"),
        "size": card.size,
        "tokens": card.tokens,
        "auroc_fp32": {task: areas.macro.value for task, areas in truth.aurocs.items()},
        "bytes": sizes,
        "files": {},
        "checks": [],
    }
    for precision in sizes:
        if precision != "fp32":
            logits = logits_of(OnnxRuntimeBackend(bundle.artefact(precision)), prepared, args.split, card.size)
            parity = same_auroc(truth, logits, tolerance=1).to_dict()  # what is tolerable is not this script's matter
            result["files"][precision] = {key: parity[key] for key in ("max_logit_difference", "auroc_drop", "images")}
            print(f"{card.name} {precision}: {parity['auroc_drop']}", file=sys.stderr, flush=True)
    if "int8" in sizes:
        result["checks"].append(judged(f"{card.name} int8 file", sizes["int8"] / sizes["fp32"], args.limit))
    return result


if __name__ == "__main__":
    sys.exit(main())

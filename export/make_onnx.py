"""A finished run -> a verified bundle, on the workstation; a frame for programs of your own.

    python export/make_onnx.py student-tiny-28-mlcak-vindr --recipe export/recipes/28px-49tokens.toml --target v100

`edgecxr export` does the same, with more options.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edgecxr import resolve
from edgecxr.bundle.card import read_card
from edgecxr.engines.target import load_target
from edgecxr.errors import EdgeCxrError
from edgecxr.export.export_bundle import export_bundle
from edgecxr.export.recipe import choose
from edgecxr.export.run_export import place
from edgecxr.terminal import say
from edgecxr.workspace import Workspace


def main() -> None:
    """Export the run that the command line names, and print the bundle's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="name of a run in runs/ (or $EDGECXR_RUNS), or its path")
    parser.add_argument("--recipe", type=Path, metavar="FILE", help="what to make, and how much it may lose")
    parser.add_argument("--target", metavar="NAME|FILE", help="for which device; any by default")
    parser.add_argument("--data", metavar="NAME", help="data set that calibrates and judges; the model's own")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the bundle; runs/export/RUN or RUN-TARGET by default")
    args = parser.parse_args()

    workspace = Workspace.default()
    target = load_target(args.target) if args.target else None
    recipe = choose(args.recipe, fp16=False, int8=False, keep_float=None, target=target)
    run = resolve.run(workspace, args.run)
    prepared = resolve.dataset_of(workspace, read_card(run), args.data)
    dest = args.out or place(workspace, run.name, target)
    print(export_bundle(run, prepared, dest, recipe, target, say, name=dest.name).path)


if __name__ == "__main__":
    try:
        main()
    except EdgeCxrError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)

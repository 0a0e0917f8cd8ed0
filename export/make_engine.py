"""A bundle -> its TensorRT engine, on the device that will run it; a frame for programs of your own.

    python export/make_engine.py student-tiny-28-mlcak-vindr --target jetson-orin-nano

`edgecxr build` does the same, with more options. Needs TensorRT, and neither torch nor onnx.
"""

from __future__ import annotations

import argparse
import sys

from edgecxr import resolve
from edgecxr.bundle.bundle import Bundle
from edgecxr.engines.target import load_target
from edgecxr.engines.tensorrt.build import build_engine, choose_precision
from edgecxr.errors import EdgeCxrError
from edgecxr.terminal import say
from edgecxr.vocabulary import PRECISIONS
from edgecxr.workspace import Workspace


def main() -> None:
    """Build the engine of the bundle that the command line names, and print its path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="path of a bundle, or its name in runs/export")
    parser.add_argument("--precision", choices=PRECISIONS, help="by default what the target recommends, else fp16")
    parser.add_argument("--target", metavar="NAME|FILE", help="device whose limits of memory and batch are used")
    args = parser.parse_args()

    target = load_target(args.target) if args.target else None
    bundle = Bundle.open(resolve.bundle(Workspace.default(), args.bundle))
    print(build_engine(bundle, args.precision or choose_precision(bundle, target), target, say=say))


if __name__ == "__main__":
    try:
        main()
    except EdgeCxrError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)

"""Processor time from a DICOM film to its 224 px image, against the plain way and against other libraries.

    python benchmarks/film.py --out benchmarks/results/cpu-2core/film.json

One uncompressed synthetic film of 2500 x 2048 pixels and 14 bits, read by `edgecxr.films.read.read_film`; by
plain_film.py, which computes the same bits pixel by pixel; by `edgecxr` with all grey levels looked up and averaged in
float64, as it was before it averaged integers; by pydicom and numpy without checks, as bare.py does; and, if
OpenCV is installed, by pydicom and OpenCV's area filter. All in one process and one thread, in turn. What another
program takes from the caches only ever adds time, so the ratio is that of the smallest times. Ends with 6 if a limit is
exceeded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import plain_film
import pydicom
from numpy.typing import NDArray
from ratios import finish, judged, record, spread

LIMITS = {"film-plain": 0.25, "film-floats": 0.75, "film-numpy": 0.8}
SIZE = 224

Reader = Callable[[Path], NDArray[np.uint8]]


def main() -> int:
    """Measure, print and write the record; return the exit code."""
    from edgecxr.benchmark import synthetic_film
    from edgecxr.films.read import read_film, read_radiograph
    from edgecxr.films.resize import to_base

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file of the record")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each reader")
    parser.add_argument("--side", type=int, nargs=2, default=synthetic_film.SIZE, help="rows and columns of the film")
    args = parser.parse_args()
    readers: dict[str, Reader] = {
        "edgecxr": lambda path: read_film(path).image,
        "plain": plain_film.read,
        "floats": lambda path: to_base(read_radiograph(path).pixels),
        "numpy": with_numpy,
    } | with_opencv()
    with tempfile.TemporaryDirectory(prefix="edgecxr-film-") as folder:
        (film,) = synthetic_film.write_films(Path(folder), args.side[0], args.side[1], ("uncompressed",))
        images = {name: reader(film) for name, reader in readers.items()}
        for name in ("plain", "floats"):
            if not np.array_equal(images["edgecxr"], images[name]):
                sys.exit(f"read_film and {name} give different images")
        ms: dict[str, list[float]] = {name: [] for name in readers}
        for number in range(args.rounds):
            for name in sorted(readers, reverse=bool(number % 2)):
                start = time.process_time()
                readers[name](film)
                ms[name].append(1000 * (time.process_time() - start))
    ours = min(ms["edgecxr"])
    apart = {
        name: int(np.abs(image.astype(int) - images["edgecxr"]).max())
        for name, image in images.items()
        if name != "edgecxr"
    }
    ratios = {name: round(ours / min(values), 4) for name, values in ms.items() if name != "edgecxr"}
    row: dict[str, Any] = {
        "name": f"read_film, {args.side[0]} x {args.side[1]} px, uncompressed",
        "against": ", ".join(apart),
        "cpu_ms": {name: spread(values, 2) for name, values in ms.items()},
        "grey_levels_apart": apart,
        "ratio": ratios,
        "checks": [judged(name, ratios[name.removeprefix("film-")], limit) for name, limit in LIMITS.items()],
    }
    return finish(record("film", {"rounds": args.rounds, "side": list(args.side)}, [row]), args.out)


def pixels_of(path: Path) -> tuple[NDArray[np.float32], bool]:
    """Return a film's pixels, windowed to [0, 1]; and whether low values are white."""
    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array.astype(np.float32)
    low = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2
    pixels -= low
    pixels /= float(dataset.WindowWidth) - 1
    np.clip(pixels, 0, 1, out=pixels)
    return pixels, dataset.PhotometricInterpretation == "MONOCHROME1"


def finished(image: NDArray[np.floating], inverted: bool) -> NDArray[np.uint8]:
    """Return an averaged image (224, 224) with black air and 256 grey levels."""
    levels: NDArray[np.uint8] = np.rint(255 * (1 - image if inverted else image)).astype(np.uint8)
    return levels


def with_numpy(path: Path) -> NDArray[np.uint8]:
    """Read with pydicom and average with numpy; a pixel counts for the cell that it begins in."""
    image, inverted = pixels_of(path)
    for _ in range(2):
        edges = [i * len(image) // SIZE for i in range(SIZE + 1)]
        image = np.stack([image[start:stop].mean(axis=0) for start, stop in pairwise(edges)], axis=1)
    return finished(image, inverted)


def with_opencv() -> dict[str, Reader]:
    """Return a reader with pydicom and OpenCV's area filter; none if OpenCV is not installed."""
    try:
        import cv2
    except ImportError:
        return {}
    cv2.setNumThreads(1)

    def read(path: Path) -> NDArray[np.uint8]:
        pixels, inverted = pixels_of(path)
        return finished(cv2.resize(pixels, (SIZE, SIZE), interpolation=cv2.INTER_AREA), inverted)

    return {"opencv": read}


if __name__ == "__main__":
    sys.exit(main())

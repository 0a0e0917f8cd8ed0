"""What `edgecxr infer` is held against: the same work, as one would write it for films without errors.

    python benchmarks/bare.py MODEL.onnx SIZE FILM|FOLDER...

It reads each film with pydicom, decodes it by the plug-in that edgecxr uses (the decoders differ in speed), applies the
window, shrinks to 224 px and then to SIZE px by area averaging, runs the model and prints the probabilities. It has no
command line parser, checksum, lookup table, operating point or error message, and looks into one kind of file only.
"""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
import pydicom
from numpy.typing import NDArray
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes


def shrink(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Average (H, W) to (size, size); a pixel counts for the cell that it begins in."""
    for _ in range(2):
        edges = [i * len(image) // size for i in range(size + 1)]
        image = np.stack([image[start:stop].mean(axis=0) for start, stop in pairwise(edges)], axis=1)
    return image


def read(film: str) -> NDArray[np.float32]:
    """Return a film as it is to be seen, air black."""
    dataset = pydicom.dcmread(film)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        plugin = "pylibjpeg" if syntax in JPEG2000TransferSyntaxes else "gdcm"
        plugin = "pyjpegls" if syntax in JPEGLSTransferSyntaxes else plugin
        dataset.pixel_array_options(decoding_plugin=plugin)
    pixels = dataset.pixel_array.astype(np.float32)
    if "WindowCenter" in dataset and "WindowWidth" in dataset:
        center, width = (float(np.atleast_1d(value)[0]) for value in (dataset.WindowCenter, dataset.WindowWidth))
        low, high = center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    else:
        low, high = float(pixels.min()), float(pixels.max())
    pixels -= low
    pixels /= high - low
    np.clip(pixels, 0, 1, out=pixels)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        np.subtract(1, pixels, out=pixels)
    return pixels


model, size, *places = sys.argv[1:]
films = [str(path) for place in map(Path, places) for path in (sorted(place.iterdir()) if place.is_dir() else [place])]
session = None
for film in films:
    image = shrink(shrink(read(film), 224), int(size))
    session = session or onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    findings, abnormal = session.run(["findings", "abnormal"], {"image": image[None, None]})
    print(film)
    for name, value in zip([*map(str, range(findings.shape[1])), "abnormal"], [*findings[0], abnormal[0]], strict=True):
        print(f"{name}: {1 / (1 + np.exp(-value)):.3f}")

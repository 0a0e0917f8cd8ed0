"""The pixels that films are prepared as: when they change, data sets of before must be prepared anew."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from edgecxr.data.prepared import FORMAT
from edgecxr.films.read import read_radiograph
from edgecxr.films.resize import to_base
from tests.films.dicom_files import film, lookup, write


def films(folder: Path) -> dict[str, Path]:
    """Return films of all kinds of grey-scale pipelines."""
    rows, columns = np.mgrid[:300, :260]
    twelve = (rows * 10 + columns * 3 + np.random.default_rng(0).integers(0, 99, rows.shape)).astype(np.uint16)
    window = {"BitsStored": 12, "WindowCenter": 1700, "WindowWidth": 2500}
    dark = np.rint(np.linspace(0, 3000, 4096)).astype(int).tolist()
    datasets = {
        "window": film(twelve, **window),
        "sigmoid": film(twelve, **window, VOILUTFunction="SIGMOID"),
        "inverted": film(twelve, **window, PhotometricInterpretation="MONOCHROME1"),
        "percentiles": film(twelve, BitsStored=12),
        "signed": film((twelve.astype(np.int16) - 1500), BitsStored=13, WindowCenter=200, WindowWidth=2000),
        "rescaled": film(twelve, BitsStored=12, RescaleSlope=2, RescaleIntercept=-9, WindowCenter=3e3, WindowWidth=4e3),
        "high bits": film(twelve << 4, **window, HighBit=15),
        "table of 12 bits": film(twelve, BitsStored=12, VOILUTSequence=[lookup(dark, 0, 12)]),
        "table of 14 bits": film(twelve, BitsStored=12, VOILUTSequence=[lookup(dark, 0, 14)]),
        "table of 16 bits": film(twelve, BitsStored=12, VOILUTSequence=[lookup(dark, 0, 16)]),
        "padding": film(np.where(columns < 40, 4095, twelve).astype(np.uint16), BitsStored=12, PixelPaddingValue=4095),
        "8 bits": film((twelve >> 4).astype(np.uint8)),
        "colour": film(np.stack([twelve >> 4] * 3, -1).astype(np.uint8)),
        "turned": film(twelve, **window, PatientOrientation=["F", "L"]),
    }
    paths = {}
    for name, dataset in datasets.items():
        (folder / name).mkdir()
        paths[name] = write(dataset, folder / name)
    for name, pixels in {"png": (twelve >> 4).astype(np.uint8), "png of 16 bits": twelve << 4}.items():
        paths[name] = folder / f"{name}.png"
        Image.fromarray(pixels).save(paths[name])
    return paths


def test_films_give_the_pixels_of_this_format(tmp_path: Path) -> None:
    digests = {
        name: hashlib.sha256(to_base(read_radiograph(path).held).tobytes()).hexdigest()[:12]
        for name, path in films(tmp_path).items()
    }
    assert (FORMAT, digests) == (4, PIXELS), "films give other pixels: increase FORMAT, and write the new ones here"


PIXELS = {
    "window": "727939a00602",
    "sigmoid": "af1baaee731c",
    "inverted": "24bcc0c9cdab",
    "percentiles": "8a28438f0bf9",
    "signed": "536818eeb6eb",
    "rescaled": "a7495c53f3ae",
    "high bits": "727939a00602",
    "table of 12 bits": "944001e50f90",
    "table of 14 bits": "944001e50f90",
    "table of 16 bits": "944001e50f90",
    "padding": "6e54790c81ff",
    "8 bits": "3c5048d5ab2a",
    "colour": "3c5048d5ab2a",
    "turned": "405295153d09",
    "png": "3c5048d5ab2a",
    "png of 16 bits": "d109844c3835",
}

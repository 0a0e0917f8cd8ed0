"""What edgecxr shows of a film beside what two other programs do: GDCM's gdcmconv decodes it, DCMTK renders it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from edgecxr.benchmark.synthetic_film import write_films
from edgecxr.errors import InputError
from edgecxr.films.read import read_film, read_radiograph
from edgecxr.films.resize import BASE_SIZE
from edgecxr.phantom import dicom_file
from edgecxr.phantom.film import PhantomFilm, render
from tests.films.dicom_files import film, lookup, write

ALIKE = 0.99  # least rank correlation of the two 224 px images
GREY_LEVELS = 1.1  # of 255, that a pixel may differ by before any resize: DCMTK cuts fractions off

SEEDS = {"MONOCHROME1": 0, "MONOCHROME2": 2}
"""Of `encode`, which draws the polarity; a test says so if these draw another."""

WINDOW: dict[str, Any] = {"BitsStored": 12, "WindowCenter": 2000, "WindowWidth": 3000}
FORMS: dict[str, dict[str, Any]] = {
    "window": WINDOW,
    "first of two windows": WINDOW | {"WindowCenter": [2000, 100], "WindowWidth": [3000, 50]},
    # Half a grey value more or less, which LINEAR and LINEAR_EXACT differ by, is seen in a narrow window only.
    "narrow window": WINDOW | {"WindowWidth": 40},
    "16 bits": WINDOW | {"BitsStored": 16},
    "signed": WINDOW | {"PixelRepresentation": 1, "WindowCenter": -50},
    "rescale": WINDOW | {"RescaleSlope": 0.5, "RescaleIntercept": -100, "WindowCenter": 900, "WindowWidth": 1500},
    "negative slope": WINDOW | {"RescaleSlope": -1, "RescaleIntercept": 4095},
    "modality LUT": WINDOW | {"ModalityLUTSequence": [lookup([4095 - i for i in range(4096)], 0, 12)]},
    "sigmoid": WINDOW | {"VOILUTFunction": "SIGMOID"},
    "linear exact": WINDOW | {"VOILUTFunction": "LINEAR_EXACT"},
    "LUT before window": WINDOW | {"VOILUTSequence": [lookup([i * 3 for i in range(3000)], 500, 14)]},
    "8-bit LUT": {"BitsStored": 12, "VOILUTSequence": [lookup([(i // 4) ** 2 // 4112 for i in range(4096)], 0, 8)]},
    "both inverse": WINDOW | {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"},
    "MONOCHROME2 and INVERSE": WINDOW | {"PresentationLUTShape": "INVERSE"},
    "nothing": {"BitsStored": 12},
}

# Where the two must part, and why ours stays as it is.
EXPLAINED: dict[str, dict[str, Any]] = {
    # PS3.3 C.8.11.3 wants INVERSE here. DCMTK goes by the shape; we invert, and say so.
    "MONOCHROME1 and IDENTITY": WINDOW
    | {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
    # DCMTK shows padding as image, white here; it is none (C.7.5.1.1.2), and ours is as dark as air.
    "padding of MONOCHROME1": WINDOW | {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": 0},
    # gdcmconv lowers HighBit and leaves the values where they were; DCMTK alone agrees with us.
    "values shifted up": WINDOW | {"HighBit": 15},
    # The window shows black and white only; we set the contrast by percentiles, and say so.
    "a window that hides the film": WINDOW | {"WindowWidth": 1},
}


@pytest.fixture(scope="module")
def renderer() -> str:
    """Return the name of DCMTK's renderer: old versions have a second one, which reads JPEG too."""
    tools = [tool for tool in ("dcmj2pnm", "dcm2pnm") if shutil.which(tool)]
    if not tools or not shutil.which("gdcmconv"):
        pytest.skip("needs gdcmconv and dcmj2pnm: apt install libgdcm-tools dcmtk")
    return tools[0]


@pytest.fixture(scope="module")
def phantom() -> PhantomFilm:
    return render(seed=0, index=3)


def rendered(path: Path, folder: Path, renderer: str) -> np.ndarray:
    """Return what GDCM and DCMTK make of a film, (H, W) uint8; `folder` is for their files.

    Raises:
        subprocess.CalledProcessError: one of them cannot read it.
    """
    raw, picture = folder / "raw.dcm", folder / "picture.pgm"
    raw.unlink(missing_ok=True)  # of another film
    done = subprocess.run(["gdcmconv", "--raw", path, raw], check=True, capture_output=True, timeout=60)
    if not raw.exists():  # what gdcmconv ends with, where it fails, is now this, now that
        raise subprocess.CalledProcessError(done.returncode, done.args)
    # Overlays are no part of the film.
    command = [renderer, "--no-overlays", *shown_by(dcmread(raw)), raw, picture]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with Image.open(picture) as image:
        return np.asarray(image.convert("L"))


def shown_by(dataset: Dataset) -> tuple[str, ...]:
    """Return the options by which DCMTK shows a film as its file asks; without them it shows all possible values."""
    if dataset.get("VOILUTSequence"):
        return ("--use-voi-lut", "1")
    return ("--use-window", "1") if dataset.get("WindowCenter") else ()


def rank_correlation(ours: np.ndarray, other: np.ndarray) -> float:
    """Return Spearman's: Pearson's of the ranks, ties at their mean rank."""
    return float(np.corrcoef(ranks(ours), ranks(other))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def compared(path: Path, picture: np.ndarray) -> tuple[float, float]:
    """Return the rank correlation of the two 224 px images, and by how many grey levels pixels differ at most.

    The latter is 0 of a film that was decoded at half its size: how far that differs is another test's.
    """
    small = Image.fromarray(picture).resize((BASE_SIZE, BASE_SIZE), Image.Resampling.BOX)
    pixels = read_radiograph(path).pixels
    apart = np.abs(255 * pixels - picture).max() if pixels.shape == picture.shape else 0.0
    return rank_correlation(read_film(path).image, np.asarray(small)), float(apart)


def assert_alike(path: Path, folder: Path, renderer: str) -> None:
    correlation, apart = compared(path, rendered(path, folder, renderer))
    assert correlation >= ALIKE, f"{path.name}: the rank correlation is {correlation:.4f}"
    dataset = dcmread(path)
    if shown_by(dataset) or dataset.BitsStored <= 8:  # else the file does not say what is black and white
        assert apart <= GREY_LEVELS, f"{path.name}: {apart:.1f} grey levels apart"


def write_form(folder: Path, phantom: PhantomFilm, elements: dict[str, Any], syntax: str) -> Path:
    stored = np.rint(4095 * phantom.pixels).astype(np.uint16)
    if elements.get("PixelRepresentation") == 1:
        stored = (stored - np.uint16(2048)).view(np.int16)
    if elements.get("HighBit") == 15:
        stored <<= 4
    dataset = film(stored, **elements)
    dataset.file_meta.TransferSyntaxUID = syntax
    return write(dataset, folder)


def test_ties_take_their_mean_rank() -> None:
    assert ranks(np.array([[30, 10], [30, 20]])).tolist() == [3.5, 1, 3.5, 2]
    assert rank_correlation(np.array([1, 2, 3, 9]), np.array([0, 4, 5, 6])) == pytest.approx(1)
    # By hand: ranks 1 2.5 2.5 4 and 1 3 2 4 have a covariance of 4.5, and squares of 4.5 and 5.
    assert rank_correlation(np.array([1, 2, 2, 3]), np.array([1, 3, 2, 4])) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


@pytest.mark.parametrize("photometric", SEEDS)
@pytest.mark.parametrize("display", dicom_file._DISPLAYS)
@pytest.mark.parametrize("syntax", dicom_file._SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_phantoms_are_shown_alike_in_every_syntax_display_and_polarity(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    renderer: str,
    phantom: PhantomFilm,
    syntax: str,
    display: str,
    photometric: str,
) -> None:
    monkeypatch.setattr(dicom_file, "_SYNTAXES", {syntax: 1})
    monkeypatch.setattr(dicom_file, "_DISPLAYS", {display: 1})
    path = tmp_path / "film.dcm"
    path.write_bytes(dicom_file.encode(phantom, SEEDS[photometric]))
    dataset = dcmread(path)
    assert (dataset.PhotometricInterpretation, dataset.file_meta.TransferSyntaxUID) == (photometric, syntax)
    assert_alike(path, tmp_path, renderer)


def test_films_that_times_are_measured_on_are_shown_alike(tmp_path: Path, renderer: str) -> None:
    for path in write_films(tmp_path, rows=750, columns=614):
        assert_alike(path, tmp_path, renderer)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=("implicit", "explicit"))
def test_all_that_a_header_can_ask_for_is_shown_alike(
    tmp_path: Path, renderer: str, phantom: PhantomFilm, form: str, syntax: str
) -> None:
    assert_alike(write_form(tmp_path, phantom, FORMS[form], syntax), tmp_path, renderer)


@pytest.mark.parametrize("form", EXPLAINED)
def test_the_explained_exceptions_are_still_exceptions(
    tmp_path: Path, renderer: str, phantom: PhantomFilm, form: str
) -> None:
    path = write_form(tmp_path, phantom, EXPLAINED[form], ExplicitVRLittleEndian)
    correlation, _ = compared(path, rendered(path, tmp_path, renderer))
    assert correlation < ALIKE


@pytest.mark.corpus
def test_real_films_are_shown_alike(tmp_path: Path, renderer: str) -> None:
    corpus = os.environ.get("EDGECXR_CORPUS")
    if not corpus:
        pytest.skip("EDGECXR_CORPUS is not set")
    alike = 0
    for path in sorted((Path(corpus) / "dicom" / "cxr").iterdir()):
        try:
            read_film(path)
        except InputError as error:
            assert error.reason == "undecodable"
            with pytest.raises(subprocess.CalledProcessError):  # nor can they
                rendered(path, tmp_path, renderer)
            continue
        assert_alike(path, tmp_path, renderer)
        alike += 1
    assert alike >= 5

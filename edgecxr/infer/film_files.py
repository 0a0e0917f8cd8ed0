"""Writer of a film's picture and DICOM files.

A picture lies below the folder of `--overlay` as its film lies below the folder that was searched. One that is another
film's is never replaced: the new picture's name then carries a checksum of its film's path.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecxr.errors import brief
from edgecxr.films.find import PICTURE_MARK
from edgecxr.films.radiograph import FilmRead
from edgecxr.infer.prediction import Prediction
from edgecxr.registry import load
from edgecxr.storage.atomic import atomic_write, write_new
from edgecxr.storage.reading import BadFile, open_file
from edgecxr.terminal import say

if TYPE_CHECKING:
    from edgecxr.infer.dicom.dicom_results import DicomResults
    from edgecxr.infer.predictor import Predictor

DICOM_RESULTS = "edgecxr.infer.dicom.dicom_results:DicomResults"

_REMEDY = "give another folder with --overlay"
_LONGEST = 200  # bytes of a film's name in that of its picture; a name may have 255
_HEAD = 512  # bytes of a PNG file that hold its first texts


class FilmFiles:
    """Writer of a film's picture and DICOM files.

    Args:
        predictor: the model of the predictions.
        pictures: folder of pictures; None for none.
        dicom: folder of DICOM files; None for none.
        patient: whether the DICOM files say who the patient is.

    Attributes:
        display: whether a film is needed as a picture.
        header: the kind of header that DICOM files need, as an argument of `Readers.read`; None without them.
    """

    def __init__(self, predictor: Predictor, pictures: Path | None, dicom: Path | None, patient: bool = True) -> None:
        self._pictures = pictures
        self._dicom: DicomResults | None = None
        if dicom is not None:
            self._dicom = load(DICOM_RESULTS, "--dicom")(dicom, predictor, patient)
        self.display = pictures is not None or dicom is not None
        self.header = None if self._dicom is None else self._dicom.header

    def write(self, film: FilmRead, prediction: Prediction, folder_of: Mapping[Path, Path]) -> dict[str, Any]:
        """Write a film's requested picture and DICOM files, and say their paths.

        Args:
            film: the film.
            prediction: its prediction.
            folder_of: film that was found -> the folder that was searched.

        Returns:
            "overlay", or "overlay_reason" if it could not be drawn, and "dicom", as in a JSON line.

        Raises:
            UsageError: a file cannot be written.
        """
        outcome: dict[str, Any] = {}
        if self._pictures is not None:
            try:
                picture = _drawn(film, prediction)
            except Exception as error:  # the other films are still drawn
                say(f"no picture of {film.source}: {type(error).__name__}, {brief(error)}")
                outcome["overlay_reason"] = "not-drawn"
            else:
                target, replaced = self._file_picture(self._pictures, Path(film.source), folder_of, picture)
                say(f"overlay: {target}{' (replaced)' if replaced else ''}")
                outcome["overlay"] = str(target)
        if self._dicom is not None:
            filed = self._dicom.write(film, prediction)
            say(filed.message)
            outcome["dicom"] = {
                "files": list(filed.files),
                "reason": filed.reason,
                "message": filed.message,
                "patient": self._dicom.patient,
            }
        return outcome

    @staticmethod
    def _file_picture(
        pictures: Path, film: Path, folder_of: Mapping[Path, Path], picture: memoryview
    ) -> tuple[Path, bool]:
        """Write a picture.

        Returns:
            Its place, and whether an earlier picture of the film was there.
        """
        target, there = _place(pictures, film, folder_of)
        if not there and write_new(target, picture, _REMEDY):
            return target, False
        target, there = _place(pictures, film, folder_of)  # another run may have taken the place since
        atomic_write(target, picture, _REMEDY)
        return target, there


def lacks(outcome: Mapping[str, Any]) -> bool:
    """Return whether a film lacks what was asked for."""
    reason = outcome["dicom"]["reason"] if outcome.get("dicom") else None
    return bool(outcome.get("overlay_reason")) or reason not in (None, "may-show-names")


def _drawn(film: FilmRead, prediction: Prediction) -> memoryview:
    """Return a film's picture as a PNG file with its mark."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from edgecxr.infer.overlay import overlay

    assert film.display is not None
    texts = PngInfo()
    texts.add_text(PICTURE_MARK, _mark(Path(film.source)))
    picture = io.BytesIO()
    drawn = overlay(Image.fromarray(film.display), prediction, Path(film.source).name)
    drawn.save(picture, format="PNG", pnginfo=texts)
    return picture.getbuffer()


def _mark(film: Path) -> str:
    """Return a checksum of a film's path.

    The path itself is not written into a picture, since folders may be named after patients.
    """
    return hashlib.sha256(os.fsencode(film.absolute())).hexdigest()


def _place(pictures: Path, film: Path, folder_of: Mapping[Path, Path]) -> tuple[Path, bool]:
    """Return the place of a film's picture, and whether it is there."""
    below = film.relative_to(folder_of[film]) if film in folder_of else Path(film.name)
    mark = _mark(film)
    stem = below.name
    while len(os.fsencode(stem)) > _LONGEST:
        stem = stem[:-1]
    plain, own = (pictures / below.parent / f"{name}.png" for name in (stem, f"{stem}.{mark[:16]}"))
    if stem == below.name and not os.path.lexists(plain):
        return plain, False
    if stem == below.name and mark in _head(plain):
        return plain, True
    return own, os.path.lexists(own)


def _head(picture: Path) -> str:
    try:
        with open_file(picture) as file:
            return file.read(_HEAD).decode("latin-1")
    except (OSError, BadFile):
        return ""

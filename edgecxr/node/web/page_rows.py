"""What the process that reads films leaves for the web page.

The web process decodes no film: it sends these pictures as they are.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from dataclasses import replace
from typing import Any

from PIL import Image

from edgecxr.bundle.tested import of_test_films
from edgecxr.films.radiograph import FilmRead, Objection
from edgecxr.infer.overlay import attention_layer
from edgecxr.infer.prediction import Prediction, Rejection
from edgecxr.infer.predictor import Predictor
from edgecxr.node.spool import Spool, moved
from edgecxr.node.web.queries import ATTENTION, FILM
from edgecxr.vocabulary import ABNORMAL

_FAST = 1  # zlib's level: a tenth larger than the default one, in a third of the time


def add_page(spool: Spool, number: int, read: FilmRead | None, result: Prediction | Rejection, phi: bool) -> None:
    """Store what the web page shows of a film, besides its prediction.

    Done again it replaces what was there. Without `phi` no name is stored, and no picture unless the film says that
    its pixels show no names.

    Args:
        spool: the spool.
        number: of the film.
        read: the film, if it could be read.
        result: of the film.
        phi: whether the page says who the patient is.

    Raises:
        OSError: a picture cannot be written.
        sqlite3.Error: the row cannot be written.
    """
    header = (read.header if read else getattr(result, "header", None)) or {}
    pictures = []
    if read is not None and read.display is not None and (phi or header.get("BurnedInAnnotation") == "NO"):
        pictures.append((FILM, Image.fromarray(read.display)))
        if isinstance(result, Prediction):
            pictures.append((ATTENTION, attention_layer(result.attention)))
    for kind, picture in pictures:
        with spool.written(_png(picture)) as building:
            moved(building, spool.picture_path(number, kind))
    abnormal = int(result.decisions[ABNORMAL]) if isinstance(result, Prediction) else None
    with spool.transaction() as run:
        study = run("SELECT study FROM film WHERE id = ?", number).fetchone()[0]
        patient, patient_id = (_named(header.get("PatientName")), header.get("PatientID")) if phi else (None, None)
        run(
            "INSERT OR REPLACE INTO page VALUES (?, ?, ?, ?, ?, ?)",
            *(number, patient if phi else pseudonym(study), patient_id, abnormal, _findings(result), len(pictures)),
        )


def without_names(result: Rejection) -> Rejection:
    """Return a rejection whose messages quote nothing of the film."""
    gate = result.gate
    if gate is not None:
        gate = replace(gate, objections=tuple(Objection(each.reason, "") for each in gate.objections))
    return replace(result, message="", gate=gate, header=None)


def pseudonym(study: str) -> str:
    """Return a name for a study's patient, such as "study K4F9-QX2M"."""
    code = base64.b32encode(hashlib.sha256(study.encode()).digest()).decode()
    return f"study {code[:4]}-{code[4:8]}"


def model_note(predictor: Predictor, sha256: str) -> dict[str, Any]:
    """Return what the page says of the model and its card.

    Args:
        predictor: the model.
        sha256: of the file that runs.
    """
    card = predictor.card
    return {
        "name": card.name,
        "precision": predictor.precision,
        "backend": predictor.backend,
        "operating_point": predictor.operating_point,
        "sha256": sha256,
        "size": card.size,
        "data": str(card.data.get("name", "")),
        "edgecxr": card.version,
        "warnings": list(predictor.warnings),
        "labels": list(card.labels),
        "tested": {
            name: [result.auroc.value, result.auroc.low, result.auroc.high, result.positives, result.negatives]
            for name, result in of_test_films(card).items()
        },
    }


def _findings(result: Prediction | Rejection) -> str:
    """Return the findings at or above their thresholds as JSON.

    Each has its name and whether it is unreliable, in the order of the model's card.
    """
    if isinstance(result, Rejection):
        return "[]"
    return json.dumps([[name, result.unreliable(name)] for name in result.findings if result.decisions[name]])


def _named(name: str | None) -> str | None:
    """Return a DICOM person name as people write it: "Quispe, Jane"."""
    if not name:
        return name
    family, _, rest = name.split("=")[0].partition("^")
    return ", ".join(part for part in (family.strip(), " ".join(rest.split("^")).strip()) if part)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=_FAST)
    return file.getvalue()

"""Results, and a sender of them whose steps a test takes."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edgecxr.films.header import read_header
from edgecxr.films.read import read_film
from edgecxr.infer.dicom.objects import DicomObject, Origin, dicom_objects
from edgecxr.infer.predictor import Predictor
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop
from edgecxr.node.sending.destination import Destination
from edgecxr.node.sending.send import Sender
from edgecxr.node.spool import Spool
from tests.films.dicom_files import film, write
from tests.node.test_spool import add
from tests.tiny_bundle import tiny_bundle


def made_results(folder: Path) -> tuple[DicomObject, ...]:
    """Return a report and a picture."""
    stated = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": "1.2.5"}
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32] = 200
    path = write(film(pixels, **stated), folder, "film.dcm")
    predictor = Predictor(tiny_bundle(folder / "model"))
    read = dataclasses.replace(read_film(path, display=True), header=read_header(path, "patient"))
    when = datetime(2026, 3, 1, tzinfo=timezone.utc)
    return dicom_objects(read, predictor.predict(path), Origin.of(predictor), when).objects


class Node:
    """A sender whose steps a test takes, and what it sends."""

    def __init__(self, folder: Path, destination: Destination, results: tuple[DicomObject, ...], **config: Any) -> None:
        self.spool = Spool(folder / "state")
        self.deliveries = Deliveries(self.spool)
        self.sender = Sender(destination, NodeConfig(state=str(self.spool.folder), **config), self.spool, Stop())
        self.film = add(self.spool, "1.2.5")
        self.deliveries.add(self.film, results, ["pacs"])

    def step(self) -> bool:
        return self.sender.step()

    def again(self) -> bool:
        """Take a step as if all pauses were over."""
        with self.spool.transaction() as run_:
            run_("UPDATE delivery SET due = 0 WHERE state = 'waiting'")
        self.sender._not_before = 0.0
        return self.sender.step()

    @property
    def state(self) -> str:
        return str(self.spool.read("SELECT state FROM film")[0][0])

    @property
    def counts(self) -> dict[str, int]:
        return self.deliveries.counts()["pacs"]

    def close(self) -> None:
        self.sender._connection.release()
        self.spool.close()

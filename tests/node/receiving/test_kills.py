"""Whatever is killed, at whatever moment: what was acknowledged is there, whole, and once."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")

from pynetdicom import AE
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation as DX

from edgecxr.node.intake import identify
from edgecxr.node.spool import Spool
from tests.films.dicom_files import film, write
from tests.node.running import configured, eventually, free_port, role

SYNTAX = "1.2.840.10008.1.2.1"


class Sender(threading.Thread):
    """A modality that sends films one after the other, each again until it is acknowledged."""

    def __init__(self, port: int, template: Dataset, name: str) -> None:
        super().__init__(daemon=True)
        self.port, self.template, self.root = port, template, name
        self.acknowledged: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.ended.is_set():
            entity = AE("MODALITY")
            entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
            entity.add_requested_context(DX, SYNTAX)
            association = entity.associate("127.0.0.1", self.port, ae_title="EDGE")
            while association.is_established and not self.ended.is_set():
                self.template.SOPInstanceUID = f"1.6.{self.root}.{number}"
                try:
                    answer = association.send_c_store(self.template)
                except (RuntimeError, ValueError):
                    break
                if answer.get("Status") != 0:
                    break
                self.acknowledged.append(self.template.SOPInstanceUID)
                number += 1
            association.abort()
            self.ended.wait(0.05)


@pytest.mark.parametrize("kills", [4, pytest.param(200, marks=pytest.mark.long)])
def test_no_film_is_lost_when_the_receiver_is_killed(tmp_path: Path, kills: int) -> None:
    moment = random.Random(kills)
    pixels = np.random.default_rng(0).integers(0, 255, (700, 700), np.uint8)
    template = dcmread(write(film(pixels, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4"), tmp_path, "film.dcm"))
    config = configured(tmp_path, port=free_port())
    port = int(config.read_text().partition("port = ")[2].split()[0])
    senders = [Sender(port, dcmread(tmp_path / "film.dcm"), str(number)) for number in range(3)]
    for sender in senders:
        sender.start()
    total = 0
    for _ in range(kills):
        with role("receive", config) as process:
            process.says("listens on")
            before = sum(len(sender.acknowledged) for sender in senders)
            # At least one film each time, so that a slow machine proves as much as a fast one.
            eventually(lambda before=before: sum(len(sender.acknowledged) for sender in senders) > before)
            time.sleep(moment.uniform(0, 0.3))
        total = sum(len(sender.acknowledged) for sender in senders)
    for sender in senders:
        sender.ended.set()
    for sender in senders:
        sender.join(timeout=60)
    with role("receive", config) as process:
        process.says("listens on")
        assert process.stop() == 0
    acknowledged = {uid for sender in senders for uid in sender.acknowledged}
    assert total >= kills and len(acknowledged) >= total
    with Spool(tmp_path / "state") as spool:
        rows = spool.read("SELECT id, uid, digest, twin FROM film")
        assert acknowledged <= {row["uid"] for row in rows}
        assert len({row["uid"] for row in rows}) == len(rows) and all(row["twin"] is None for row in rows)
        assert {path.name for path in spool.films.iterdir()} == {f"{row['id']}.dcm" for row in rows}
        assert list(spool.incoming.iterdir()) == []
        for row in rows:
            identity = identify(spool.film_path(row["id"]))
            assert (identity.uid, identity.digest) == (row["uid"], row["digest"])
        assert dcmread(spool.film_path(rows[0]["id"])).PixelData == template.PixelData

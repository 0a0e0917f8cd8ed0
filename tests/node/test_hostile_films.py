"""Films that nobody wants to receive, through a whole node: each comes to an end, and none holds up another."""

from __future__ import annotations

import json
import os
import shutil
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread

pytest.importorskip("pynetdicom", reason="pynetdicom is not installed (extra node)")
pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")

from pynetdicom import AE, _config
from pynetdicom.dimse_primitives import C_STORE

from edgecxr.films.codestreams.pixel_data import SYNTAXES
from edgecxr.node.audit.audit_reading import entries, verify
from edgecxr.node.receiving.receive import CLASSES
from edgecxr.node.spool import Spool
from edgecxr.workers.new_python import command
from tests.cli_workspace import edgecxr
from tests.films.dicom_files import film, write
from tests.node.running import Process, configured, eventually, free_port, started
from tests.tiny_bundle import tiny_bundle

DX, EXPLICIT, DEFLATED = str(CLASSES[1]), "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
FINAL = {"filed", "refused", "rejected"}


@contextmanager
def node(folder: Path, more: str = "", workers: int = 1) -> Iterator[tuple[Process, int]]:
    """Provide a node without destinations, and its port."""
    port = free_port()
    model = str(tiny_bundle(folder / "model").path)
    config = configured(folder, more, port=port, model=model, workers=workers)
    with started(*command("edgecxr.cli:main", "serve", "--config", str(config))) as process:
        process.says("receive: EDGE listens on")
        yield process, port


def good(number: int, **elements: Any) -> Dataset:
    """Return a film that is read."""
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 200 + number % 50
    stated = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": f"1.5.{number}"}
    return film(pixels, PatientID="MRN-1", **stated | elements)


def encoded(dataset: Dataset, folder: Path) -> tuple[str, bytes]:
    """Return a data set's transfer syntax and bytes, without the file's preamble and meta information."""
    return raw(write(dataset, folder, "encoded.dcm").read_bytes())


def raw(content: bytes) -> tuple[str, bytes]:
    meta = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).file_meta
    (length,) = struct.unpack_from("<I", content, 140)
    return str(meta.TransferSyntaxUID), content[144 + length :]


class Modality:
    """A sender of data sets as they are, whatever they are."""

    def __init__(self, port: int, title: str = "MODALITY") -> None:
        self._port, self._entity = port, AE(title)
        self._entity.acse_timeout = self._entity.dimse_timeout = self._entity.network_timeout = 120
        for sop_class in CLASSES:
            for syntax in SYNTAXES:  # a context for each, so that it is known which one a film goes by
                self._entity.add_requested_context(sop_class, syntax)
        self._association: Any = None

    def send(self, sop_class: str, uid: str, syntax: str, content: bytes) -> int | None:
        """Send bytes as a film; return the status, or None if there was no answer or no way to send them."""
        if self._association is None or not self._association.is_established:
            self._association = self._entity.associate("127.0.0.1", self._port, ae_title="EDGE")
        contexts = [
            context.context_id
            for context in self._association.accepted_contexts
            if (str(context.abstract_syntax), str(context.transfer_syntax[0])) == (sop_class, syntax)
        ]
        if not contexts:
            return None
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = sop_class, uid
        request.DataSet = BytesIO(content)
        self._association._reactor_checkpoint.clear()
        try:
            self._association.dimse.send_msg(request, contexts[0])
            _, answer = self._association.dimse.get_msg(block=True)
        finally:
            self._association._reactor_checkpoint.set()
        if answer is None:  # it is being aborted, and may not know so far
            self._association = None
            return None
        return int(answer.Status)

    def close(self) -> None:
        if self._association is not None and self._association.is_established:
            self._association.release()


@pytest.fixture(autouse=True)
def any_uid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_config.VALIDATORS, "UI", lambda value: (True, ""))


def states(folder: Path) -> dict[str, tuple[str, str | None]]:
    with Spool(folder / "state") as spool:
        return {row["uid"]: (row["state"], row["reason"]) for row in spool.read("SELECT * FROM film")}


def all_final(folder: Path, count: int) -> bool:
    by_uid = states(folder)
    return len(by_uid) >= count and all(state in FINAL for state, _ in by_uid.values())


def unharmed(process: Process) -> None:
    """Check that no process of the node has ended, and that it printed nothing that a terminal obeys."""
    assert process.popen.poll() is None
    odd = [at for at, line in enumerate(process.lines) if "is started again" in line or "Traceback" in line]
    assert not odd, "\n".join(process.lines[odd[0] : odd[0] + 40])
    assert all(line.isprintable() for line in process.lines)


def bomb(folder: Path) -> bytes:
    """Return a deflated data set whose pixels have a gigabyte."""
    whole = encoded(good(101, Rows=32768, Columns=32768), folder)[1]
    begin = whole[: whole.index(b"\xe0\x7f\x10\x00")]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    parts = [packer.compress(begin + b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", 1 << 30))]
    parts += [packer.compress(bytes(1 << 20)) for _ in range(1 << 10)]
    return b"".join([*parts, packer.flush()])


@pytest.mark.long
def test_each_bad_film_gets_its_reason_and_the_next_ones_their_results(tmp_path: Path) -> None:
    with node(tmp_path) as (process, port):
        modality = Modality(port)
        whole = encoded(good(100), tmp_path)[1]
        sent = {
            "1.5.100": modality.send(DX, "1.5.100", EXPLICIT, whole[:-2000]),
            "1.5.101": modality.send(DX, "1.5.101", DEFLATED, bomb(tmp_path)),
            "1.5.102": modality.send(DX, "1.5.102", EXPLICIT, b"<html><body>log in</body></html>" * 50),
            "1.5.103": modality.send(DX, "1.5.103", EXPLICIT, b"PK\3\4" + bytes(5000)),
            "1.5.104": modality.send(DX, "1.5.104", EXPLICIT, b""),
        }
        assert [sent[uid] for uid in ("1.5.100", "1.5.101", "1.5.102", "1.5.103")] == [0, 0, 0xC000, 0xC000], sent
        assert sent["1.5.104"] != 0
        names = {"PatientName": "<script>alert(1)</script>^\x1b[2J", "PatientComments": "x" * 65_536}
        assert modality.send(DX, "1.5.105", *encoded(good(105, **names), tmp_path)) == 0
        # Two modalities that were given one AE title by mistake.
        twins, threads = [Modality(port), Modality(port)], []
        for number, twin in enumerate(twins, 106):
            content = encoded(good(number), tmp_path)
            threads.append(threading.Thread(target=twin.send, args=(DX, f"1.5.{number}", *content)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # A stranger with a name like a command.
        stranger = Modality(port, "<b>$(x)';--")
        assert stranger.send(DX, "1.5.108", *encoded(good(108), tmp_path)) is None
        eventually(lambda: all_final(tmp_path, 5), "all films are done with")
        by_uid = states(tmp_path)
        assert {uid: by_uid.pop(uid) for uid in ("1.5.105", "1.5.106", "1.5.107")} == {
            uid: ("filed", None) for uid in ("1.5.105", "1.5.106", "1.5.107")
        }
        assert {uid: state for uid, (state, _) in by_uid.items()} == {"1.5.100": "rejected", "1.5.101": "rejected"}
        assert by_uid["1.5.100"][1] == "malformed" and by_uid["1.5.101"][1] in ("too-large", "unsupported")
        for sender in (modality, *twins):
            sender.close()
        unharmed(process)
        assert process.stop() == 0
    kinds = Counter(
        entry["EventIdentification"]["EventTypeCode"][-1]["csd-code"] for entry in entries(tmp_path / "state")
    )
    assert verify(tmp_path / "state").torn == [] and kinds["association-refused"] == 1
    assert (kinds["film-received"], kinds["film-read"], kinds["film-rejected"]) == (5, 3, 2)


@pytest.fixture
def corpus() -> list[Path]:
    root = os.environ.get("EDGECXR_CORPUS")
    if not root:
        pytest.skip("EDGECXR_CORPUS is not set")
    return sorted(path for path in Path(root, "dicom").rglob("*") if path.is_file() and path.suffix != ".csv")


@pytest.mark.corpus
@pytest.mark.long
def test_the_whole_corpus_comes_to_its_end(tmp_path: Path, corpus: list[Path]) -> None:
    folder = tmp_path / "in"
    for number, path in enumerate(corpus):
        (folder / str(number)).mkdir(parents=True)
        shutil.copyfile(path, folder / str(number) / path.name)
    answers: Counter[str] = Counter()
    with node(tmp_path, f'[[watch]]\nfolder = "{folder}"\n', workers=2) as (process, port):
        modality = Modality(port)
        for number, path in enumerate(corpus):
            try:
                content = path.read_bytes()
                header = dcmread(path, stop_before_pixels=True, specific_tags=["SOPClassUID", "SOPInstanceUID"])
                syntax, data = raw(content)
                stated, uid = str(header.get("SOPClassUID", DX)), str(header.get("SOPInstanceUID", "1.2"))
            except Exception:  # it has no meta information, so that no modality would send it
                answers["cannot be sent"] += 1
                continue
            status = modality.send(stated if stated in CLASSES else DX, uid[:64], syntax, data)
            answers["no answer" if status is None else f"0x{status:04X}"] += 1
            if number % 50 == 0:
                assert modality.send(DX, f"1.5.{number}", *encoded(good(number), tmp_path)) == 0
        with Spool(tmp_path / "state") as spool:
            listed = f"SELECT count(*) FROM watched WHERE path LIKE '{folder}/%'"
            eventually(lambda: spool.read(listed)[0][0] == len(corpus), "all files of the folder are looked at")
        eventually(lambda: all_final(tmp_path, 1), "all films are done with")
        last = Modality(port)
        assert last.send(DX, "1.5.9999", *encoded(good(9999), tmp_path)) == 0
        eventually(lambda: states(tmp_path).get("1.5.9999") == ("filed", None), "a good film after all of them")
        unharmed(process)
        modality.close()
        last.close()
        assert process.stop() == 0
    by_uid = states(tmp_path)
    assert all(
        by_uid[f"1.5.{number}"] == ("filed", None) for number in range(0, len(corpus), 50) if f"1.5.{number}" in by_uid
    )
    reasons = Counter(f"{state} {reason or ''}".strip() for state, reason in by_uid.values())
    assert reasons["filed"] > 10 and reasons["rejected crash"] == 0, (reasons, answers)
    assert verify(tmp_path / "state").torn == []
    trail = edgecxr("node", "audit", "--config", tmp_path / "node.toml", "--json", runs=tmp_path)
    assert trail.code == 0 and all(json.loads(line) for line in trail.out.splitlines())

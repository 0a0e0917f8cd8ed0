"""A node's web page in this process, on loopback, with films of every state; and a client of it."""

from __future__ import annotations

import dataclasses
import http.client
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from edgecxr.infer.film_readers import Readers
from edgecxr.infer.predictor import Predictor
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.http.listening_socket import listening_socket
from edgecxr.node.infer_films import FilmInference
from edgecxr.node.intake import take
from edgecxr.node.node_config import NodeConfig, Web
from edgecxr.node.node_process import Stop
from edgecxr.node.sending.destination import Destination
from edgecxr.node.spool import Spool
from edgecxr.node.web.page_rows import model_note
from edgecxr.node.web.web_process import made_page
from tests.films.dicom_files import film, write
from tests.node.running import PATIENCE, eventually

SCRIPT = "<script>alert(1)</script>"
MODALITY = Source("MODALITY", "127.0.0.1")
PACS = Destination("pacs", "PACS", "127.0.0.1", 104)
NO_PORT = Web(port=0)
ALL = ("/films", "/films/1", "/films/2", "/films/3", "/films/4", "/films/5", "/queue", "/health", "/sign-in")


def arrive(spool: Spool, folder: Path, uid: str, source: Source = MODALITY, **elements: Any) -> int:
    pixels = np.full((64, 64), 100, np.uint8)
    pixels[:32, :32], pixels[32:, :32] = 255, 0
    pixels[:32, 32:] = 200
    named = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.4", "SOPInstanceUID": uid}
    path = write(film(pixels, **named | elements), folder, "film.dcm")
    building, file = spool.new_file()
    with file:
        file.write(path.read_bytes())
        file.flush()
        return take(spool, building, file, source, Audit(NodeConfig(state=str(spool.folder)), "receive"))[0]


def infer(spool: Spool, predictor: Predictor, **config: Any) -> None:
    """Let films be read until none waits."""
    with Readers(1, tries=2) as readers:
        inference = FilmInference(
            NodeConfig(state=str(spool.folder), destination=(PACS,), **config), spool, readers, predictor, Stop()
        )
        spool.note("model", model_note(predictor, "0" * 64))

        def done() -> bool:
            inference._claim()
            inference._finish(readers.poll(1.0))
            return inference._queue.waiting() == 0

        eventually(done, "films are read")


def fill(folder: Path, scratch: Path, predictor: Predictor, phi: bool = True) -> None:
    """Make a state folder: films 1 filed, 2 given up, 3 refused, 4 rejected, 5 waiting."""
    with Spool(folder) as spool:
        arrive(spool, scratch, "1.1", PatientName="Quispe^Jane", PatientID="MRN-1")
        arrive(spool, scratch, "1.2", PatientName=f"{SCRIPT}^Bobby", PatientID='"><b>', StudyInstanceUID="1.2.9")
        arrive(spool, scratch, "1.3", PatientName="Side^Ways", PatientID="MRN-3", ViewPosition="LL")
        arrive(spool, scratch, "1.4", StudyInstanceUID=None, source=Source(f"{SCRIPT} & co"))
        infer(spool, predictor, phi=phi)
        deliveries = Deliveries(spool)
        for row in spool.read("SELECT id, film FROM result"):
            if row["film"] == 1:
                deliveries.set_sent(row["id"], "pacs")
            else:
                deliveries.set_failed(row["id"], "pacs", f"it said {SCRIPT}", None)
        spool.read("PRAGMA wal_checkpoint(TRUNCATE)")
        arrive(spool, scratch, "1.5", PatientName="Late^Lea", PatientID="MRN-5")


@dataclass
class Answer:
    """An answer to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Browser:
    """A client that keeps its cookies, and sends forms as a browser does."""

    port: int
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: str | bytes | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            if self.cookies:
                headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()
        if cookie := answer.headers.get("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, **fields: str) -> Answer:
        return self.ask("POST", path, urlencode(fields), **{"Content-Type": "application/x-www-form-urlencoded"})

    def form_token(self, path: str = "/sign-in") -> str:
        match = re.search(r'name="form" value="(\w+)"', self.get(path).text)
        assert match
        return match[1]

    def sign_in(self, name: str, password: str, to: str = "") -> Answer:
        return self.post("/sign-in", form=self.form_token(), name=name, password=password, to=to)


@contextmanager
def served(folder: Path, web: Web = NO_PORT, **config: Any) -> Iterator[Browser]:
    """Serve the page of a state folder; nothing asks who may listen where."""
    with listening_socket("web", web.address, web.port) as sock, Spool(folder) as spool:
        web = dataclasses.replace(web, port=sock.getsockname()[1])
        settings = NodeConfig(state=str(folder), web=web, **{"destination": (PACS,), **config})
        audit = Audit(settings, "web")
        stop = Stop()
        thread = stop.background("the page", lambda: made_page(settings, spool, None, audit).run(sock, stop))
        try:
            yield Browser(web.port)
        finally:
            stop.request()
            thread.join()
            stop.check()
            audit.write_counts()

"""The process that receives films by DICOMweb: STOW-RS (PS3.18, 10.5).

It answers that a film is stored only when it is on the disk, with its row in the database.
"""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgecxr.errors import UsageError, brief
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.receiving.http_connections import BadRequest, BoundedHandler, BoundedListener
from edgecxr.node.receiving.multipart_films import FilmParts, Outcome, boundary_of
from edgecxr.node.receiving.stow_settings import SHORTEST_TOKEN, Stow
from edgecxr.node.receiving.throttle import Throttle
from edgecxr.node.secret_file import read_secret
from edgecxr.node.spool import ChangingNote, Spool
from edgecxr.node.tls.certificates import Renewed, Tls, server_context
from edgecxr.terminal import say

RETRY_SECONDS = 60
"""Seconds after which a client may try again where there is no room."""

_PATH = re.compile(r"/dicomweb/studies(?:/([0-9.]{1,64}))?/?")
_HERE = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


def main() -> None:
    """Run the process."""
    run_role("stow", _stow)


def _stow(config: NodeConfig, stop: Stop) -> None:
    if config.stow is None:
        raise UsageError("the configuration has no [stow]: add it")
    with Spool(config.folder) as spool:
        stop.follow_supervisor()
        with listening(config, config.stow, spool, stop) as listener:
            by = "https" if config.tls else "http"
            say(f"stow: listens on {by}://{config.stow.address}:{listener.server_address[1]}/dicomweb/studies")
            stop.wait()


@contextmanager
def listening(config: NodeConfig, stow: Stow, spool: Spool, stop: Stop) -> Iterator[BoundedListener]:
    """Receive films in threads of this process, until the block ends.

    Raises:
        UsageError: the address cannot be listened on, or a certificate or the token cannot be used.
    """
    tls = None if config.tls is None else _certificates(config.tls)
    if stow.token_file is not None:
        read_secret(stow.token_file, SHORTEST_TOKEN)
    audit = Audit(config, "stow")
    handler = type("Handler", (_Handler,), {"limits": config.limits, "spool": spool, "stow": stow, "audit": audit})

    refused = ChangingNote(spool, "refused.stow")

    def each_second() -> None:
        refused.update(dict(listener.refused))
        audit.write_counts(time.monotonic())
        if tls is not None:
            tls.context()
            tls.remind()

    try:
        listener = BoundedListener((stow.address, stow.port), handler, config.limits, tls, each_second)
    except OSError as error:
        raise UsageError(
            f"{stow.address} port {stow.port} cannot be listened on ({error.strerror}): end what listens there, or "
            "give another `port` in [stow]"
        ) from error
    stop.background("the listener", listener.serve_forever)
    try:
        yield listener
    finally:
        listener.shutdown()
        listener.server_close()
        audit.write_counts()


def _certificates(tls: Tls) -> Renewed:
    """Return what the listener proves itself with.

    Senders show a token, and no certificate.
    """
    own = Tls(tls.certificate, tls.key)
    return Renewed(lambda: server_context(own), [tls.certificate, tls.key], "stow")


class _Handler(BoundedHandler):
    """The answers to a client."""

    spool: Spool
    stow: Stow
    audit: Audit
    throttle = Throttle()  # of all clients

    def do_POST(self) -> None:
        """Store the films of a request."""
        address = str(self.client_address[0])
        parts, close = None, True
        try:
            path = _PATH.fullmatch(self.path.partition("?")[0])
            if path is None:
                raise BadRequest("films are stored at /dicomweb/studies", 404)
            self._authenticate(address)
            boundary = boundary_of(self.headers.get("Content-Type", ""))
            body = self.body()
            self.go_on()
            parts = FilmParts(self.spool, self.limits, Source("STOW", address), self.audit, path[1], self._give_time)
            self._give_time()
            parts.read(boundary, body)
            status, words, close = _status(parts.outcomes), "", False
        except BadRequest as error:
            status, words = error.status, str(error)
        except TimeoutError as error:
            status, words = 408, brief(error)
        headers = {}
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="edgecxr"'
            self.audit.refused(Source("STOW", address), words)
        if status == 503:
            headers["Retry-After"] = str(RETRY_SECONDS)
        if words and status != 404:
            self._say(address, words)
        if parts is not None and (parts.outcomes or not words):
            content = json.dumps([response(parts.outcomes)]).encode()
            self.answer(status, content, "application/dicom+json", headers, close)
        else:
            self.answer(status, f"{words}\n".encode(), "text/plain; charset=utf-8", headers, close)

    def do_GET(self) -> None:
        """Say that nothing can be fetched here."""
        known = _PATH.fullmatch(self.path.partition("?")[0]) is not None
        words = b"films are stored here by POST\n" if known else b"films are stored at /dicomweb/studies\n"
        headers = {"Allow": "POST"} if known else {}
        self.answer(405 if known else 404, words, "text/plain; charset=utf-8", headers, close=True)

    do_HEAD = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_GET

    def _give_time(self) -> None:
        self.reader.until = time.monotonic() + self.limits.object_seconds

    def _authenticate(self, address: str) -> None:
        if self.stow.token_file is None:
            # A browser here may be told by a stranger's page that the stranger's name is this address.
            if _HERE.fullmatch(self.headers.get("Host", "localhost")) is None:
                raise BadRequest("it is addressed to another name than localhost", 403)
            return
        try:
            token = read_secret(self.stow.token_file, SHORTEST_TOKEN)
        except UsageError as error:
            self._say("", str(error))
            raise BadRequest("the node has no token", 503) from error
        scheme, _, shown = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            shown.strip().encode("utf-8", "replace"), token.encode()
        ):
            raise BadRequest("the token is missing, or another one", 401)

    def _say(self, address: str, words: str) -> None:
        """Say what was refused; an address is named once in ten minutes."""
        if self.throttle.allows(address):
            say(f"stow: refused a request{f' of {address}' if address else ''}: {words}")


def _status(outcomes: Sequence[Outcome]) -> int:
    failed = sum(outcome.status != 0 for outcome in outcomes)
    return 200 if not failed else 409 if failed == len(outcomes) else 202


def response(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the store instances response (PS3.18, I.2) as DICOM JSON.

    Args:
        outcomes: of all films.
    """
    stored, failed, others = [], [], []
    for outcome in outcomes:
        reason = {"00081197": {"vr": "US", "Value": [outcome.status]}}
        named = {
            "00081150": {"vr": "UI", "Value": [outcome.sop_class]},
            "00081155": {"vr": "UI", "Value": [outcome.uid]},
        }
        if not outcome.status:
            stored.append({**named, "00081190": {"vr": "UR"}})
        elif outcome.uid and outcome.sop_class:
            failed.append({**named, **reason})
        else:
            others.append(reason)
    data_set: dict[str, Any] = {"00081190": {"vr": "UR"}}  # nothing can be retrieved from the node
    for tag, items in (("00081198", failed), ("00081199", stored), ("0008119A", others)):
        if items:
            data_set[tag] = {"vr": "SQ", "Value": items}
    return data_set

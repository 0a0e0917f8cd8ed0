"""The process that receives films by DICOMweb: STOW-RS (PS3.18, 10.5).

It answers that a film is stored only when it is on the disk, with its row in the database.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from edgecxr.errors import UsageError, brief
from edgecxr.node.audit.audit_events import Audit, Source
from edgecxr.node.http.bounded_connection import Bounds
from edgecxr.node.http.http_listener import HttpListener
from edgecxr.node.http.listening_socket import listening_socket
from edgecxr.node.limits import Limits
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.receiving.answers import BadRequest
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
        with listening(config, config.stow, spool, stop) as port:
            by = "https" if config.tls else "http"
            say(f"stow: listens on {by}://{config.stow.address}:{port}/dicomweb/studies")
            stop.wait()


@contextmanager
def listening(config: NodeConfig, stow: Stow, spool: Spool, stop: Stop) -> Iterator[int]:
    """Receive films until the block ends or the process is to stop.

    Yields:
        The port.

    Raises:
        UsageError: the address cannot be listened on, or a certificate or the token cannot be used.
    """
    certificates = None if config.tls is None else _certificates(config.tls)
    if stow.token_file is not None:
        read_secret(stow.token_file, SHORTEST_TOKEN)
    audit, refused = Audit(config, "stow"), ChangingNote(spool, "refused.stow")
    bounds = Bounds(
        connections=config.limits.http_connections,
        per_address=config.limits.http_per_address,
        handshake_seconds=config.limits.handshake_seconds,
        request_seconds=config.limits.first_seconds,
        bounds_bodies=True,
    )

    def each_second() -> None:
        refused.update(dict(listener.refused))
        audit.write_counts(time.monotonic())

    listener = HttpListener(StowService(config.limits, stow, spool, audit), bounds, certificates, each_second)
    with listening_socket("stow", stow.address, stow.port) as sock:
        thread = stop.background("the listener", lambda: listener.run(sock, stop))
        try:
            yield sock.getsockname()[1]
        finally:
            stop.request()
            thread.join()
            audit.write_counts()


def _certificates(tls: Tls) -> Renewed:
    """Return what the listener proves itself with.

    Senders show a token, and no certificate.
    """
    own = Tls(tls.certificate, tls.key)
    return Renewed(lambda: server_context(own), [tls.certificate, tls.key], "stow")


class StowService:
    """The answers to clients, an ASGI application.

    Args:
        limits: the bounds.
        stow: who may send.
        spool: takes the films.
        audit: gets to know of them.
    """

    def __init__(self, limits: Limits, stow: Stow, spool: Spool, audit: Audit) -> None:
        self._limits, self._stow, self._spool, self._audit = limits, stow, spool, audit
        self._throttle = Throttle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; none if its client has gone."""
        try:
            response = await self._answer(Request(scope, receive))
        except ClientDisconnect:
            return
        except Exception as error:  # that nobody foresaw: uvicorn would answer it in silence
            say(f"stow: a request failed: {type(error).__name__}, {brief(error)}")
            response = PlainTextResponse("the node failed\n", 500, {"Connection": "close"})
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = _PATH.fullmatch(request.scope["path"])  # `request.url` holds the Host that a client names
        if path is None:
            return PlainTextResponse("films are stored at /dicomweb/studies\n", 404)
        if request.method != "POST":
            return PlainTextResponse("films are stored here by POST\n", 405, {"Allow": "POST"})
        address = request.client.host if request.client else ""
        parts, headers = None, {}
        try:
            await run_in_threadpool(self._authenticate, request, address)
            _check_length(request)
            parts = FilmParts(
                boundary_of(request.headers.get("Content-Type", "")),
                self._spool,
                self._limits,
                Source("STOW", address),
                self._audit,
                path[1],
            )
            await self._read(request, parts)
            status, message = _status(parts.outcomes), ""
        except BadRequest as error:
            status, message = error.status, str(error)
        except asyncio.TimeoutError:
            status, message = 408, "it takes longer than the limits allow"
        finally:
            if parts is not None:
                await run_in_threadpool(parts.discard)
        if status == 408 or (parts is None and "Expect" in request.headers):  # the rest of the body may never come
            headers["Connection"] = "close"
        if status == 401:
            headers["WWW-Authenticate"] = 'Bearer realm="edgecxr"'
            await run_in_threadpool(self._audit.refused, Source("STOW", address), message)
        if status == 503:
            headers["Retry-After"] = str(RETRY_SECONDS)
        if message:
            self._say(address, message)
        if parts is not None and (parts.outcomes or not message):
            return Response(json.dumps([stored(parts.outcomes)]), status, headers, "application/dicom+json")
        return PlainTextResponse(f"{message}\n", status, headers)

    async def _read(self, request: Request, parts: FilmParts) -> None:
        """Read a body to its end.

        Raises:
            BadRequest: it is no body of films, a film is too large, or there is no room for one.
            asyncio.TimeoutError: it takes too long.
            ClientDisconnect: the client is gone.
        """
        begun, until = -1, 0.0
        blocks = request.stream()
        while True:
            if begun != parts.begun:
                begun, until = parts.begun, time.monotonic() + self._limits.object_seconds
            left = min(until - time.monotonic(), self._limits.idle_seconds)
            try:
                block = await asyncio.wait_for(blocks.__anext__(), left)
            except StopAsyncIteration:
                break
            await run_in_threadpool(parts.feed, block)
        parts.check_end()

    def _authenticate(self, request: Request, address: str) -> None:
        if self._stow.token_file is None:
            # A browser here may be told by a stranger's page that the stranger's name is this address.
            if _HERE.fullmatch(request.headers.get("Host", "localhost")) is None:
                raise BadRequest("it is addressed to another name than localhost", 403)
            return
        try:
            token = read_secret(self._stow.token_file, SHORTEST_TOKEN)
        except UsageError as error:
            self._say("", str(error))
            raise BadRequest("the node has no token", 503) from error
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            shown.strip().encode("utf-8", "replace"), token.encode()
        ):
            raise BadRequest("the token is missing, or another one", 401)

    def _say(self, address: str, words: str) -> None:
        """Say what was refused; an address is named once in ten minutes."""
        if self._throttle.allows(address):
            say(f"stow: refused a request{f' of {address}' if address else ''}: {words}")


def _check_length(request: Request) -> None:
    """Check that a body's length is stated in one way.

    Raises:
        BadRequest: it is not.
    """
    ways = [name for name in ("Content-Length", "Transfer-Encoding") if name in request.headers]
    if not ways:
        raise BadRequest("neither Content-Length nor chunks", 411)
    if len(ways) > 1:
        raise BadRequest("the length is stated twice")


def _status(outcomes: Sequence[Outcome]) -> int:
    failed = sum(outcome.status != 0 for outcome in outcomes)
    return 200 if not failed else 409 if failed == len(outcomes) else 202


def stored(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the store instances response (PS3.18, I.2) as DICOM JSON.

    Args:
        outcomes: of all films.
    """
    kept, failed, others = [], [], []
    for outcome in outcomes:
        reason = {"00081197": {"vr": "US", "Value": [outcome.status]}}
        named = {
            "00081150": {"vr": "UI", "Value": [outcome.sop_class]},
            "00081155": {"vr": "UI", "Value": [outcome.uid]},
        }
        if not outcome.status:
            kept.append({**named, "00081190": {"vr": "UR"}})
        elif outcome.uid and outcome.sop_class:
            failed.append({**named, **reason})
        else:
            others.append(reason)
    data_set: dict[str, Any] = {"00081190": {"vr": "UR"}}  # nothing can be retrieved from the node
    for tag, items in (("00081198", failed), ("00081199", kept), ("0008119A", others)):
        if items:
            data_set[tag] = {"vr": "SQ", "Value": items}
    return data_set

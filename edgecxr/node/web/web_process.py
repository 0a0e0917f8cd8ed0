"""The process of the web page.

It decodes no film and runs no model: it shows what the other processes leave in the spool.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import logging
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvicorn

from edgecxr.errors import EdgeCxrError, UsageError, brief
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.node_config import NodeConfig, Web
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.spool import Spool
from edgecxr.node.web.bounded_http import HANDSHAKE_SECONDS, LARGEST_HEADER, BoundedHttp
from edgecxr.node.web.sessions import Sessions
from edgecxr.node.web.web_app import Site, application
from edgecxr.node.web.web_pages import routes
from edgecxr.node.web.web_settings import check_web, listener, tls_context
from edgecxr.terminal import say

_LOOK = 0.2
_CERTIFICATES = 5.0  # seconds between two looks at the certificate


def main() -> None:
    """Run the process."""
    run_role("web", _web)


def _web(config: NodeConfig, stop: Stop) -> None:
    check_web(config)
    stop.follow_supervisor()
    audit = Audit(config, "web")
    with listener(config.web) as sock, Spool(config.folder) as spool:
        web = replace(config.web, port=sock.getsockname()[1])
        context = tls_context(web)
        server = made_server(replace(config, web=web), spool, context, audit)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([sock])), daemon=True)
        thread.start()
        say(f"web: the page is at {web.url}")
        last = _stamp(web)
        waited = 0.0
        while not stop.wait(_LOOK) and thread.is_alive():
            waited += _LOOK
            audit.write_counts(time.monotonic())
            if context is not None and waited >= _CERTIFICATES:
                last, waited = _renewed(web, context, last), 0.0
        if not stop.requested:
            raise EdgeCxrError(f"the page at {web.url} has ended: it is started again")
        server.should_exit = True
        thread.join()
        audit.write_counts()


def made_server(config: NodeConfig, spool: Spool, context: ssl.SSLContext | None, audit: Audit) -> uvicorn.Server:
    """Return the server of the page.

    Args:
        config: the node's, with the port that it listens on.
        spool: the node's.
        context: TLS settings; None for plain HTTP.
        audit: where it is noted who looked at what; its counts are the caller's to write.
    """
    for name in ("uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # they would print text of strangers
    asyncio.constants.SSL_HANDSHAKE_TIMEOUT = HANDSHAKE_SECONDS
    site = Site(config, spool, Sessions(config.folder, open_to_all=config.web.is_open), audit)
    settings = uvicorn.Config(
        application(site, routes()),
        http=BoundedHttp,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=5,
        h11_max_incomplete_event_size=LARGEST_HEADER,
    )
    settings.load()
    settings.ssl = context
    return uvicorn.Server(settings)


def _stamp(web: Web) -> tuple[int, ...]:
    stamp = []
    for path in (web.certificate, web.key):
        with suppress(OSError):
            stamp.append(Path(path or "").stat().st_mtime_ns)
    return tuple(stamp)


def _renewed(web: Web, context: ssl.SSLContext, last: tuple[int, ...]) -> tuple[int, ...]:
    """Use a certificate that has changed; return when it did."""
    stamp = _stamp(web)
    if stamp != last and web.certificate is not None:
        try:
            tls_context(web)
            context.load_cert_chain(web.certificate, web.key)
            say("web: read the certificate again")
        except (UsageError, OSError) as error:  # also while it is being replaced
            say(f"web: the certificate of before is used on: {brief(error)}")
    return stamp

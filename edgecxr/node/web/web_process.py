"""The process of the web page.

It decodes no film and runs no model: it shows what the other processes leave in the spool.
"""

from __future__ import annotations

import asyncio
import asyncio.constants
import logging
import ssl
import time
from dataclasses import replace

import uvicorn

from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.spool import Spool
from edgecxr.node.tls.certificates import Renewed
from edgecxr.node.web.bounded_http import HANDSHAKE_SECONDS, LARGEST_HEADER, BoundedHttp
from edgecxr.node.web.sessions import Sessions
from edgecxr.node.web.web_app import Site, application
from edgecxr.node.web.web_pages import routes
from edgecxr.node.web.web_settings import check_web, listener, web_certificates
from edgecxr.terminal import say

_LOOK = 0.2


def main() -> None:
    """Run the process."""
    run_role("web", _web)


def _web(config: NodeConfig, stop: Stop) -> None:
    check_web(config)
    stop.follow_supervisor()
    audit = Audit(config, "web")
    with listener(config.web) as sock, Spool(config.folder) as spool:
        web = replace(config.web, port=sock.getsockname()[1])
        certificates = web_certificates(web)
        context = None if certificates is None else following(certificates)
        server = made_server(replace(config, web=web), spool, context, audit)
        thread = stop.background("the page", lambda: asyncio.run(server.serve([sock])))
        say(f"web: the page is at {web.url}")
        while not stop.wait(_LOOK):
            audit.write_counts(time.monotonic())
            if certificates is not None:
                certificates.context()
                certificates.remind()
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


def following(certificates: Renewed) -> ssl.SSLContext:
    """Return a context whose connections each take the certificate of their time."""
    context = certificates.context()

    def renew(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = certificates.context()

    context.sni_callback = renew  # called for each handshake, with or without a name
    return context

"""The process of the web page.

It decodes no film and runs no model: it shows what the other processes leave in the spool.
"""

from __future__ import annotations

import time
from dataclasses import replace

from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.http.bounded_connection import Bounds
from edgecxr.node.http.http_listener import HttpListener
from edgecxr.node.http.listening_socket import listening_socket
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.node_process import Stop, run_role
from edgecxr.node.spool import ChangingNote, Spool
from edgecxr.node.tls.certificates import Renewed
from edgecxr.node.web.sessions import Sessions
from edgecxr.node.web.web_app import Site, application
from edgecxr.node.web.web_pages import routes
from edgecxr.node.web.web_settings import check_web, web_certificates
from edgecxr.terminal import say

BOUNDS = Bounds()
"""Of the page's clients."""


def main() -> None:
    """Run the process."""
    run_role("web", _web)


def _web(config: NodeConfig, stop: Stop) -> None:
    check_web(config)
    stop.follow_supervisor()
    audit = Audit(config, "web")
    with listening_socket("web", config.web.address, config.web.port) as sock, Spool(config.folder) as spool:
        web = replace(config.web, port=sock.getsockname()[1])
        page = made_page(replace(config, web=web), spool, web_certificates(web), audit)
        thread = stop.background("the page", lambda: page.run(sock, stop))
        say(f"web: the page is at {web.url}")
        stop.wait()
        thread.join()
        audit.write_counts()


def made_page(config: NodeConfig, spool: Spool, certificates: Renewed | None, audit: Audit) -> HttpListener:
    """Return what answers those who look at the page.

    Args:
        config: the node's, with the port that it listens on.
        spool: the node's.
        certificates: for TLS; None for plain HTTP.
        audit: where it is noted who looked at what; its last counts are the caller's to write.
    """
    site = Site(config, spool, Sessions(config.folder, open_to_all=config.web.is_open), audit)
    refused = ChangingNote(spool, "refused.web")

    def each_second() -> None:
        refused.update(dict(page.refused))
        audit.write_counts(time.monotonic())

    page = HttpListener(application(site, routes()), BOUNDS, certificates, each_second)
    return page

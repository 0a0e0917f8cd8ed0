"""Whether the web page can be served as configured, and where."""

from __future__ import annotations

from edgecxr import extras
from edgecxr.errors import MissingPackage, UsageError
from edgecxr.node.node_config import NodeConfig, Web
from edgecxr.node.tls.certificates import Renewed, Tls, ending, server_context
from edgecxr.node.web.users import users_of
from edgecxr.storage.settings import shown

_PACKAGES = ("starlette", "uvicorn", "jinja2")


def check_web(config: NodeConfig) -> list[str]:
    """Return lines: where the page is and who may see it.

    Raises:
        UsageError: the certificate cannot be used, or others could reach the page without a password.
        MissingPackage: a package is not installed.
    """
    web = config.web
    if not web.enabled:
        return ["web page: none"]
    for package in _PACKAGES:
        if extras.installed(package) is None:
            raise MissingPackage(package, "node", "the web page of edgecxr serve")
    web_certificates(web)
    users = users_of(config.folder)
    if not users and web.proxy is not None:
        raise UsageError(
            f"[web] proxy = {shown(web.proxy)} names people that this node does not know: say what they may do with "
            "`edgecxr node user add NAME --role viewer`"
        )
    if not users and not web.local:
        raise UsageError(
            f"[web] address = {shown(web.address)} is open to the network, and there is no user with a password: add "
            "one with `edgecxr node user add NAME --role admin`, or listen on 127.0.0.1"
        )
    who = f"to {len(users)} users with passwords" if users else "without a password, to this machine alone"
    if web.proxy is not None:
        who += f", or as {web.proxy_header} of the proxy at {web.proxy} names them"
    sentence = None if web.certificate is None else ending(web.certificate)
    place = web.url if web.port else f"a free port of {web.address}"
    return [f"web page: {place}, {who}", *([f"warning: {sentence}"] if sentence else [])]


def web_certificates(web: Web) -> Renewed | None:
    """Return what the page proves itself with; None without a certificate.

    Raises:
        UsageError: the certificate or its key cannot be used.
    """
    if web.certificate is None or web.key is None:
        return None
    own = Tls(web.certificate, web.key)
    return Renewed(lambda: server_context(own), [own.certificate, own.key], "web")

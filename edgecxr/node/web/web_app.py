"""The web page as an application: rights, forms, headers, errors.

Each page is a function from an `Ask` to a response, in `web_pages`; it runs in a thread.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from edgecxr.errors import brief
from edgecxr.node.audit.audit_events import Audit
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.spool import Spool
from edgecxr.node.web.sessions import Sessions, Visitor
from edgecxr.node.web.strings import ROLES, TEXT
from edgecxr.terminal import say

LARGEST_FORM = 16 << 10
"""Bytes of a form."""

PAGES = (
    ("films", "/films", "viewer"),
    ("queue", "/queue", "viewer"),
    ("health", "/health", "viewer"),
    ("audit", "/audit", "admin"),
    ("users", "/users", "admin"),
)
"""Pages of the menu: name, path, and the role that may see it."""

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HTTPS = {"Strict-Transport-Security": "max-age=31536000"}
_FORM = "application/x-www-form-urlencoded"
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


@dataclass
class Site:
    """What all pages share.

    Attributes:
        config: the node's.
        spool: the node's.
        sessions: who is signed in.
        audit: where it is noted who looked at what.
        templates: of the pages; whatever is put into them is escaped.
    """

    config: NodeConfig
    spool: Spool
    sessions: Sessions
    audit: Audit
    templates: Environment = field(default_factory=lambda: templates())

    def cookie(self) -> str:
        """Return the name of the cookie."""
        return "edgecxr" if self.config.web.certificate is None else "__Host-edgecxr"


@dataclass
class Ask:
    """What somebody asks for.

    Attributes:
        site: that of the page.
        request: the request.
        visitor: who asks.
        form: fields of the form that was sent.
        token: set to give the visitor another cookie.
    """

    site: Site
    request: Request
    visitor: Visitor
    form: dict[str, str] = field(default_factory=dict)
    token: str | None = None

    @property
    def address(self) -> str:
        """IP address of the client.

        It is the one that the proxy says, if there is one.
        """
        host = self.request.client.host if self.request.client else "unknown"
        if not self.visitor.by_proxy:
            return host
        try:  # the last one is the proxy's own; those before may be the client's inventions
            return str(ipaddress.ip_address(self.request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()))
        except ValueError:
            return host

    @property
    def who(self) -> str:
        """Who asks, for the audit trail."""
        return self.visitor.name or "anonymous"

    @property
    def live(self) -> bool:
        """Whether a page that is open already asks for news."""
        return "x-live" in self.request.headers

    def page(self, template: str, here: str = "", status: int = 200, **values: Any) -> Response:
        """Return a page made from a template."""
        text = self.site.templates.get_template(template).render(
            t=TEXT, roles=ROLES, pages=PAGES, visitor=self.visitor, here=here, phi=self.site.config.phi, **values
        )
        return HTMLResponse(text, status)

    def message(self, name: str, status: int) -> Response:
        """Return a page with one of `TEXT`."""
        return self.page("message.html", status=status, message=TEXT[name])


Page = Callable[[Ask], Response]


def templates() -> Environment:
    """Return the templates, which escape whatever is put into them."""
    return Environment(
        loader=PackageLoader("edgecxr.node.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def application(site: Site, routes: list[tuple[str, str, str | None, Page]]) -> Starlette:
    """Return the application.

    Args:
        site: what all pages share.
        routes: method, path, the role that may ask (None is anybody), and the function that answers.
    """

    def route(method: str, path: str, role: str | None, page: Page) -> Route:
        async def answer(request: Request) -> Response:
            return await _answered(site, request, lambda: _respond(site, request, role, page))

        return Route(path, answer, methods=[method], name=f"{method} {path}")

    def failure(name: str, status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
        async def answer(request: Request, _: Exception) -> Response:
            return await _answered(
                site, request, lambda: _respond(site, request, None, lambda a: a.message(name, status))
            )

        return answer

    handlers = {404: failure("not_found", 404), 405: failure("bad_method", 405)}
    return Starlette(routes=[route(*each) for each in routes], exception_handlers=handlers)


async def _answered(site: Site, request: Request, answer: Callable[[], Awaitable[Response]]) -> Response:
    """Answer with the headers of every answer, whatever breaks."""
    try:
        response = await answer()
    except Exception as error:  # of the disk or the database, say; the process goes on
        say(f"web: {request.method} {brief(request.scope['path'])} failed: {type(error).__name__}, {brief(error)}")
        response = PlainTextResponse(TEXT["failed"], 500)
    for name, value in (_HEADERS | (_HTTPS if site.config.web.certificate else {})).items():
        response.headers[name] = value
    return response


async def _respond(site: Site, request: Request, role: str | None, page: Page) -> Response:
    if not site.sessions.asks_password() and not _host_is_local(request):
        # A page of others whose name was made to point here: it would read everything without a password.
        return PlainTextResponse(TEXT["forbidden"], 403)
    name = site.cookie()
    token = request.cookies.get(name)
    visitor = await run_in_threadpool(site.sessions.visitor, token, "x-live" not in request.headers)
    web = site.config.web
    if web.proxy is not None and request.client and _same_address(request.client.host, web.proxy):
        named = request.headers.getlist(web.proxy_header)
        if len(named) == 1 and named[0]:
            visitor = await run_in_threadpool(site.sessions.named, visitor, named[0])
    ask = Ask(site, request, visitor)
    response = await _checked(ask, role, page)
    token = ask.token or visitor.token
    if ask.token or (token != request.cookies.get(name) and response.media_type == "text/html"):
        https = site.config.web.certificate is not None
        response.set_cookie(name, token, secure=https, httponly=True, samesite="strict", path="/")
    return response


async def _checked(ask: Ask, role: str | None, page: Page) -> Response:
    request, visitor = ask.request, ask.visitor
    if request.method == "POST":
        body = await _body(request)
        if body is None:
            return ask.message("too_large", 413)
        if request.headers.get("content-type", "").partition(";")[0].strip() == _FORM:
            ask.form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50))
        sent = ask.form.get("form", "").encode("utf-8", "replace")
        if not hmac.compare_digest(sent, visitor.form_token.encode()):
            return ask.message("old_form", 403)
    if role is not None and not visitor.may(role):
        if visitor.role is not None or visitor.by_proxy:
            return ask.message("forbidden", 403)
        if request.method != "GET" or ask.live:
            return ask.message("forbidden", 401)
        query = request.url.query
        target = request.scope["path"] + (f"?{query}" if query else "")
        return RedirectResponse(f"/sign-in?to={quote(target)}", 303)
    return await run_in_threadpool(page, ask)


async def _body(request: Request) -> bytes | None:
    """Return the body of a request; None if it is too large."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            return None
    return body


def _same_address(address: str, other: str) -> bool:
    """Return whether two texts are one IP address.

    IPv4 may be written within IPv6.
    """
    try:
        addresses = [ipaddress.ip_address(text) for text in (address, other)]
    except ValueError:
        return False
    first, second = (getattr(each, "ipv4_mapped", None) or each for each in addresses)
    return bool(first == second)


def _host_is_local(request: Request) -> bool:
    host = request.headers.get("host", "")
    return (host if host.endswith("]") else host.rpartition(":")[0] or host) in _LOOPBACK


def basic_visitor(ask: Ask) -> Visitor | None:
    """Return the user whose name and right password a program sends."""
    kind, _, code = ask.request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(code, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return ask.site.sessions.basic(name, password, ask.address) if colon else None

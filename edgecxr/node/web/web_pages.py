"""The pages: films, queue, health, audit, users, signing in, numbers."""

from __future__ import annotations

import math
import re
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.responses import PlainTextResponse, RedirectResponse, Response

from edgecxr.machine.clock import synchronised
from edgecxr.node.audit import audit_reading
from edgecxr.node.audit.audit_events import Subject
from edgecxr.node.audit.audit_syslog import is_behind
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.surroundings import all_certificate_files, disk_space
from edgecxr.node.web import node_health, queries, views
from edgecxr.node.web.node_metrics import CONTENT_TYPE, exposition, node_metrics
from edgecxr.node.web.strings import DELIVERIES, FILTERS, PROCESSES, TEXT
from edgecxr.node.web.web_app import Ask, Page, basic_visitor
from edgecxr.storage.reading import BadFile, read_bytes
from edgecxr.terminal import printable, say

_STATIC = {"node.css": "text/css", "node.js": "text/javascript", "icon.svg": "image/svg+xml"}
_LARGEST_STATIC, _LARGEST_PICTURE = 1 << 20, 32 << 20
_LISTED = 50  # results on the page of the queue, entries of the audit trail
_LONGEST_TEXT = 100
_HERE = re.compile(r"/(?!/)[\w/?=&%.+-]*", re.ASCII)


def routes() -> list[tuple[str, str, str | None, Page]]:
    """Return the routes.

    Each has its method, path, the role that may ask (None is anybody), and the function that answers.
    """
    return [
        ("GET", "/", "viewer", lambda _: RedirectResponse("/films", 303)),
        ("GET", "/films", "viewer", lambda ask: films(ask, "films.html")),
        ("GET", "/films/rows", "viewer", lambda ask: films(ask, "film_rows.html")),
        ("GET", "/films/{number:int}", "viewer", lambda ask: film(ask, "film.html")),
        ("GET", "/films/{number:int}/state", "viewer", lambda ask: film(ask, "film_state.html")),
        ("GET", "/films/{number:int}/{kind:str}.png", "viewer", picture),
        ("GET", "/queue", "viewer", lambda ask: queue(ask, "queue.html")),
        ("GET", "/queue/state", "viewer", lambda ask: queue(ask, "queue_state.html")),
        ("POST", "/queue/retry", "operator", retry),
        ("GET", "/health", "viewer", lambda ask: health(ask, "health.html")),
        ("GET", "/health/state", "viewer", lambda ask: health(ask, "health_state.html")),
        ("GET", "/audit", "admin", audit),
        ("GET", "/users", "admin", users),
        ("GET", "/sign-in", None, sign_in_page),
        ("POST", "/sign-in", None, sign_in),
        ("POST", "/sign-out", None, sign_out),
        ("GET", "/static/{name:str}", None, static),
        ("GET", "/healthz", None, lambda _: PlainTextResponse("ok\n")),
        ("GET", "/readyz", None, ready),
        ("GET", "/metrics", None, metrics),
    ]


def films(ask: Ask, template: str) -> Response:
    """Return the list of films."""
    query = ask.request.query_params
    which, text = query.get("which", "all"), printable(query.get("text", "").strip()[:_LONGEST_TEXT])
    page = int(query["page"]) if re.fullmatch("[1-9][0-9]{0,8}", query.get("page", "")) else 1
    if which not in FILTERS:
        which = "all"
    rows, count = queries.films(ask.site.spool, which, text, page)

    def at(page: int, path: str = "/films") -> str:
        return f"{path}?{urlencode({'which': which, 'text': text, 'page': page})}"

    return ask.page(
        template,
        "films",
        films=[views.film_view(row) for row in rows],
        count=count,
        which=which,
        text=text,
        filters=FILTERS,
        page=page,
        page_count=max(1, math.ceil(count / queries.PAGE)),
        first=page == 1,
        newer=at(page - 1),
        older=at(page + 1),
        fragment=at(page, "/films/rows"),
    )


def film(ask: Ask, template: str) -> Response:
    """Return a film."""
    number, spool = ask.request.path_params["number"], ask.site.spool
    row_and_record = queries.film(spool, number) if number < 1 << 62 else None
    if row_and_record is None:
        return ask.message("not_found", 404)
    row, record = row_and_record
    if template == "film.html":
        subject = Subject(row.uid, row.sop_class, row.study, patient=row.patient_id or "")
        ask.site.audit.looked_at(subject, ask.who, ask.address)
    predicted = record is not None and record["status"] == "ok"
    return ask.page(
        template,
        "films",
        film=views.film_view(row, every=True),
        record=record,
        rows=views.output_rows(record) if record and predicted else [],
        gate=views.gate_sentence(record),
        objections=views.objections(record),
        figures=views.figures(record, row) if record else [],
        warnings=[printable(warning) for warning in (record or {}).get("warnings", [])],
        timeline=views.timeline(row, queries.events(spool, number)),
        sent=[views.sent_row(each) for each in queries.deliveries(spool, number)],
    )


def picture(ask: Ask) -> Response:
    """Return a picture that was made when the film was read."""
    number, kind = ask.request.path_params["number"], ask.request.path_params["kind"]
    if kind in (queries.FILM, queries.ATTENTION) and number < 1 << 62:
        try:
            content = read_bytes(ask.site.spool.picture_path(number, kind), _LARGEST_PICTURE)
            return Response(content, media_type="image/png")
        except FileNotFoundError:
            pass
        except (OSError, BadFile):
            return ask.message("unreadable", 500)
    return ask.message("not_found", 404)


def queue(ask: Ask, template: str) -> Response:
    """Return what waits, and what was given up."""
    spool = ask.site.spool
    waiting, oldest, counts = queries.queue(spool)
    sent = queries.undelivered(spool, _LISTED)
    dead = [views.sent_row(each) for each in sent if each.state == "dead"]
    other = [views.sent_row(each) for each in sent if each.state == "waiting"]
    query = ask.request.query_params
    again = query.get("again", "") if query.get("to") in counts else ""
    total = {state: sum(each.get(state, 0) for each in counts.values()) for state in ("dead", "waiting")}
    return ask.page(
        template,
        "queue",
        films=waiting,
        oldest=None if oldest is None else views.moment(oldest),
        counts=counts,
        configured=[each.name for each in ask.site.config.destination],
        kinds=views.OF_DELIVERIES,
        symbols={state: views.SYMBOLS[kind] for state, kind in views.OF_DELIVERIES.items()},
        deliveries=DELIVERIES,
        lists=[
            (TEXT["dead_title"], TEXT["dead_note"], dead, total["dead"] - len(dead)),
            (TEXT["waiting_title"], "", other, total["waiting"] - len(other)),
        ],
        nothing=not waiting and not total["dead"] and not total["waiting"],
        done=TEXT["retried"].format(again, query.get("to")) if re.fullmatch("[0-9]{1,9}", again) else "",
    )


def retry(ask: Ask) -> Response:
    """Send again what was given up for a destination."""
    destination = ask.form.get("destination", "")
    if destination not in [each.name for each in ask.site.config.destination]:
        return ask.message("not_found", 404)
    deliveries = Deliveries(ask.site.spool)
    count = deliveries.retry(destination)
    deliveries.hurry(destination)
    ask.site.audit.retried(count, destination, ask.who, ask.address)
    say(f"web: {ask.who} sends {count} results again to {destination}")
    return RedirectResponse(f"/queue?{urlencode({'again': count, 'to': destination})}", 303)


def health(ask: Ask, template: str) -> Response:
    """Return how the node is."""
    site, audited = ask.site, ask.site.config.audit
    notes, disk = queries.notes(site.spool), disk_space(site.config.folder, site.config.limits)
    states = node_health.processes(site.config)
    dead = sum(counts.get("dead", 0) for counts in queries.queue(site.spool)[2].values())
    model: dict[str, Any] = notes["model"][0] if "model" in notes else {}
    certificates = views.certificates(all_certificate_files(site.config))
    words = TEXT["disk_low" if disk.low else "disk_free"]
    kept = TEXT["clock_synchronised" if synchronised() else "clock_free"]
    return ask.page(
        template,
        "health",
        problems=[
            *problems(ask),
            *([TEXT["dead_problem"].format(dead)] if dead else []),
            *([TEXT["audit_problem"].format(audited.place)] if audited and is_behind(site.config.folder) else []),
            *(TEXT["certificate_problem"].format(path, words) for path, words, amiss in certificates if amiss),
        ],
        processes=[
            {
                "name": state.name,
                "does": PROCESSES[state.name],
                "since": None if state.since is None else views.moment(state.since),
                "memory": views.size(state.bytes) if state.bytes else "",
            }
            for state in states
        ],
        disk=words.format(
            views.size(disk.free), views.size(disk.total), 100 * disk.free / disk.total, views.size(disk.reserve)
        ),
        certificates=[(path, words) for path, words, _ in certificates],
        clock=f"{TEXT['clock_note'].format(views.now())} {kept}",
        echoes=[
            (name.partition(".")[2], views.moment(at), TEXT.get(value, value))
            for name, (value, at) in sorted(notes.items())
            if name.startswith("echo.")
        ],
        model=views.model_facts(model),
        model_warnings=[printable(warning) for warning in model.get("warnings", [])],
        tested=views.tested(model),
        versions=node_health.versions(),
    )


def problems(ask: Ask) -> list[str]:
    """Return why the node can take or read no films, as sentences."""
    site = ask.site
    messages = []
    states = {state.name: state for state in node_health.processes(site.config)}
    for name, state in states.items():
        if name not in ("serve", "web") and state.since is None:  # this one answers, whoever has started it
            messages.append(TEXT["process_down"].format(name, PROCESSES[name]))
    since, model = states["infer"].since, queries.notes(site.spool).get("model")
    # The start of the machine, from which that of a process counts, is known to a second.
    if since is not None and (model is None or model[1] < since - 2):
        messages.append(TEXT["model_loading"])
    if disk_space(site.config.folder, site.config.limits).low:
        messages.append(TEXT["disk_problem"])
    return messages


def audit(ask: Ask) -> Response:
    """Return the audit trail; that is an entry, too."""
    query, site = ask.request.query_params, ask.site
    text = printable(query.get("text", "").strip()[:_LONGEST_TEXT])
    before = int(query["before"]) if re.fullmatch("[1-9][0-9]{0,17}", query.get("before", "")) else None
    site.audit.trail_read(ask.who, ask.address)
    entries, further = audit_reading.latest(site.config.folder, _LISTED, before, text)
    older = None if further is None else f"/audit?{urlencode({'text': text, 'before': further})}"
    newest = f"/audit?{urlencode({'text': text})}"
    return ask.page(
        "audit.html",
        "audit",
        text=text,
        rows=[[printable(cell) for cell in audit_reading.describe(entry)] for entry in entries],
        older=older,
        newest=None if before is None else newest,
    )


def users(ask: Ask) -> Response:
    """Return who may sign in, and who is signed in."""
    sessions = ask.site.sessions
    return ask.page("users.html", "users", users=sessions.users(), sessions=sessions.sessions())


def sign_in_page(ask: Ask, problem: str = "", status: int = 200) -> Response:
    """Return the form to sign in."""
    to = ask.form.get("to") or ask.request.query_params.get("to", "")
    return ask.page("sign_in.html", status=status, problem=problem, to=to, name=ask.form.get("name", ""))


def sign_in(ask: Ask) -> Response:
    """Sign somebody in, or show the form again."""
    name, sessions = ask.form.get("name", "")[:_LONGEST_TEXT], ask.site.sessions
    wait = sessions.wait(name, ask.address)
    token = sessions.sign_in(name, ask.form.get("password", ""), ask.address) if wait <= 0 else None
    if wait > 0:  # anybody can ask any number of times
        ask.site.audit.login_too_early(ask.address)
    else:
        ask.site.audit.login(name, ask.address, token is not None)
    if token is None:
        if wait <= 0:
            say(f"web: wrong password for {printable(name)!r} from {ask.address}")
        wait = sessions.wait(name, ask.address)
        if wait > 0:
            seconds = math.ceil(wait)
            response = sign_in_page(ask, TEXT["too_early"].format(seconds), 429)
            response.headers["Retry-After"] = str(seconds)
            return response
        return sign_in_page(ask, TEXT["wrong"], 403)
    say(f"web: {name} has signed in from {ask.address}")
    to = ask.form.get("to", "")
    ask.token = token
    return RedirectResponse(to if _HERE.fullmatch(to) else "/films", 303)


def sign_out(ask: Ask) -> Response:
    """Sign somebody out."""
    ask.site.sessions.sign_out(ask.visitor.token)
    if ask.visitor.name:
        ask.site.audit.logout(ask.visitor.name, ask.address)
    return RedirectResponse("/sign-in", 303)


def static(ask: Ask) -> Response:
    """Return the style sheet, the script or the icon."""
    name = ask.request.path_params["name"]
    if name not in _STATIC:
        return ask.message("not_found", 404)
    content = read_bytes(Path(__file__).with_name("static") / name, _LARGEST_STATIC)
    return Response(content, media_type=_STATIC[name])


def ready(ask: Ask) -> Response:
    """Say whether the node can take and read films, for programs."""
    try:
        messages = problems(ask)
    except (OSError, sqlite3.Error):
        messages = [TEXT["failed"]]
    return PlainTextResponse("\n".join([*(messages or ["ready"]), ""]), 503 if messages else 200)


def metrics(ask: Ask) -> Response:
    """Return numbers for Prometheus, which may send a user's password."""
    if ask.visitor.role is None and basic_visitor(ask) is None:
        return PlainTextResponse("", 401, {"WWW-Authenticate": 'Basic realm="edgecxr"'})
    return Response(exposition(node_metrics(ask.site.spool, ask.site.config)), media_type=CONTENT_TYPE)

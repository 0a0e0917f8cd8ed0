"""Checks of a configuration, and the state of its node."""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sqlite3
from pathlib import Path
from typing import Any

from edgecxr import extras, resolve
from edgecxr.bundle.bundle import Bundle
from edgecxr.engines.fastest_precision import chosen_precision
from edgecxr.errors import MissingPackage, UsageError, brief
from edgecxr.node.deliveries import Deliveries
from edgecxr.node.film_queue import FilmQueue
from edgecxr.node.http.listening_socket import listening_socket
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.receiving.stow_settings import SHORTEST_TOKEN, Stow
from edgecxr.node.secret_file import read_secret
from edgecxr.node.sending.destination import Destination
from edgecxr.node.spool import DATABASE, Spool
from edgecxr.node.surroundings import certificate_files, findings, unfit
from edgecxr.node.tls.certificates import ending, server_context
from edgecxr.node.tls.client_tls import ClientTls
from edgecxr.node.web.web_settings import check_web
from edgecxr.terminal import aligned
from edgecxr.workers.isolation import isolation
from edgecxr.workspace import Workspace

_PACKAGES = ("pynetdicom", "highdicom")
_STOW_PACKAGES = ("python-multipart", "starlette", "uvicorn")
_ERRORS = 5
_NO_DESTINATION = "which is no [[destination]] any more: they are dropped after `give_up_hours`"


def check(config: NodeConfig) -> list[str]:
    """Return lines that say what a node would do.

    Raises:
        UsageError: an address, port or folder cannot be used.
        ModelError: the bundle cannot be used.
        MissingPackage: a package is not installed.
    """
    for package in _PACKAGES:
        if extras.installed(package) is None:
            raise MissingPackage(package, "node", "edgecxr serve")
    other = unfit()
    if other:
        raise UsageError(f"pynetdicom is {other[0]}, and serve needs {other[1]}: {extras.command('node')}")
    bundle = Bundle.open(resolve.bundle(Workspace.default(), config.model, own=True))
    precision = chosen_precision(config.precision, bundle, config.backend)
    bundle.artefact(precision)
    _check_port(config.address, config.port)
    _check_folder(config.folder)
    by_tls = config.tls is not None and config.tls.dicom
    warnings = _check_certificates(config)
    senders = ", ".join(f"{peer.ae_title} at {peer.address}" for peer in config.peer)
    lines = [
        f"{config.ae_title} listens on {config.address} port {config.port or 'any'} for films by C-STORE"
        f"{' over TLS' if by_tls else ''}",
        f"films from: {senders or 'nobody, since there is no [[peer]]'}",
    ]
    if config.stow is not None:
        lines.append(_check_stow(config, config.stow))
    for watch in config.watch:
        if not os.path.isdir(watch.folder):
            raise UsageError(f"[[watch]] {watch.folder} is no folder: make it, or name another")
        lines.append(f"films in: {watch.folder}{', from where they are removed' if watch.move else ''}")
    lines.append(f"model: {bundle.card.name}, {precision}, by {config.backend}, {config.operating_point}")
    for to in config.destination:
        calling = "" if to.url else f", called by {to.calling or config.ae_title}"
        lines.append(f"results to: {to.name}, {to.place}{calling}")
    if not config.destination:
        lines.append("results to: nobody, since there is no [[destination]]; they stay in the state folder")
    if config.audit is not None:
        lines.append(f"audit trail to: {config.audit.place}, by syslog over TLS")
    lines += warnings
    lines += _removed(config)
    if not ipaddress.ip_address(config.address).is_loopback and not by_tls:
        lines.append("warning: without TLS, films with their names cross the network in the clear")
    lines.append(f"results say who the patient is: {'yes' if config.phi else 'no'}")
    lines.append(f"state: {config.folder}")
    lines += check_web(config)
    if config.web.enabled:
        listening_socket("web", config.web.address, config.web.port).close()
    return lines


def _check_stow(config: NodeConfig, stow: Stow) -> str:
    for package in _STOW_PACKAGES:
        if extras.installed(package) is None:
            raise MissingPackage(package, "node", "[stow]")
    if stow.token_file is not None:
        read_secret(stow.token_file, SHORTEST_TOKEN)
    listening_socket("stow", stow.address, stow.port).close()
    scheme = "https" if config.tls else "http"
    who = "who shows the token" if stow.token_file else "every program of this machine"
    return f"films by STOW-RS at {scheme}://{stow.address}:{stow.port or 'any'}/dicomweb/studies from {who}"


def _check_certificates(config: NodeConfig) -> list[str]:
    """Return warnings of certificates, after a look at all secrets.

    Raises:
        UsageError: a file cannot be used.
    """
    tls, lines = config.tls, []
    if tls is not None:
        server_context(tls)
        if tls.dicom and tls.ca is None:
            lines.append("warning: [tls] has no `ca`, so that a peer is known by its AE title and address alone")
    for to in config.destination:
        if to.uses_tls:
            ClientTls(to, tls).new_context()
        for path in (to.token_file, to.password_file):
            if path is not None:
                read_secret(path)
    if config.audit is not None:
        ClientTls(config.audit, tls).new_context()
    sentences = [ending(path) for path in certificate_files(config)]
    return lines + [f"warning: {sentence}" for sentence in sentences if sentence]


def warnings(config: NodeConfig) -> list[str]:
    """Return lines about what the machine around a node lacks.

    A worker is started to find out what decoders may do.
    """
    messages = [f"warning: {each.name}: {each.value}: {each.remedy}" for each in findings(config) if each.remedy]
    try:
        possible = isolation()["possible"]
    except RuntimeError as error:
        possible = [f"unknown ({brief(error)})"]
    if possible:
        messages.append(
            f"warning: what decodes films keeps rights that it does not need ({', '.join(possible)}): "
            "`edgecxr doctor` says more"
        )
    return messages


def _removed(config: NodeConfig) -> list[str]:
    """Return warnings of results for destinations no longer configured."""
    try:
        with opened(config) as spool:
            removed = Deliveries(spool).removed({each.name for each in config.destination})
    except (UsageError, sqlite3.Error):  # no node has run so far, or another user's
        return []
    return [f"warning: {count} results wait for {name}, {_NO_DESTINATION}" for name, count in removed.items()]


def _check_port(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
            probe.listen(1)
        except OSError as error:
            low = error.errno == errno.EACCES and port < 1024
            remedy = "give a `port` above 1023, or the right to use it" if low else "end what listens there"
            raise UsageError(
                f"{address} port {port} cannot be listened on ({error.strerror}): {remedy}, or give another one"
            ) from error


def _check_folder(folder: Path) -> None:
    nearest = next(place for place in (folder, *folder.absolute().parents) if os.path.exists(place))
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK):
        raise UsageError(f"{folder} cannot be written: name another folder with `state`")


def opened(config: NodeConfig) -> Spool:
    """Open the spool of a node, running or not.

    Raises:
        UsageError: there is none.
    """
    if not os.path.isfile(config.folder / DATABASE):
        raise UsageError(f"no node has run in {config.folder} so far: name its configuration with --config")
    return Spool(config.folder)


def status(config: NodeConfig) -> dict[str, Any]:
    """Return the states of a node as a JSON object.

    Returns:
        "films": state -> number; "reasons": reason -> number of films without results; "results": destination ->
        state -> number; "removed": destinations that are not configured any more -> number of results that are still
        open; "errors": the latest failures, each "destination", "state", "tries" and "error".

    Raises:
        UsageError: there is no node.
    """
    with opened(config) as spool:
        reasons = spool.read("SELECT reason, count(*) FROM film WHERE reason IS NOT NULL GROUP BY 1 ORDER BY 1")
        keys = ("destination", "state", "tries", "error")
        return {
            "films": FilmQueue(spool).counts(),
            "reasons": {row[0]: row[1] for row in reasons},
            "results": Deliveries(spool).counts(),
            "removed": Deliveries(spool).removed({each.name for each in config.destination}),
            "errors": [dict(zip(keys, row, strict=True)) for row in Deliveries(spool).errors(_ERRORS)],
        }


def describe(now: dict[str, Any]) -> str:
    """Return what `status` returns as lines for people."""
    films = ", ".join(f"{state} {count}" for state, count in now["films"].items())
    rows = [["films", films or "none so far"]]
    if now["reasons"]:
        rows.append(["reasons", ", ".join(f"{reason} {count}" for reason, count in now["reasons"].items())])
    for destination, states in now["results"].items():
        rows.append([f"results to {destination}", ", ".join(f"{state} {count}" for state, count in states.items())])
    rows += [
        ["warning", f"{count} results wait for {name}, {_NO_DESTINATION}"] for name, count in now["removed"].items()
    ]
    for error in now["errors"]:
        rows.append([f"{error['state']} for {error['destination']}", f"{error['error']} (tries: {error['tries']})"])
    return "\n".join(aligned(rows))


def destination_of(config: NodeConfig, name: str) -> Destination:
    """Return the destination of a name.

    Raises:
        UsageError: there is none.
    """
    for destination in config.destination:
        if destination.name == name:
            return destination
    names = ", ".join(destination.name for destination in config.destination)
    raise UsageError(f"{name} is no [[destination]] of the configuration: there are {names or 'none'}")

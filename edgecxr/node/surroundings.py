"""What a node needs of the machine around it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgecxr import extras
from edgecxr.errors import UsageError
from edgecxr.machine.clock import synchronised
from edgecxr.node.limits import Limits
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.tls.certificates import end_of, ending
from edgecxr.node.tls.client_tls import ClientTls, TlsSettings
from edgecxr.storage.reading import BadFile, open_file

TOOLS = ("echoscu", "findscu", "getscu", "movescu", "storescp", "storescu")
"""Programs that both DCMTK and pynetdicom install."""

_PACKAGE = "pynetdicom"
_GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """Something that was looked at.

    Attributes:
        name: of it.
        value: what was found, in words.
        remedy: what to do; "" if it is as it should be.
        facts: the value for programs.
    """

    name: str
    value: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DiskSpace:
    """Space on the disk of the state folder, in bytes.

    Attributes:
        free: what the node can use.
        total: of the disk.
        reserve: below it new films are refused.
    """

    free: int
    total: int
    reserve: int

    @property
    def low(self) -> bool:
        """Whether new films are refused."""
        return self.free < self.reserve


def disk_space(folder: Path, limits: Limits) -> DiskSpace:
    """Return the space that is left for films.

    Args:
        folder: of the node's state.
        limits: the node's.

    Raises:
        OSError: there is no such folder.
    """
    total, _, free = shutil.disk_usage(folder)
    return DiskSpace(free, total, max(limits.free_mib << 20, int(total * limits.free_percent / 100)))


def findings(config: NodeConfig) -> Iterator[Finding]:
    """Yield what was found about the clock, the disk and DCMTK's tools.

    Args:
        config: the node's.
    """
    yield clock()
    yield disk(config)
    shadowed = tools()
    if shadowed is not None:
        yield shadowed


def unfit() -> tuple[str, str] | None:
    """Return pynetdicom's version and the versions that fit, if it is another.

    `edgecxr.node.receiving.guard` touches private names of it, so that another version may be unguarded.
    """
    version = extras.installed(_PACKAGE)
    needs = [need for need in extras.requirements().get("node", ()) if need.name == _PACKAGE]
    if version is None or not needs or needs[0].specifier.contains(version, prereleases=True):
        return None
    return version, str(needs[0].specifier)


def clock() -> Finding:
    """Return whether the clock is kept right; results carry the time."""
    kept = synchronised()
    facts = {"synchronised": kept}
    if kept:
        return Finding("clock", "kept right by a time service", facts=facts)
    remedy = "start a time service such as chrony or systemd-timesyncd: results and the audit trail carry the time"
    if kept is None:
        return Finding("clock", "whether it is kept right cannot be found out", remedy, facts)
    return Finding("clock", "no time service keeps it right", remedy, facts)


def disk(config: NodeConfig) -> Finding:
    """Return the space that is free for the node's state."""
    place = next(each for each in (config.folder, *config.folder.absolute().parents) if os.path.isdir(each))
    space = disk_space(place, config.limits)
    facts = {"path": str(config.folder), "free_bytes": space.free, "kept_bytes": space.reserve}
    value = f"{space.free / _GIB:.1f} GiB free for {config.folder}, of which {space.reserve / _GIB:.1f} GiB stay free"
    if space.low:
        remedy = "make room, or give a `state` on another disk: films are answered 0xA700 until then"
        return Finding("disk", value, remedy, facts)
    return Finding("disk", value, facts=facts)


def tools() -> Finding | None:
    """Return which of DCMTK's tools pynetdicom's hide.

    Returns:
        None if there is nothing of DCMTK's.
    """
    hidden, free = [], []
    for tool in TOOLS:
        places = [Path(place) for place in os.get_exec_path() if os.path.isabs(place)]  # noqa: PTH117
        places = [place for place in places if os.access(place / tool, os.X_OK)]
        of_dcmtk = [place for place in places if not _is_script(place / tool)]
        if of_dcmtk and places[0] != of_dcmtk[0]:
            hidden.append(str(of_dcmtk[0] / tool))
        elif of_dcmtk:
            free.append(str(of_dcmtk[0] / tool))
    facts = {"hidden": hidden, "found": free}
    if hidden:
        value = f"hidden by pynetdicom's of the same names: call {', '.join(hidden)} by their paths"
        return Finding("DCMTK", value, facts=facts)
    return Finding("DCMTK", ", ".join(free), facts=facts) if free else None


def certificate_files(config: NodeConfig) -> list[str]:
    """Return the files with certificates for DICOM and STOW-RS, each once."""
    tls = config.tls
    files = [] if tls is None else [tls.certificate, tls.ca]
    systems: list[TlsSettings] = [to for to in config.destination if to.uses_tls]
    systems += [config.audit] if config.audit else []
    for ends in systems:
        client = ClientTls(ends, tls)
        files += [client.ca, client.certificate]
    return [path for path in dict.fromkeys(files) if path is not None]


def all_certificate_files(config: NodeConfig) -> list[str]:
    """Return the files with certificates, with that of the page, each once."""
    page = [] if config.web.certificate is None else [config.web.certificate]
    return list(dict.fromkeys([*certificate_files(config), *page]))


def certificates(config: NodeConfig) -> Iterator[Finding]:
    """Yield for each certificate that a node uses when it ends."""
    for number, path in enumerate(all_certificate_files(config), 1):
        name = f"certificate {number}"
        try:
            sentence, end = ending(path), end_of(path)
        except UsageError as error:
            problem, _, remedy = str(error).rpartition(": ")
            yield Finding(name, problem, remedy, {"path": path})
            continue
        facts = {"path": path, "ends": end.isoformat()}
        remedy = sentence.rpartition(": ")[2] if sentence else ""
        yield Finding(name, f"{path} ends on {end:%Y-%m-%d}", remedy, facts)


def _is_script(path: Path) -> bool:
    """Return whether a program is a script, such as pip installs."""
    try:
        with open_file(path) as file:
            return file.read(2) == b"#!"
    except (OSError, BadFile):
        return True

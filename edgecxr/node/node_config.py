"""The configuration of a node: one TOML file, read strictly."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from edgecxr.errors import UsageError
from edgecxr.storage import settings
from edgecxr.storage.settings import shown

_AE_TITLE = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")  # PS3.5, VR AE: no backslash, no outer blanks
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_LARGEST_PORT = 65535


@dataclass(frozen=True)
class Peer:
    """A system that may send films.

    Attributes:
        ae_title: how it calls itself.
        address: its IP address, or a network such as 10.1.2.0/24.
    """

    ae_title: str
    address: str

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        _check_ae_title(self.ae_title)
        try:
            ipaddress.ip_network(self.address)
        except ValueError as error:
            raise UsageError(
                f"peer {self.ae_title} has the address {shown(self.address)}: give an IP address or a network"
            ) from error

    def is_at(self, address: str) -> bool:
        """Return whether an IP address is the peer's."""
        at = ipaddress.ip_address(address)
        mapped = getattr(at, "ipv4_mapped", None)
        return (mapped or at) in ipaddress.ip_network(self.address)


@dataclass(frozen=True)
class Destination:
    """A system that gets the results, by C-STORE.

    Attributes:
        name: for commands and messages.
        ae_title: how it is called.
        host: its name or IP address.
        port: where it listens.
        calling: how the node calls itself there; None is its own AE title.
    """

    name: str
    ae_title: str
    host: str
    port: int
    calling: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"the destination's name {shown(self.name)} is none: give letters, digits, _ . or -")
        for title in (self.ae_title, self.calling):
            if title is not None:
                _check_ae_title(title)
        _check_port(self.port)
        if not self.host or any(character.isspace() for character in self.host):
            raise UsageError(f"destination {self.name} has the host {shown(self.host)}: give a name or an IP address")


@dataclass(frozen=True)
class Watch:
    """A folder whose DICOM files are films to read.

    Attributes:
        folder: the folder, with its subfolders.
        move: whether a file is removed from there once the node has it.
    """

    folder: str
    move: bool = False


@dataclass(frozen=True)
class Limits:
    """Bounds of what strangers and broken systems can use up.

    Attributes:
        associations: at one time.
        associations_per_address: at one time, from one address.
        connections: TCP connections at one time, with and without an association.
        first_seconds: for the request of an association, after its connection.
        idle_seconds: without anything from the peer.
        object_seconds: for one film, from its first byte to its last.
        pdu_kib: greatest PDU, KiB.
        film_mib: greatest film, MiB.
        queue: films that wait; further ones are refused.
        free_mib: space that stays free on the disk, MiB.
        free_percent: the same, as a part of the disk; the greater one counts.
        keep_films_days: days for which a film stays in the spool after its results were filed.
        keep_results_days: days for which its results stay.
        give_up_hours: hours for which sending a result is tried.
    """

    associations: int = 16
    associations_per_address: int = 8
    connections: int = 64
    first_seconds: float = 10.0
    idle_seconds: float = 60.0
    object_seconds: float = 120.0
    pdu_kib: int = 1024
    film_mib: int = 256
    queue: int = 10_000
    free_mib: int = 2048
    free_percent: float = 5.0
    keep_films_days: float = 7.0
    keep_results_days: float = 30.0
    give_up_hours: float = 72.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        for name, value in dataclasses.asdict(self).items():
            if not value >= 0 or (value == 0 and not name.startswith("free_")):
                raise UsageError(f"[limits] {name} = {value}: give a number above 0")


@dataclass(frozen=True)
class NodeConfig:
    """Configuration of a node: listener, model and destinations.

    Attributes:
        ae_title: how it is called, and calls itself.
        address: IP address that it listens on.
        port: for DICOM; 0 takes a free one.
        model: path or name of a bundle; None is the latest one.
        state: folder of the films, results and the database; None is a folder of this user.
        precision: of the model file.
        backend: engine that runs the model.
        operating_point: rule of the decisions.
        phi: whether results say who the patient is.
        workers: processes that read films; None is one for each core.
        peer: those that may send films.
        destination: those that get the results.
        watch: folders that are looked through.
        limits: see `Limits`.
    """

    ae_title: str = "EDGECXR"
    address: str = "127.0.0.1"
    port: int = 11112
    model: str | None = None
    state: str | None = None
    precision: str = "fp32"
    backend: str = "onnxruntime"
    operating_point: str = "youden"
    phi: bool = True
    workers: int | None = None
    peer: tuple[Peer, ...] = ()
    destination: tuple[Destination, ...] = ()
    watch: tuple[Watch, ...] = ()
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        _check_ae_title(self.ae_title)
        if self.port:
            _check_port(self.port)
        try:
            listening = ipaddress.ip_address(self.address)
        except ValueError as error:
            raise UsageError(f"address = {shown(self.address)}: give an IP address of this machine") from error
        if not listening.is_loopback and not self.peer:
            raise UsageError(
                f"address = {shown(self.address)} is open to the network, and no [[peer]] may send: name those that "
                "may, or listen on 127.0.0.1"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers = {self.workers}: give 1 or more, or leave it out")
        _check_unique("destination", (destination.name for destination in self.destination))
        _check_unique("peer", (f"{peer.ae_title} at {peer.address}" for peer in self.peer))
        _check_unique("watch", (watch.folder for watch in self.watch))

    @property
    def folder(self) -> Path:
        """The folder of the node's state."""
        if self.state is not None:
            return Path(self.state)
        state = os.environ.get("EDGECXR_STATE")
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111
        return (Path(state) if state else Path(home) / "edgecxr") / "node"

    def may_send(self, ae_title: str, address: str) -> bool:
        """Return whether an AE title at an IP address is a peer."""
        return any(peer.ae_title == ae_title and peer.is_at(address) for peer in self.peer)


def read_config(path: Path | None) -> NodeConfig:
    """Return the configuration in a file, or the defaults.

    Relative paths are relative to the file.

    Raises:
        UsageError: the file cannot be read, or a value cannot be used.
    """
    if path is None:
        return NodeConfig()
    config = settings.read(NodeConfig, path)
    here = path.absolute().parent
    watch = tuple(dataclasses.replace(each, folder=str(here / each.folder)) for each in config.watch)
    state = None if config.state is None else str(here / config.state)
    model = config.model
    if model is not None and (here / model).is_dir():
        model = str(here / model)
    return dataclasses.replace(config, watch=watch, state=state, model=model)


def _check_ae_title(title: str) -> None:
    if not _AE_TITLE.fullmatch(title):
        raise UsageError(f"the AE title {shown(title)} is none: give 1 to 16 printable ASCII characters, no backslash")


def _check_port(port: int) -> None:
    if not 0 < port <= _LARGEST_PORT:
        raise UsageError(f"port = {port}: give a number from 1 to {_LARGEST_PORT}")


def _check_unique(table: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(f"[[{table}]] {shown(name)} stands there {count} times: name it once")

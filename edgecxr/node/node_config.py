"""The configuration of a node: one TOML file, read strictly."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from edgecxr.errors import UsageError
from edgecxr.node.audit.audit_repository import Repository
from edgecxr.node.limits import Limits
from edgecxr.node.receiving.stow_settings import Stow
from edgecxr.node.sending.destination import FILES, Destination, check_ae_title, check_port
from edgecxr.node.tls.certificates import Tls
from edgecxr.storage import settings
from edgecxr.storage.private import state_folder
from edgecxr.storage.settings import shown

_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


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
        check_ae_title(self.ae_title)
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
class Watch:
    """A folder whose DICOM files are films to read.

    Attributes:
        folder: the folder, with its subfolders.
        move: whether a file is removed from there once the node has it.
    """

    folder: str
    move: bool = False


@dataclass(frozen=True)
class Web:
    """The web page.

    Attributes:
        enabled: whether there is one.
        address: IP address that it listens on.
        port: for HTTP, or HTTPS with a certificate; 0 takes a free one.
        certificate: file in PEM, with the chain, if any.
        key: file of its private key in PEM.
        proxy: IP address of a reverse proxy that signs people in; None is none.
        proxy_header: header in which it names them, and which it takes out of what others send.
    """

    enabled: bool = True
    address: str = "127.0.0.1"
    port: int = 8042
    certificate: str | None = None
    key: str | None = None
    proxy: str | None = None
    proxy_header: str = "Remote-User"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        if self.port:
            check_port(self.port)
        if self.proxy is not None:
            _address("[web] proxy", self.proxy, "give the reverse proxy's IP address")
        if not _HEADER.fullmatch(self.proxy_header):
            raise UsageError(f"[web] proxy_header = {shown(self.proxy_header)}: give a header such as Remote-User")
        if (self.certificate is None) != (self.key is None):
            raise UsageError("[web] needs both certificate and key, or neither")
        if not _listening("[web] address", self.address).is_loopback and self.certificate is None:
            raise UsageError(
                f"[web] address = {shown(self.address)} is open to the network, and names would cross it in the clear: "
                "give certificate and key, or listen on 127.0.0.1"
            )

    @property
    def local(self) -> bool:
        """Whether this machine alone can reach the page."""
        return ipaddress.ip_address(self.address).is_loopback

    @property
    def is_open(self) -> bool:
        """Whether nobody needs a password as long as there are no users.

        Whoever comes by a proxy seems to be on this machine.
        """
        return self.local and self.proxy is None

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{'http' if self.certificate is None else 'https'}://{host}:{self.port}/"


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
        not_analysed: whether a report says why a film was not analysed.
        workers: processes that read films; None is one for each core.
        peer: those that may send films.
        destination: those that get the results.
        watch: folders that are looked through.
        tls: what the node proves itself with; None is no TLS.
        stow: listener for DICOMweb; None is none.
        web: the web page.
        audit: system that gets a copy of the audit trail; None is none.
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
    not_analysed: bool = False
    workers: int | None = None
    peer: tuple[Peer, ...] = ()
    destination: tuple[Destination, ...] = ()
    watch: tuple[Watch, ...] = ()
    tls: Tls | None = None
    stow: Stow | None = None
    web: Web = field(default_factory=Web)
    audit: Repository | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        check_ae_title(self.ae_title)
        if self.port:
            check_port(self.port)
        if not _listening("address", self.address).is_loopback and not self.peer:
            raise UsageError(
                f"address = {shown(self.address)} is open to the network, and no [[peer]] may send: name those that "
                "may, or listen on 127.0.0.1"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"workers = {self.workers}: give 1 or more, or leave it out")
        for to in self.destination:
            if to.tls and to.ca is None and (self.tls is None or self.tls.ca is None):
                raise UsageError(f"destination {to.name}: name the authority of its certificate with `ca`")
        if self.stow is not None and not self.stow.is_local and self.tls is None:
            raise UsageError(
                f"[stow] address = {shown(self.stow.address)} is open to the network: add [tls], or listen on 127.0.0.1"
            )
        _check_unique("destination", (destination.name for destination in self.destination))
        _check_unique("peer", (f"{peer.ae_title} at {peer.address}" for peer in self.peer))
        _check_unique("watch", (watch.folder for watch in self.watch))

    @property
    def folder(self) -> Path:
        """The folder of the node's state."""
        if self.state is not None:
            return Path(self.state)
        return state_folder() / "node"

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
    tls = None if config.tls is None else located(config.tls, here, ("certificate", "key", "ca"))
    stow = None if config.stow is None else located(config.stow, here, ("token_file",))
    web = located(config.web, here, ("certificate", "key"))
    audit = None if config.audit is None else located(config.audit, here, ("ca", "certificate", "key"))
    destination = tuple(located(each, here, FILES) for each in config.destination)
    model = config.model
    if model is not None and (here / model).is_dir():
        model = str(here / model)
    config = dataclasses.replace(
        config,
        watch=watch,
        state=state,
        model=model,
        tls=tls,
        destination=destination,
        stow=stow,
        web=web,
        audit=audit,
    )
    _check_watched(path, config)
    return config


T = TypeVar("T", Tls, Destination, Stow, Web, Repository)


def located(values: T, folder: Path, keys: Iterable[str]) -> T:
    """Return values whose relative paths are completed."""
    paths: dict[str, Any] = {
        key: str(folder / getattr(values, key)) for key in keys if getattr(values, key) is not None
    }
    return dataclasses.replace(values, **paths)


def _address(key: str, address: str, remedy: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(address)
    except ValueError as error:
        raise UsageError(f"{key} = {shown(address)}: {remedy}") from error


def _listening(key: str, address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    return _address(key, address, "give an IP address of this machine")


def _check_watched(path: Path, config: NodeConfig) -> None:
    """Check that no watched folder has the node's own files.

    Raises:
        UsageError: a watched folder and the state folder lie in each other.
    """
    own = config.folder.resolve()
    for watch in config.watch:
        watched = Path(watch.folder).resolve()
        if own.is_relative_to(watched) or watched.is_relative_to(own):
            raise UsageError(
                f"{path}: [[watch]] folder = {shown(watch.folder)} and the state folder {own} lie in each other: give "
                "folders that do not"
            )


def _check_unique(table: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(f"[[{table}]] {shown(name)} stands there {count} times: name it once")

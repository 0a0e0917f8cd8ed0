"""A destination of results, as the configuration names it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from edgecxr.errors import UsageError
from edgecxr.storage.settings import shown

_AE_TITLE = re.compile(r"[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?")  # PS3.5, VR AE: no backslash, no outer blanks
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_LARGEST_PORT = 65535

FILES = ("ca", "certificate", "key", "token_file", "password_file")
"""Fields of a `Destination` that name files."""


@dataclass(frozen=True)
class Destination:
    """A system that gets the results, by C-STORE or STOW-RS.

    Attributes:
        name: for commands and messages.
        url: of its DICOMweb service, for STOW-RS; None is C-STORE.
        ae_title: how it is called.
        host: its name or IP address.
        port: where it listens.
        calling: how the node calls itself there; None is its own AE title.
        tls: whether it is spoken to by TLS; a URL says so itself.
        ca: file of the authorities that its certificate must come from; None is that of [tls].
        certificate: what the node proves itself with there; None is that of [tls].
        key: of the certificate.
        tls_name: name in its certificate; None is `host`.
        commit: whether it is asked to commit itself to keep the results.
        token_file: file of the token that is shown to a URL.
        user: whose password is shown to a URL.
        password_file: file of the password.
    """

    name: str
    ae_title: str = ""
    host: str = ""
    port: int = 0
    calling: str | None = None
    tls: bool = False
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    tls_name: str | None = None
    commit: bool = False
    url: str | None = None
    token_file: str | None = None
    user: str | None = None
    password_file: str | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value cannot be used.
        """
        if not _NAME.fullmatch(self.name):
            raise UsageError(f"the destination's name {shown(self.name)} is none: give letters, digits, _ . or -")
        if self.url is None:
            self._check_association()
        else:
            self._check_url()
        if (self.certificate is None) != (self.key is None):
            raise UsageError(f"destination {self.name} needs both `certificate` and `key`, or neither")
        if not self.tls and self.url is None and any((self.ca, self.certificate, self.tls_name)):
            raise UsageError(f"destination {self.name} has files for TLS and does not use it: add `tls = true`")

    def _check_association(self) -> None:
        if not (self.ae_title and self.host and self.port):
            raise UsageError(f"destination {self.name} needs `ae_title`, `host` and `port`, or a `url`")
        for title in (self.ae_title, self.calling):
            if title is not None:
                check_ae_title(title)
        check_port(self.port)
        if any(character.isspace() for character in self.host):
            raise UsageError(f"destination {self.name} has the host {shown(self.host)}: give a name or an IP address")
        if any((self.token_file, self.user, self.password_file)):
            raise UsageError(f"destination {self.name} has a token or password, which only a `url` takes")

    def _check_url(self) -> None:
        of_dimse = ("ae_title", "host", "port", "calling", "tls", "tls_name", "commit")
        if any(getattr(self, key) for key in of_dimse):
            raise UsageError(f"destination {self.name} has a `url`: leave out {', '.join(of_dimse)}")
        url = self.split_url
        if (self.user is None) != (self.password_file is None) or (self.user and self.token_file):
            raise UsageError(f"destination {self.name}: give `token_file`, or `user` and `password_file`")
        if self.user is not None and (":" in self.user or not self.user.isprintable()):
            raise UsageError(f"destination {self.name} has the user {shown(self.user)}: give one without a colon")
        if url.scheme == "http" and (self.user or self.token_file) and not _is_local(url.hostname or ""):
            raise UsageError(f"destination {self.name} would show its password in the clear: give an https URL")

    @property
    def split_url(self) -> SplitResult:
        """The parts of the URL.

        Raises:
            UsageError: it is none that can be used.
        """
        try:
            url = urlsplit(self.url or "")
            good = url.scheme in ("http", "https") and url.hostname and url.port != 0
        except ValueError:
            good = False
        odd = any(character.isspace() or not character.isascii() for character in self.url or "")
        if not good or odd or url.username is not None or url.query or url.fragment:
            raise UsageError(
                f"destination {self.name} has the url {shown(self.url)}: give one like https://pacs.clinic/dicomweb"
            )
        return url

    @property
    def uses_tls(self) -> bool:
        """Whether it is spoken to by TLS."""
        return self.tls or (self.url or "").startswith("https:")

    @property
    def place(self) -> str:
        """Where it is, in words."""
        if self.url is not None:
            return self.url
        return f"{self.ae_title} at {self.host} port {self.port}{' by TLS' if self.tls else ''}"


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_ae_title(title: str) -> None:
    """Check an AE title.

    Raises:
        UsageError: it is none.
    """
    if not _AE_TITLE.fullmatch(title):
        raise UsageError(f"the AE title {shown(title)} is none: give 1 to 16 printable ASCII characters, no backslash")


def check_port(port: int) -> None:
    """Check the number of a port.

    Raises:
        UsageError: it is none.
    """
    if not 0 < port <= _LARGEST_PORT:
        raise UsageError(f"port = {port}: give a number from 1 to {_LARGEST_PORT}")

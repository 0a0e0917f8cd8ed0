"""A certificate authority of the clinic's own, made by openssl."""

from __future__ import annotations

import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgecxr.errors import UsageError, brief
from edgecxr.storage.atomic import writing
from edgecxr.storage.permissions import PRIVATE, umask
from edgecxr.storage.private import own_folder

AUTHORITY = "ca"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_AUTHORITY_DAYS = 3650
_SECONDS = 60

_SETTINGS = """[req]
prompt = no
distinguished_name = subject
[subject]
CN = {name}
[authority]
basicConstraints = critical, CA:TRUE, pathlen:0
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[system]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = {hosts}
"""


def certify(folder: Path, name: str, hosts: Sequence[str], days: int, renew: bool = False) -> list[Path]:
    """Make a certificate for a system, and the authority if needed.

    Keys are for this user alone (0600), on the curve P-256.

    Args:
        folder: of the authority and all of its certificates.
        name: of the system: NAME.key and NAME.pem.
        hosts: names and IP addresses that it is reached by; none is `name`.
        days: for which it is valid.
        renew: whether a new certificate is made for a key that is there.

    Returns:
        The files that were made: of the authority, if it is new, and of the system.

    Raises:
        UsageError: a value cannot be used, there is such a system already, or openssl is missing.
    """
    hosts = hosts or [name]
    for text in (name, *hosts):
        if not _NAME.fullmatch(text) and not _is_address(text):
            raise UsageError(f"{text!r} is no name of a system: give letters, digits, . _ and -, or an IP address")
    if name == AUTHORITY or not _NAME.fullmatch(name):
        raise UsageError(f"{name} cannot be the name of a system's files: give another, and {name} by --host")
    if days < 1:
        raise UsageError(f"--days {days}: give 1 or more")
    key, certificate = folder / f"{name}.key", folder / f"{name}.pem"
    if renew and not os.path.isfile(key):
        raise UsageError(f"{key} does not exist, so that there is nothing to renew: leave --renew out")
    if not renew and (os.path.lexists(key) or os.path.lexists(certificate)):
        raise UsageError(f"{name} has a key and certificate in {folder}: --renew makes a new certificate for its key")
    remedy = "name another folder"
    messages = []
    with umask(PRIVATE), writing(folder, remedy):
        own_folder(folder, remedy)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as place:
            if not os.path.exists(folder / f"{AUTHORITY}.key"):
                messages += _made_authority(folder, Path(place))
            messages += _made_system(folder, Path(place), name, hosts, days, renew)
    return messages


def _made_authority(folder: Path, place: Path) -> list[Path]:
    settings = place / "authority.cnf"
    settings.write_text(_SETTINGS.format(name=f"edgecxr authority {secrets.token_hex(4)}", hosts="DNS:none"))
    key, certificate = place / "ca.key", place / "ca.pem"
    _openssl(
        *("req", "-x509", "-new", "-config", settings, "-extensions", "authority", "-days", _AUTHORITY_DAYS),
        *(*_new_key(key), "-out", certificate),
    )
    return [_moved(each, folder) for each in (certificate, key)]  # the key last: it says that there is an authority


def _made_system(folder: Path, place: Path, name: str, hosts: Sequence[str], days: int, renew: bool) -> list[Path]:
    settings = place / "system.cnf"
    names = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
    settings.write_text(_SETTINGS.format(name=name, hosts=names))
    key, request, certificate = (place / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
    of_key = ("-key", folder / key.name) if renew else _new_key(key)
    _openssl("req", "-new", "-config", settings, *of_key, "-out", request)
    _openssl(
        *("x509", "-req", "-in", request, "-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-days", days),
        *("-set_serial", f"0x{secrets.token_hex(16)}", "-extfile", settings, "-extensions", "system"),
        *("-out", certificate),
    )
    return [_moved(each, folder) for each in ((certificate,) if renew else (key, certificate))]


def _new_key(path: Path) -> tuple[object, ...]:
    return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path


def _moved(path: Path, folder: Path) -> Path:
    path.chmod(0o600)
    return path.replace(folder / path.name)


def _openssl(*arguments: object) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise UsageError("openssl is not installed, which makes keys and certificates: `apt install openssl`")
    try:
        ended = subprocess.run(
            [program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"openssl cannot be run ({brief(error)}): make certificates by other means") from error
    if ended.returncode:
        raise UsageError(f"openssl {arguments[0]} failed ({brief(ended.stderr)}): correct it, or use another openssl")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

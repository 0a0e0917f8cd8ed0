"""Users of the web page: names, roles, hashes of passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from edgecxr.errors import UsageError, brief
from edgecxr.storage.atomic import atomic_write, writing
from edgecxr.storage.json_values import format_of, read_json
from edgecxr.storage.locks import locked
from edgecxr.storage.permissions import PRIVATE, umask
from edgecxr.storage.settings import shown

ROLES = ("viewer", "operator", "admin")
"""Roles, each of which may do what those before it may.

A viewer looks at films, an operator sends results again, an admin sees who is signed in.
"""

SHORTEST, LONGEST = 10, 256
"""Characters of a password."""

FILE = "users.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,31}")
_FORMAT = 1
_REMEDY = "name another folder with `state`"
_LARGEST = 1 << 20

# One of the settings that OWASP's Password Storage Cheat Sheet names for scrypt: 32 MiB for each trial.
_N, _R, _P = 1 << 15, 8, 3
_MEMORY = 64 << 20
_AT_ONCE = threading.Semaphore(2)  # strangers must not make this process take much memory


@dataclass(frozen=True)
class User:
    """A user of the web page.

    Attributes:
        role: one of `ROLES`.
        salt: of the hash, in base64.
        hash: of the password, in base64.
    """

    role: str
    salt: str
    hash: str


def add_user(folder: Path, name: str, role: str, password: str) -> bool:
    """Add a user, or give one another role and password.

    Args:
        folder: of the node's state; made if missing.
        name: of the user.
        role: one of `ROLES`.
        password: see `SHORTEST`.

    Returns:
        Whether the user is new.

    Raises:
        UsageError: the name, role or password cannot be used, or the file cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"the user name {shown(name)} is none: give up to 32 letters, digits and . _ @ -")
    if role not in ROLES:
        raise UsageError(f"--role {shown(role)}: there are {', '.join(ROLES)}")
    if not SHORTEST <= len(password) <= LONGEST or password == name:
        raise UsageError(f"the password needs {SHORTEST} to {LONGEST} characters, and is not the name: give another")
    salt = secrets.token_bytes(16)
    entry = User(role, _text(salt), _text(_hash(password, salt)))
    with _changing(folder) as users:
        new = name not in users
        users[name] = entry
        _write(folder, users)
    return new


def remove_user(folder: Path, name: str) -> None:
    """Remove a user.

    Raises:
        UsageError: there is none of this name, or the file cannot be read or written.
    """
    with _changing(folder) as users:
        if users.pop(name, None) is None:
            raise UsageError(f"{shown(name)} is no user: `edgecxr node user list` names them")
        _write(folder, users)


def users_of(folder: Path) -> dict[str, User]:
    """Return the users of a node by name, if any.

    Raises:
        UsageError: the file cannot be used, or other users of this machine could have written it.
    """
    path = folder / FILE
    try:
        state = path.stat()
        if state.st_uid != os.geteuid() or state.st_mode & 0o077:
            raise UsageError(f"{path} is open to other users of this machine: `chmod 600` it, and check who is in it")
        read = read_json(path, _LARGEST)
        if format_of(read) != _FORMAT:
            raise ValueError("it has another format")
        return {str(name): User(**entry) for name, entry in read["users"].items() if entry["role"] in ROLES}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} cannot be used ({brief(error)}): remove it, and add the users again with `edgecxr node user add`"
        ) from error


def is_password(user: User | None, password: str) -> bool:
    """Return whether a password is a user's.

    It takes as long for None as for a user, so that nobody learns which names there are.
    """
    salt, expected = (user.salt, user.hash) if user else (_text(b"nobody"), "")
    digest = _text(_hash(password[:LONGEST], base64.b64decode(salt)))
    return hmac.compare_digest(digest, expected) and user is not None


def _hash(password: str, salt: bytes) -> bytes:
    with _AT_ONCE:
        return hashlib.scrypt(password.encode("utf-8", "surrogatepass"), salt=salt, n=_N, r=_R, p=_P, maxmem=_MEMORY)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@contextmanager
def _changing(folder: Path) -> Iterator[dict[str, User]]:
    """Provide the users, which nobody else changes meanwhile."""
    with umask(PRIVATE):
        with writing(folder, _REMEDY):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".users.lock"):
            yield users_of(folder)


def _write(folder: Path, users: dict[str, User]) -> None:
    table = {"format": _FORMAT, "users": {name: asdict(user) for name, user in sorted(users.items())}}
    atomic_write(folder / FILE, json.dumps(table, indent=1) + "\n", _REMEDY)

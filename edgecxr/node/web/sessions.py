"""Who is signed in, and what a visitor may do.

A visitor is known by a random token in a cookie. Forms carry a second token, derived from the first one, that pages of
others cannot know.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecxr.node.web.users import FILE, ROLES, User, is_password, users_of

IDLE, LONGEST = 3600.0, 12 * 3600.0
"""Seconds until somebody has to sign in again: without opening a page, and in all."""

FREE_FAILURES = 5
"""Failed attempts until the next one has to wait."""

LONGEST_DELAY = 60.0

_FORGIVEN = 3600.0  # seconds after which failures are forgotten

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_MOST = 1000  # sessions, and names and addresses whose failures are counted


@dataclass
class Session:
    """Somebody who is signed in.

    Attributes:
        name: of the user.
        salt: of the password, which changes with it.
        address: from where.
        began: seconds of the clock.
        last_seen: when a page was last opened, seconds of the clock.
    """

    name: str
    salt: str
    address: str
    began: float
    last_seen: float


@dataclass(frozen=True)
class Visitor:
    """Whoever asks for a page.

    Attributes:
        token: of the cookie.
        form_token: which their forms carry.
        name: of the user; None if nobody is signed in.
        role: one of `ROLES`; None if they may see nothing.
        by_proxy: whether a reverse proxy has signed them in.
    """

    token: str
    form_token: str
    name: str | None
    role: str | None
    by_proxy: bool = False

    def may(self, role: str) -> bool:
        """Return whether they may do what a role may."""
        return self.role is not None and ROLES.index(self.role) >= ROLES.index(role)


class Sessions:
    """The visitors of a node's web page. Threads may share it.

    Args:
        folder: of the node's state.
        open_to_all: whether nobody needs a password as long as there are no users: on loopback alone.
        clock: seconds, never set back.
    """

    def __init__(self, folder: Path, open_to_all: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._open, self._clock = folder, open_to_all, clock
        self._secret = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._basic: OrderedDict[bytes, tuple[str, str]] = OrderedDict()
        self._users: tuple[tuple[int, int, int] | None, dict[str, User]] = (None, {})

    def users(self) -> dict[str, User]:
        """Return the users; the file is read again when it has changed.

        Raises:
            UsageError: the file cannot be used.
        """
        try:
            state = (self._folder / FILE).stat()
            stamp = (state.st_mtime_ns, state.st_ino, state.st_mode)
        except OSError:
            stamp = None
        cached_stamp, users = self._users
        if stamp is None or stamp != cached_stamp:
            users = users_of(self._folder)
            self._users = (stamp, users)
        return users

    def asks_password(self) -> bool:
        """Return whether a password is asked.

        Raises:
            UsageError: the file of users cannot be used.
        """
        return not self._open or bool(self.users())

    def visitor(self, token: str | None, touch: bool = True) -> Visitor:
        """Return who a cookie belongs to.

        Args:
            token: of the cookie; anything else than a token becomes a new one.
            touch: whether this keeps a session alive.
        """
        users, now = self.users(), self._clock()
        if token is None or not _TOKEN.fullmatch(token):
            token = secrets.token_urlsafe(32)
        name = role = None
        with self._lock:
            session = self._sessions.get(_key(token))
            if session is not None:
                user = users.get(session.name)
                late = now - session.last_seen > IDLE or now - session.began > LONGEST
                if user is None or user.salt != session.salt or late:
                    del self._sessions[_key(token)]
                else:
                    name, role = session.name, user.role
                    session.last_seen = now if touch else session.last_seen
        if role is None and not self.asks_password():
            role = "operator"
        form_token = hmac.new(self._secret, token.encode(), hashlib.sha256).hexdigest()
        return Visitor(token, form_token, name, role)

    def named(self, visitor: Visitor, name: str) -> Visitor:
        """Return a visitor whom a reverse proxy has signed in.

        Args:
            visitor: who the cookie belongs to.
            name: of the user, as the proxy says; one that is not known may see nothing.
        """
        user = self.users().get(name)
        return Visitor(visitor.token, visitor.form_token, name, user.role if user else None, by_proxy=True)

    def wait(self, name: str, address: str) -> float:
        """Return for how many seconds a name or address has to wait."""
        with self._lock:
            return max(0.0, self._waits(name, address) - self._clock())

    def _waits(self, name: str, address: str) -> float:
        """Return until when they have to wait, seconds of the clock."""
        return max(self._failures.get(key, (0, 0.0))[1] for key in _of(name, address))

    def sign_in(self, name: str, password: str, address: str) -> str | None:
        """Check a password, and return the new token of the visitor.

        After `FREE_FAILURES` failures of a name or an address, attempts are refused for a time that doubles with each.

        Returns:
            None if the password is wrong, or the attempt came too early.
        """
        if not self.is_right(name, password, address):
            return None
        user, now = self.users()[name], self._clock()
        token = secrets.token_urlsafe(32)
        with self._lock:
            if len(self._sessions) >= _MOST:
                del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].last_seen)]
            self._sessions[_key(token)] = Session(name, user.salt, address, now, now)
        return token

    def is_right(self, name: str, password: str, address: str) -> bool:
        """Return whether a password is that of a user, and count failures."""
        now = self._clock()
        with self._lock:
            if self._waits(name, address) > now:
                return False
            # Counted before the password is checked, so that attempts at one time do not all come before the first.
            for key in _of(name, address):
                count, due = self._failures.pop(key, (0, now))
                count = 1 if now - due > _FORGIVEN else count + 1
                delay = min(LONGEST_DELAY, 2.0 ** (count - FREE_FAILURES)) if count >= FREE_FAILURES else 0.0
                self._failures[key] = (count, now + delay)
            while len(self._failures) > _MOST:
                self._failures.popitem(last=False)
        right = is_password(self.users().get(name), password)
        if right:
            with self._lock:
                for key in _of(name, address):
                    self._failures.pop(key, None)
        return right

    def basic(self, name: str, password: str, address: str) -> Visitor | None:
        """Return the user of a program that sends its password each time.

        Passwords that were right are remembered as a digest, since checking one takes long.
        """
        users = self.users()
        digest = hmac.new(self._secret, f"{name}\0{password}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        user = users.get(name)
        with self._lock:
            is_cached = user is not None and self._basic.get(digest) == (name, user.salt)
        if not is_cached and (not self.is_right(name, password, address) or (user := self.users().get(name)) is None):
            return None
        assert user is not None
        with self._lock:
            self._basic[digest] = (name, user.salt)
            while len(self._basic) > _MOST:
                self._basic.popitem(last=False)
        return Visitor("", "", name, user.role)

    def sign_out(self, token: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_key(token), None)

    def sessions(self) -> list[tuple[str, str, float]]:
        """Return who is signed in: name, address, seconds without opening a page."""
        now = self._clock()
        with self._lock:
            return [(session.name, session.address, now - session.last_seen) for session in self._sessions.values()]


def _key(token: str) -> str:
    # Sessions are found by a digest, so that the time of the search says nothing about a token.
    return hashlib.sha256(token.encode()).hexdigest()


def _of(name: str, address: str) -> tuple[str, str]:
    return f"name {name[:64]}", f"address {address}"

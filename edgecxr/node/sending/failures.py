"""Why a result does not reach its destination."""

from __future__ import annotations


class Unreachable(Exception):
    """A destination that takes nothing now, or whose connection was lost.

    Attributes:
        wait: seconds that the destination asks to wait; None if it does not say.
    """

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Refused(Exception):
    """A result that a destination does not take.

    Attributes:
        transient: whether it may take it later.
    """

    def __init__(self, message: str, transient: bool) -> None:
        super().__init__(message)
        self.transient = transient

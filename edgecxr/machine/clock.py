"""Whether the machine's clock is kept right from outside."""

from __future__ import annotations

import ctypes

_ERROR = 5  # TIME_ERROR of <sys/timex.h>
_SIZE = 512  # bytes, more than `struct timex` has anywhere; zeros ask and set nothing


def synchronised() -> bool | None:
    """Return whether a time service keeps this machine's clock right.

    Returns:
        What the kernel was told by the service, such as chrony or systemd-timesyncd; None if it cannot be asked.
    """
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_SIZE))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _ERROR

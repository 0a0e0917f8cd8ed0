"""End of a training run: all epochs, patience, or time."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from edgecxr.bundle.epoch_history import kept_epoch
from edgecxr.errors import TimeIsUp, UsageError
from edgecxr.train.epochs.epoch_report import kept_in

EPOCHS, PATIENCE = "epochs", "patience"
"""Why a run is finished, as its card says."""

CHECK_EVERY = 10
"""Steps between two looks of several processes at the clock of the first one, for which all of them wait."""


def ended(history: list[dict[str, Any]], epochs: int, patience: int | None) -> dict[str, Any] | None:
    """Return why a run is finished, None if it goes on.

    Args:
        history: rows of history.csv.
        epochs: number of epochs of the run.
        patience: epochs without a higher score after which the run ends; None: all epochs are trained. Epochs without
            a score never end it.

    Returns:
        "reason" (`EPOCHS` or `PATIENCE`), "epochs" (how many were trained) and "kept" (the epoch whose weights are
        kept), as they go into the card.
    """
    done = len(history)
    if not done:
        return None
    kept = kept_epoch(history)["epoch"]
    if done < epochs and (patience is None or done - kept < patience):
        return None
    return {"reason": EPOCHS if done >= epochs else PATIENCE, "epochs": done, "kept": kept}


class TimeLimit:
    """Limit of the hours that a command trains.

    The clock is that of the first process, and starts with this object: a run that goes on has the whole limit again.

    Args:
        hours: above 0; None: there is no limit.
        fabric: connects the processes.

    Raises:
        UsageError: `hours` is no such number.
    """

    def __init__(self, hours: float | None, fabric: Fabric) -> None:
        check_hours(hours)
        self._hours = hours
        self._fabric = fabric
        self._end = time.monotonic() + (hours or 0) * 3600
        self._longest, self._begun = 0.0, math.nan
        self._every = CHECK_EVERY if fabric.world_size > 1 else 1

    def begin_epoch(self, run: Path, done: int) -> None:
        """Begin an epoch, unless it would probably not end in time.

        It is taken to last as long as the longest one of this command. If there was none, it is tried.

        Args:
            run: the run's folder, for the message.
            done: number of epochs that are done.

        Raises:
            TimeIsUp: it would not.
        """
        now = time.monotonic()
        self._longest = max(self._longest, now - self._begun) if not math.isnan(self._begun) else 0.0
        self._begun = now
        if self._passed(now + self._longest):
            raise TimeIsUp(
                f"epoch {done + 1} would end after the {self._hours:g} hours of --max-hours: {kept_in(run, done)}"
            )

    def check_step(self, run: Path, done: int, step: int) -> None:
        """End an epoch that takes longer than was foreseen.

        Args:
            run: the run's folder, for the message.
            done: number of epochs that are done.
            step: number of the epoch's step, counted from 0.

        Raises:
            TimeIsUp: the time is over.
        """
        if self._hours is not None and step % self._every == 0 and self._passed(time.monotonic()):
            more = "" if self._longest else "; no epoch ended in that time: give more"
            raise TimeIsUp(
                f"the {self._hours:g} hours of --max-hours are over in the middle of epoch {done + 1}: "
                f"{kept_in(run, done)}{more}"
            )

    def _passed(self, moment: float) -> bool:
        """Return whether the first process says that a moment is too late."""
        if self._hours is None:
            return False
        is_over: bool = self._fabric.broadcast(moment > self._end)
        return is_over


def check_hours(hours: float | None) -> None:
    """Refuse a limit that is none.

    Raises:
        UsageError: it is not above 0.
    """
    if hours is not None and not 0 < hours < math.inf:
        raise UsageError(f"--max-hours {hours}: more than 0")

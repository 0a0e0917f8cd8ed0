"""This process among those that torchrun, or a launcher like it, started.

A launcher says it in environment variables. They may also be left over in a shell, and then one process is no several.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from edgecxr.errors import UsageError, brief

_LEAST = {"WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1, "RANK": 0, "LOCAL_RANK": 0}
"""Variables of torchrun, and the smallest value of each."""

_PARSED = ("GROUP_RANK", "NODE_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK", "MASTER_PORT")
"""Further ones that Lightning takes for numbers, some already when it is imported."""


class Place(NamedTuple):
    """A process among several.

    Attributes:
        ranks: number of processes.
        local_ranks: number of processes on this machine.
        local_rank: number of this process on this machine; None if it was started alone.
    """

    ranks: int
    local_ranks: int
    local_rank: int | None


def place() -> Place:
    """Read what torchrun tells its processes in environment variables.

    Raises:
        UsageError: one of them is missing, or not a number that fits the others.
    """
    # An empty WORLD_SIZE is none; an empty RANK is a mistake, since Lightning takes it for a number.
    texts = {name: os.environ[name].strip() for name in (*_LEAST, *_PARSED) if name in os.environ}
    texts = {name: text for name, text in texts.items() if text or not name.endswith("WORLD_SIZE")}
    numbers = {name: int(text) for name, text in texts.items() if re.fullmatch(r"[0-9]{1,9}", text)}
    wrong = [f"{name}={brief(text, 40)}" for name, text in texts.items() if numbers.get(name, -1) < _LEAST.get(name, 0)]
    several = numbers.get("WORLD_SIZE", 1) > 1
    needed = ("WORLD_SIZE", "RANK", "LOCAL_RANK") if several else ("WORLD_SIZE",) if "RANK" in texts else ()
    wrong += [f"no {name}" for name in needed if name not in texts]
    ranks, local = numbers.get("WORLD_SIZE", 1), numbers.get("LOCAL_WORLD_SIZE", 1)
    if not wrong and not (numbers.get("RANK", 0) < ranks and numbers.get("LOCAL_RANK", 0) < local <= ranks):
        wrong = [f"{name}={number}" for name, number in numbers.items() if name in _LEAST]
    if wrong:
        raise UsageError(
            f"the environment has WORLD_SIZE={brief(os.environ.get('WORLD_SIZE', '(unset)'), 40)} but not what goes "
            f"with it ({', '.join(wrong)}): start several processes with torchrun or --devices, or unset WORLD_SIZE, "
            "RANK, LOCAL_RANK and those named"
        )
    return Place(ranks, local, numbers.get("LOCAL_RANK"))


def number_of_several() -> int | None:
    """Return this process's number among several; None if it is alone.

    Variables that make no sense count as none, so that an error about them is heard.
    """
    if "RANK" not in os.environ:  # nearly always
        return None
    try:
        several = place().ranks > 1
    except UsageError:
        return None
    return int(os.environ["RANK"]) if several else None

"""Rows about what a node needs, where its extra is installed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgecxr.doctor.listing import Row
from edgecxr.extras import command, installed
from edgecxr.node.node_config import read_config
from edgecxr.node.surroundings import certificates, findings, unfit


def rows(path: Path | None = None) -> Iterator[Row]:
    """Yield pynetdicom's version, the clock, the disk, DCMTK's tools, certificates.

    Args:
        path: of the node's configuration; None is the defaults.
    """
    version = installed("pynetdicom")
    if version is None:
        yield Row("node", "pynetdicom", "absent", "not installed", "for `edgecxr serve`", (command("node"),))
        return
    other = unfit()
    facts = {"version": version, "fits": other is None}
    if other:
        value = f"{version}, and `edgecxr serve` needs {other[1]}"
        yield Row("node", "pynetdicom", "error", value, "the node does not start with it", (command("node"),), facts)
    else:
        yield Row("node", "pynetdicom", "ok", version, facts=facts)
    config = read_config(path)
    for check in (*findings(config), *certificates(config)):
        yield Row("node", check.name, "warn" if check.remedy else "ok", check.value, check.remedy, facts=check.facts)

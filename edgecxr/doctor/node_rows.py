"""Rows about what a node needs, where its extra is installed."""

from __future__ import annotations

from collections.abc import Iterator

from edgecxr.doctor.listing import Row
from edgecxr.extras import command, installed
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.surroundings import findings, unfit


def rows() -> Iterator[Row]:
    """Yield pynetdicom's version, the clock, the disk, and DCMTK's tools."""
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
    for each in findings(NodeConfig()):
        yield Row("node", each.name, "warn" if each.remedy else "ok", each.value, each.remedy, facts=each.facts)

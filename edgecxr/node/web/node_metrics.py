"""Numbers of a node as Prometheus reads them.

`node_metrics` collects them; whoever has more of them appends a `Metric` there. They name no patient and no film.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from edgecxr import __version__
from edgecxr.node.node_config import NodeConfig
from edgecxr.node.spool import Spool
from edgecxr.node.surroundings import all_certificate_files, disk_space
from edgecxr.node.tls.certificates import days_left
from edgecxr.node.web import node_health, queries

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""Upper bounds of the histogram of seconds from received to filed."""

Labels = tuple[tuple[str, str], ...]


@dataclass
class Metric:
    """A metric and its samples.

    Attributes:
        name: without the prefix.
        kind: "gauge", "counter" or "histogram".
        text: what it is, one line.
        samples: suffix of the name, labels, value.
    """

    name: str
    kind: str
    text: str
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float, suffix: str = "", **labels: str) -> None:
        """Add a sample."""
        self.samples.append((suffix, tuple(labels.items()), value))


def node_metrics(spool: Spool, config: NodeConfig) -> list[Metric]:
    """Return the numbers of a node.

    Args:
        spool: its spool.
        config: its configuration.

    Raises:
        OSError: the state folder is gone.
    """
    return [
        *_of_films(spool),
        *_of_results(spool, [destination.name for destination in config.destination]),
        *_of_machine(config),
        *_of_connections(spool),
    ]


def exposition(metrics: Iterable[Metric]) -> str:
    """Return metrics in the text format of Prometheus, version 0.0.4."""
    lines = []
    for metric in metrics:
        name = f"edgecxr_{metric.name}"
        lines += [f"# HELP {name} {metric.text}", f"# TYPE {name} {metric.kind}"]
        for suffix, labels, value in metric.samples:
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(f"{name}{suffix}{{{inside}}} {value:.17g}" if inside else f"{name}{suffix} {value:.17g}")
    return "\n".join([*lines, ""])


def _of_films(spool: Spool) -> list[Metric]:
    films = Metric("films", "gauge", "Films by state and reason.")
    for state, reason, count in spool.read(
        "SELECT state, coalesce(reason, ''), count(*) FROM film GROUP BY 1, 2 ORDER BY 1, 2"
    ):
        films.add(count, state=state, reason=reason)
    duration = Metric("received_to_filed_seconds", "histogram", "Seconds from receiving a film to filing its results.")
    within = ", ".join(f"sum(seconds <= {bound})" for bound in BUCKETS)
    row = spool.read(
        f"SELECT count(*), total(seconds), {within} FROM (SELECT max(0.0, changed - received) AS seconds FROM film"
        " WHERE state IN ('filed', 'forgotten'))"
    )[0]
    for bound, count in zip(BUCKETS, row[2:], strict=True):
        duration.add(count or 0, "_bucket", le=f"{bound:g}")
    duration.add(row[0], "_bucket", le="+Inf")
    duration.add(row[1], "_sum")
    duration.add(row[0], "_count")
    waiting, oldest, _ = queries.queue(spool)
    queue = Metric("queue_films", "gauge", "Films that wait to be read.")
    queue.add(waiting)
    age = Metric("queue_age_seconds", "gauge", "Age of the oldest film that waits to be read; 0 if none waits.")
    age.add(0.0 if oldest is None else max(0.0, time.time() - oldest))
    return [films, duration, queue, age]


def _of_results(spool: Spool, destinations: list[str]) -> list[Metric]:
    results = Metric("results", "gauge", "Results by destination and state; dead ones were given up.")
    counts = queries.queue(spool)[2]
    for name in [*destinations, *(name for name in counts if name not in destinations)]:
        for state in ("waiting", "sent", "committed", "dead", "dropped"):
            results.add(counts.get(name, {}).get(state, 0), destination=name, state=state)
    return [results]


def _of_machine(config: NodeConfig) -> list[Metric]:
    disk, states = disk_space(config.folder, config.limits), node_health.processes(config)
    free = Metric("disk_free_bytes", "gauge", "Free space on the disk of the state folder.")
    free.add(disk.free)
    reserve = Metric("disk_reserve_bytes", "gauge", "Free space below which new films are refused.")
    reserve.add(disk.reserve)
    up = Metric("process_up", "gauge", "Whether a process of the node runs.")
    memory = Metric("process_memory_bytes", "gauge", "Memory of a process and its workers (PSS).")
    for state in states:
        up.add(state.since is not None, process=state.name)
        memory.add(state.bytes, process=state.name)
    build = Metric("build_info", "gauge", "Version of edgecxr.")
    build.add(1, version=__version__)
    certificates = Metric("certificate_days", "gauge", "Days until a certificate ends; below 0 if it has.")
    readable = Metric("certificate_readable", "gauge", "Whether a certificate can be read.")
    for path in all_certificate_files(config):
        days = days_left(path)
        readable.add(days is not None, file=path)
        if days is not None:
            certificates.add(days, file=path)
    return [free, reserve, up, memory, build, certificates, readable]


def _of_connections(spool: Spool) -> list[Metric]:
    refused = Metric("connections_refused_total", "counter", "Connections closed at once, by process and cause.")
    for name, (counts, _) in queries.notes(spool).items():
        role, _, process = name.partition(".")
        for cause, count in counts.items() if role == "refused" else ():
            refused.add(count, process=process, cause=cause)
    return [refused]


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""Numbers for Prometheus: the format, and that they are the spool's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("highdicom", reason="highdicom is not installed (extra node)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra node)")

from edgecxr.node.node_config import NodeConfig, Web
from edgecxr.node.spool import ChangingNote, Spool
from edgecxr.node.web.node_metrics import BUCKETS, Metric, exposition, node_metrics
from tests.node.web.pages import PACS

SAMPLE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="(?:[^"\\]|\\.)*",?)*)\})? ([0-9.e+-]+)')


def samples(text: str) -> dict[tuple[str, str], float]:
    """Return the samples of a text in Prometheus' format, which this checks."""
    values = {}
    announced = ""
    for line in text.splitlines():
        if line.startswith("# "):
            kind, name, _ = line[2:].split(" ", 2)
            assert kind in ("HELP", "TYPE")
            announced = name
            continue
        match = SAMPLE.fullmatch(line)
        assert match and match[1].removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") == announced, line
        values[match[1], match[2] or ""] = float(match[3])
    assert text.endswith("\n")
    return values


def numbers(state: Path) -> dict[tuple[str, str], float]:
    with Spool(state) as spool:
        return samples(exposition(node_metrics(spool, NodeConfig(state=str(state), destination=(PACS,)))))


def test_films_results_and_the_queue_are_counted(state: Path) -> None:
    with Spool(state) as spool, spool.transaction() as run:
        run("UPDATE film SET received = 1000, changed = 1007 WHERE id = 1")
    values = numbers(state)
    assert values["edgecxr_films", 'state="filed",reason=""'] == 1
    assert values["edgecxr_films", 'state="refused",reason="view"'] == 1
    assert values["edgecxr_films", 'state="rejected",reason="no-identifiers"'] == 1
    assert values["edgecxr_results", 'destination="pacs",state="dead"'] == 2
    assert values["edgecxr_results", 'destination="pacs",state="waiting"'] == 0
    assert values["edgecxr_queue_films", ""] == 1 and values["edgecxr_queue_age_seconds", ""] >= 0
    within = [values["edgecxr_received_to_filed_seconds_bucket", f'le="{bound:g}"'] for bound in BUCKETS]
    assert within == [float(bound >= 7) for bound in BUCKETS]
    assert values["edgecxr_received_to_filed_seconds_bucket", 'le="+Inf"'] == 1
    assert (
        values["edgecxr_received_to_filed_seconds_sum", ""],
        values["edgecxr_received_to_filed_seconds_count", ""],
    ) == (7, 1)
    assert values["edgecxr_process_up", 'process="infer"'] == 0 and values["edgecxr_disk_free_bytes", ""] > 0


def test_what_was_filed_still_counts_when_it_is_forgotten(state: Path) -> None:
    with Spool(state) as spool:
        spool.forget(-1, -1)
    assert numbers(state)["edgecxr_received_to_filed_seconds_count", ""] == 1


def test_a_new_node_has_numbers(tmp_path: Path) -> None:
    values = numbers(tmp_path / "state")
    assert (
        values["edgecxr_queue_age_seconds", ""] == 0
        and values["edgecxr_results", 'destination="pacs",state="sent"'] == 0
    )


def test_refused_connections_are_counted_by_process_and_cause(tmp_path: Path) -> None:
    with Spool(tmp_path / "state") as spool:
        noted = ChangingNote(spool, "refused.receive")
        for counts in ({}, {"address": 2}, {"address": 2, "tls": 1}):
            noted.update(counts)
        ChangingNote(spool, "refused.stow").update({"connections": 5})
        spool.note("model", {"name": "x"})
    counted = {key: value for key, value in numbers(tmp_path / "state").items() if "refused" in key[0]}
    assert counted == {
        ("edgecxr_connections_refused_total", 'process="receive",cause="address"'): 2,
        ("edgecxr_connections_refused_total", 'process="receive",cause="tls"'): 1,
        ("edgecxr_connections_refused_total", 'process="stow",cause="connections"'): 5,
    }


def test_a_certificate_that_cannot_be_read_is_a_number_too(tmp_path: Path) -> None:
    web = Web(certificate=str(tmp_path / "gone.pem"), key=str(tmp_path / "gone.key"))
    with Spool(tmp_path / "state") as spool:
        text = exposition(node_metrics(spool, NodeConfig(state=str(tmp_path / "state"), web=web)))
    assert samples(text)["edgecxr_certificate_readable", f'file="{web.certificate}"'] == 0


def test_texts_are_escaped() -> None:
    metric = Metric("x", "gauge", "Text.")
    metric.add(1.5, name='a"b\\c\nd')
    assert exposition([metric]).splitlines()[2] == r'edgecxr_x{name="a\"b\\c\nd"} 1.5'

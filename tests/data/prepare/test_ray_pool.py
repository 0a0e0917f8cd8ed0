"""Preparing on a Ray cluster that loses what it has."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from edgecxr.data.prepare.prepare import prepare
from tests.data.noise import contents, marked
from tests.data.prepare.test_decode import deadly
from tests.on_a_cluster import ran

RAY = """
import os, signal, sys
from dataclasses import replace
from functools import partial
from pathlib import Path
import ray
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.adapters.folder import folder
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
def workers():
    names = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.getsid(int(path.parent.name)) == os.getsid(0):  # not of another test's cluster
                names[int(path.parent.name)] = path.read_bytes()
        except OSError:
            pass
    return [pid for pid, name in names.items() if name.startswith(b"ray::_answers")]
killed = []
def progress(done, total):
    if done >= 4 and not killed:
        killed.extend(workers()[:1])
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
films, out, kind = sys.argv[1:]
source = folder(films, boxes=films + "/boxes.csv")
if kind == "unseen":
    from edgecxr.films.read import read_radiograph
    source = replace(source, readers=lambda index: partial(read_radiograph, "/gone.png"))
if kind == "deadly":
    from tests.data.prepare.test_decode import deadly
    source = deadly(Path(films))
prepare(source, out, None, progress, executor="ray")
assert ray.is_initialized(), "somebody else's cluster stays"
print("killed", len(killed))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "deadly", "unseen"])
@pytest.mark.long
def test_a_cluster_that_loses_a_process_gives_the_same_bytes(source: Path, tmp_path: Path, kind: str) -> None:
    pytest.importorskip("ray")
    words = [str(word) for word in (source, tmp_path / "ray", kind)]
    done = ran([sys.executable, "-c", RAY, *words])
    if kind == "unseen":
        assert done.returncode and re.search(r"node of the Ray .*does not see", done.stderr)
        return
    assert done.returncode == 0, done.stderr[-2000:]
    if kind == "whole":
        assert "killed 1" in done.stdout
        assert contents(tmp_path / "ray") == contents(prepare(marked(source), tmp_path / "here", 1).path)
    else:
        expected = prepare(deadly(source), tmp_path / "here", 2)
        assert contents(tmp_path / "ray") == contents(expected.path) and expected.info["rejected"]["crash"] == 2


NODES = """
import sys, time
import ray
from ray.cluster_utils import Cluster
from edgecxr.data.prepare.prepare import prepare
from edgecxr.data.adapters.folder import folder
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = cluster.add_node(num_cpus=1)
ray.init(address=cluster.address, log_to_driver=False)
cores = ray.cluster_resources()["CPU"]
lost = []
def progress(done, total):
    if done >= 4 and not lost:
        cluster.remove_node(second, allow_graceful=False)
        lost.append(second)
films, out = sys.argv[1:]
prepare(folder(films, boxes=films + "/boxes.csv"), out, None, progress, executor="ray")
until = time.monotonic() + 60  # the cluster takes a while to count
while len([node for node in ray.nodes() if node["Alive"]]) > 1 and time.monotonic() < until:
    time.sleep(0.2)
print("cores", cores, "nodes left", len([node for node in ray.nodes() if node["Alive"]]))
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_cluster_that_loses_a_node_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = ran([sys.executable, "-c", NODES, str(source), str(tmp_path / "ray")])
    assert done.returncode == 0, done.stderr[-2000:]
    assert "cores 2.0 nodes left 1" in done.stdout
    assert contents(tmp_path / "ray") == contents(prepare(marked(source), tmp_path / "here", 1).path)

"""All of doctor's probes, run side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from edgecxr.doctor import decoders, engines, machine_rows, packages, places
from edgecxr.doctor.ask import Answer, ask
from edgecxr.doctor.listing import Row, guarded
from edgecxr.machine.gpu import Gpu
from edgecxr.machine.gpu import gpus as machine_gpus

PATIENCE = 60.0
"""Seconds that a child process may take; torch on a Jetson's memory card takes 20."""


def examine(root: Path = Path("/")) -> list[Row]:
    """Look at everything. A probe that fails becomes a row; nothing is raised.

    Args:
        root: of the file system that describes the machine; another one in tests.
    """
    with ThreadPoolExecutor(8) as pool:
        asked = {name: pool.submit(ask, name, PATIENCE) for name in ("decoders", *engines.wanted())}
        gpus: list[Gpu] = []

        def gpu_rows() -> list[Row]:
            found = machine_gpus(root)
            gpus.extend(found.found)
            return machine_rows.gpu_rows(found, root)

        own = [
            pool.submit(guarded, section, name, probe)
            for section, name, probe in (
                ("system", "os", partial(machine_rows.system_rows, root)),
                ("system", "cpu", partial(machine_rows.cpu_rows, root)),
                ("system", "memory", partial(machine_rows.memory_rows, root)),
                ("gpu", "gpu", gpu_rows),
            )
        ]
        after = [
            pool.submit(guarded, section, name, probe)
            for section, name, probe in (
                ("workspace", "place", places.place),
                ("workspace", "contents", places.contents),
                ("workspace", "bundles", places.bundles),
                ("packages", "packages", packages.rows),
            )
        ]
        first = [row for future in own for row in future.result()]

        def answer(name: str) -> Answer | None:
            return asked[name].result() if name in asked else None

        middle = [
            row
            for name, probe in (
                ("torch", partial(engines.torch, answer, gpus)),
                ("onnxruntime", partial(engines.onnxruntime, answer, gpus)),
                ("tensorrt", partial(engines.tensorrt, answer, gpus, root)),
                ("cuda buffers", partial(engines.buffers, answer, gpus)),
                ("openvino", partial(engines.openvino, answer)),
            )
            for row in guarded("engines", name, probe)
        ]
        middle += guarded("decoders", "decoders", lambda: decoders.rows(asked["decoders"].result()))
        return first + middle + [row for future in after for row in future.result()]

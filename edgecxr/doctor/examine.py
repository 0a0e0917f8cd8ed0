"""All probes of doctor, run in parallel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from edgecxr.doctor import decoders, engines, machine_rows, node_rows, packages, places
from edgecxr.doctor.ask import Answer, ask
from edgecxr.doctor.listing import Row, guarded
from edgecxr.machine.gpu import Gpu
from edgecxr.machine.gpu import gpus as machine_gpus

PATIENCE = 60.0
"""Time limit of a child process in seconds; importing torch from a Jetson's memory card takes 20."""


def examine(root: Path = Path("/"), node: Path | None = None) -> list[Row]:
    """Run all probes and return their rows.

    Nothing is raised: a probe that fails becomes a row.

    Args:
        root: of the file system that describes the machine; a fake one in tests.
        node: configuration of a node; None is the defaults.
    """
    with ThreadPoolExecutor(8) as pool:
        answers = {name: pool.submit(ask, name, PATIENCE) for name in ("decoders", "isolation", *engines.probes())}
        gpus: list[Gpu] = []

        def gpu_rows() -> list[Row]:
            detected = machine_gpus(root)
            gpus.extend(detected.usable)
            return machine_rows.gpu_rows(detected, root)

        machine_futures = [
            pool.submit(guarded, section, name, probe)
            for section, name, probe in (
                ("system", "os", partial(machine_rows.system_rows, root)),
                ("system", "cpu", partial(machine_rows.cpu_rows, root)),
                ("system", "memory", partial(machine_rows.memory_rows, root)),
                ("system", "isolation", lambda: [machine_rows.isolation(answers["isolation"].result())]),
                ("gpu", "gpu", gpu_rows),
            )
        ]
        remaining_futures = [
            pool.submit(guarded, section, name, probe)
            for section, name, probe in (
                ("workspace", "place", places.place),
                ("workspace", "contents", places.contents),
                ("workspace", "signed bundles", places.signed),
                ("workspace", "bundles", places.bundles),
                ("workspace", "bundles of edgecxr", places.shipped_bundles),
                ("packages", "packages", packages.rows),
                ("node", "node", partial(node_rows.rows, node)),
            )
        ]
        machine_part = [row for future in machine_futures for row in future.result()]

        def answer(name: str) -> Answer | None:
            return answers[name].result() if name in answers else None

        engine_part = [
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
        engine_part += guarded("decoders", "decoders", lambda: decoders.rows(answers["decoders"].result()))
        return machine_part + engine_part + [row for future in remaining_futures for row in future.result()]

"""An engine that does not come back ends the command, and only the command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from onnx import TensorProto, helper, numpy_helper

from edgecxr.engines import watchdog
from tests.tiny_bundle import tiny_bundle

# C code that frees Python's lock and hears no signal.
STUCK = "import hashlib; hashlib.pbkdf2_hmac('sha256', b'x', b'x', 1 << 30)"
GREEDY = "kept = [bytearray(b'x' * (32 << 20)) for _ in range(100) if not time.sleep(0.05)]"


def program(body: str, seconds: float = 60, most: int = 8 << 30, armed: bool = True) -> list[str]:
    lines = [
        "import time", "from pathlib import Path", "from edgecxr.engines import watchdog",
        f"watchdog.MOST_BYTES, watchdog.GRACE = {most}, 0.3", "watchdog.arm()" if armed else "",
        "print('ready', flush=True)", f"with watchdog.watched(Path('bad.onnx'), {seconds}):", f"    {body}",
        "print('over')",
    ]  # fmt: skip
    return [sys.executable, "-c", "\n".join(lines)]


def ended(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_a_limit_of_time_ends_the_process_with_a_line() -> None:
    done = ended(program(STUCK, seconds=0.3))
    assert done.returncode == 4 and done.stdout == "ready\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: bad.onnx ")


def test_a_limit_of_memory_does_too() -> None:
    done = ended(program(GREEDY, most=128 << 20))
    assert done.returncode == 4 and len(done.stderr.splitlines()) == 1


def test_what_comes_back_is_let_be() -> None:
    done = ended(program("time.sleep(0.2)"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\nover\n", "")
    done = ended(program("time.sleep(0.6)", seconds=0.1, armed=False))
    assert (done.returncode, done.stdout) == (0, "ready\nover\n")


def test_ctrl_c_ends_an_engine_that_does_not_hear_it() -> None:
    # A shell lets what it starts in the background ignore SIGINT, these tests perhaps among it.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(program(STUCK), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    time.sleep(0.3)
    start = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, stderr = child.communicate(timeout=30)
    assert child.returncode == 130 and stderr == "interrupted\n" and time.monotonic() - start < 10


def test_signals_and_descriptors_are_as_before() -> None:
    code = (
        "import os, signal, threading\nfrom pathlib import Path\nfrom edgecxr.engines import watchdog\n"
        "watchdog.arm()\nbefore = os.listdir('/proc/self/fd')\n"
        "def many():\n    for _ in range(20):\n        with watchdog.watched(Path('m'), 9): pass\n"
        "thread = threading.Thread(target=many); thread.start(); many(); thread.join()\n"
        "assert signal.set_wakeup_fd(-1) == -1 and len(os.listdir('/proc/self/fd')) == len(before)\n"
    )
    done = ended([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


def test_a_batch_that_has_come_back_is_not_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = []
    monkeypatch.setattr(watchdog, "watched", lambda path, seconds: limits.append(seconds))
    watchdog.watched_run(Path("m"), 4, 0)
    watchdog.watched_run(Path("m"), 4, 4)
    watchdog.watched_run(Path("m"), 5, 4, slow=True)
    assert limits == [watchdog.RUNNING + 4 * watchdog.PER_IMAGE, watchdog.BUILDING]


def endless(path: Path) -> None:
    """Write a model whose answers come after a loop of many years."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("go", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w", TensorProto.FLOAT, None)],
    )  # fmt: skip
    import numpy as np
    import onnx

    model = onnx.load(path)
    model.graph.node.insert(0, helper.make_node("Loop", ["times", "", "image"], ["turned"], body=inner))
    model.graph.node[1].input[0] = "turned"
    model.graph.initializer.append(numpy_helper.from_array(np.array(1 << 60), "times"))
    onnx.save_model(model, path)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_real_engine_in_a_real_command_is_ended(tmp_path: Path, backend: str) -> None:
    from PIL import Image

    from tests.bundle.test_bundle import FILM, seal

    if backend == "openvino":
        pytest.importorskip("openvino")
    folder = tiny_bundle(tmp_path / "bundle").path
    endless(folder / "model.onnx")
    seal(folder)
    Image.fromarray((FILM * 255).astype("uint8")).save(tmp_path / "film.png")
    code = (
        "import sys\nfrom edgecxr.bundle.model_file import ModelFile\nfrom edgecxr.engines import watchdog\n"
        "ModelFile.check = lambda model: None  # which refuses it first\n"
        "watchdog.RUNNING = watchdog.PER_IMAGE = 0.5\nwatchdog.LOADING = 20\n"
        "from edgecxr.cli import main\nmain()\n"
    )
    command = [sys.executable, "-c", code, "infer", str(tmp_path / "film.png"), "--model", str(folder)]
    done = ended([*command, "--backend", backend], env=os.environ | {"EDGECXR_RUNS": str(tmp_path / "runs")})
    assert done.returncode == 4, done.stderr
    assert "model.onnx" in done.stderr.splitlines()[-1]

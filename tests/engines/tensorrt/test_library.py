"""NVIDIA's real bindings have every name that the code uses with their version, and lack what it takes for absent.

The bindings come from the folder that EDGECXR_TRT_WHEELS points to: wheels of tensorrt-bindings 8.6,
tensorrt-cu12-bindings 10.x and tensorrt-cu13-bindings 11.x for this Python. Their libraries are replaced by empty ones,
so nothing can be built or run with them. Wheels of cuda-python or cuda-bindings in the folder are looked at too.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgecxr.bundle.bundle import write_bundle
from edgecxr.engines.tensorrt import buffers
from edgecxr.engines.tensorrt.build import build_engine
from edgecxr.engines.tensorrt.engine import TensorRTBackend
from tests.engines.tensorrt.test_engine import images
from tests.fake_tensorrt import Fake, installed
from tests.tiny_bundle import tiny_card, tiny_onnx

PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
FOLDER = Path(os.environ.get("EDGECXR_TRT_WHEELS") or "/nonexistent")
TOOLS = all(shutil.which(tool) for tool in ("gcc", "nm", "readelf"))
BINDINGS = sorted(FOLDER.glob(f"tensorrt*bindings-*-{PYTHON}-*.whl"))
CUDA = sorted(FOLDER.glob(f"cuda_*-{PYTHON}-*.whl"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BINDINGS or CUDA) or not TOOLS, reason="needs EDGECXR_TRT_WHEELS and gcc"),
]

# argv: the module. Prints class -> names, of the module itself too.
LIST = """
import importlib, json, sys
module = importlib.import_module(sys.argv[1])
names = {name: dir(value) for name, value in vars(module).items() if isinstance(value, type)}
print(json.dumps(names | {"module": dir(module)}))
"""


def unpacked(wheel: Path, folder: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def with_empty_libraries(library: Path, folder: Path) -> Path:
    """Make libraries of the names that `library` needs, with the functions that it looks for."""
    folder.mkdir()
    symbols = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
    # What the C and C++ libraries bring has a version after an @; Python brings its own.
    names = [name for name in re.findall(r" U (\w+)$", symbols.stdout, re.M) if not re.match("_?Py", name)]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in names))
    needed = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
    for name in re.findall(r"\[(libnv\w+\.so\.\d+)\]", needed):
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / name, source, f"-Wl,-soname,{name}"], check=True)
    return folder


def names_in(module: str, site: Path, libraries: Path | None = None) -> dict[str, set[str]]:
    environment = os.environ | {"PYTHONPATH": str(site), "LD_LIBRARY_PATH": str(libraries or "")}
    listed = subprocess.run(
        [sys.executable, "-c", LIST, module], env=environment, capture_output=True, text=True, timeout=120
    )
    assert listed.returncode == 0, listed.stderr
    return {name: set(names) for name, names in json.loads(listed.stdout).items()}


def used_with(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Build and run every precision on the fake of a version, failures included, and return it."""
    monkeypatch.setenv("EDGECXR_STATE", str(tmp_path / "state"))
    model = tiny_onnx(tmp_path / "m.onnx")
    nodes = {"float32_nodes": ["norm"], "float_part": "fp16"}
    files = {"model.onnx": "fp32", "model.fp16.onnx": "fp16", "model.int8.onnx": "int8"}
    artefacts = {name: {"precision": precision, **nodes} for name, precision in files.items()}
    bundle = write_bundle(tmp_path / "b", tiny_card(artefacts=artefacts), dict.fromkeys(files, model))
    with installed(Fake(version), monkeypatch) as fake:
        for precision in files.values():
            build_engine(bundle, precision, memory_mib=64)
            backend = TensorRTBackend(bundle.artefact(precision))
            for count in (2, 2, 2, 3):
                backend.run(images(count))
            backend.close()
        fake.fails.add("parse")
        with pytest.raises(Exception, match="does not take"):
            build_engine(bundle, "fp32", force=True)
    return fake


@pytest.mark.parametrize("wheel", BINDINGS, ids=lambda wheel: wheel.name.split("-cp")[0])
def test_every_name_that_is_used_is_there(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = wheel.name.split("-")[1]
    site = unpacked(wheel, tmp_path / "site")
    (library,) = site.glob("*/tensorrt.so")
    real = names_in(library.parent.name, site, with_empty_libraries(library, tmp_path / "empty"))
    fake = used_with(version, tmp_path, monkeypatch)
    assert len(fake.used) > 45
    missing = sorted(f"{kind}.{name}" for kind, name in fake.used if name not in real.get(kind, set()))
    assert not missing, f"not in {wheel.name}"
    logger = {"INTERNAL_ERROR", "ERROR", "WARNING", "log"}
    assert logger <= real["ILogger"] and "__version__" in real["module"]
    # What the code decides by the presence of a name.
    for kind, name in (
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"), ("BuilderFlag", "FP16"), ("ParserError", "node_name"),
        ("ILayer", "precision"),
    ):  # fmt: skip
        ours = getattr(fake.module, kind, None)
        if ours is not None:
            assert hasattr(ours, name) is (name in real[kind]), (kind, name)


@pytest.mark.parametrize("wheel", CUDA, ids=lambda wheel: wheel.name.split("-cp")[0])
def test_cuda_python_has_what_the_buffers_call(wheel: Path, tmp_path: Path) -> None:
    site = unpacked(wheel, tmp_path / "site")
    for helper in FOLDER.glob("cuda_pathfinder-*.whl"):
        unpacked(helper, site)
    module = "cuda.bindings.runtime" if (site / "cuda" / "bindings").is_dir() else "cuda.cudart"
    real = names_in(module, site)
    source = Path(buffers.__file__).read_text()
    called = set(re.findall(r'"(cuda[A-Z]\w+)"', source)) - {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"}
    assert len(called) >= 12
    assert called - real["module"] == set()
    assert {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"} <= real["cudaMemcpyKind"]
    assert "cudaStreamCaptureModeThreadLocal" in real["cudaStreamCaptureMode"]

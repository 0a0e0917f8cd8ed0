"""Rows about the engines that run or train models.

These are torch, ONNX Runtime, TensorRT with the CUDA buffers that it needs, and OpenVINO.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from edgecxr.doctor.ask import Answer, there
from edgecxr.doctor.listing import Row
from edgecxr.extras import command, extra_of, installed, pip
from edgecxr.machine.gpu import Gpu

MODULES = {
    "torch": ("torch",),
    "onnxruntime": ("onnxruntime",),
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
    "pycuda": ("pycuda",),
    "cuda": ("cuda",),
    "openvino": ("openvino",),
}
"""Probe of `edgecxr.doctor.child` -> modules; the probe runs only if one of them is installed."""

Ask = Callable[[str], Answer | None]
"""Returns the answer of a probe, None if its module is not installed."""

_CU126 = "--index-url https://download.pytorch.org/whl/cu126"
_CU128 = "--index-url https://download.pytorch.org/whl/cu128"


def probes() -> list[str]:
    """Return the probes whose modules are installed."""
    return [probe for probe, modules in MODULES.items() if any(there(module) for module in modules)]


def torch(ask: Ask, gpus: list[Gpu]) -> Iterator[Row]:
    """Yield whether torch imports and whether its build fits the GPUs."""
    answer = ask("torch")
    if answer is None:
        yield _absent("torch", "torch", "only a machine that trains, evaluates checkpoints or exports needs it")
        return
    if answer.problem:
        yield _broken("torch", f"{installed('torch') or 'torch'} {_does_not_import(answer)}", ("torch", "torchvision"))
        return
    facts = answer.facts
    architectures = [arch for arch in facts["architectures"] if arch.startswith(("sm_", "compute_"))]
    build = f"CUDA {facts['cuda']}" if facts["cuda"] else "CPU only"
    value = f"{facts['version']} ({build}{', ' + ' '.join(architectures) if architectures and gpus else ''})"
    unfit = [gpu for gpu in gpus if architectures and gpu.capability and not _runs_on(architectures, gpu)]
    if not gpus:
        yield Row("engines", "torch", "ok", value, facts=facts)
    elif gpus[0].jetson and not facts["cuda"]:
        remedy = "none needed to run models; to train here, take the torch that NVIDIA builds for this JetPack"
        yield Row("engines", "torch", "warn", value, remedy, facts=facts)
    elif not facts["cuda"] or unfit:
        gpu = (unfit or gpus)[0]
        remedy = f"{gpu.name} needs another build of torch" + (f": this one has no sm_{_sm(gpu)}" if unfit else "")
        # Training uses any GPU present, and fails if the build has no kernels for it.
        status = "error" if unfit else "warn"
        yield Row("engines", "torch", status, value, remedy, _torch_commands(gpu), facts)
    elif not facts["usable"]:
        remedy = f"torch cannot use the GPU: update the driver to one for CUDA {facts['cuda']}, or take an older build"
        older = gpus[0].cuda is None or int(facts["cuda"].split(".")[0]) > int(gpus[0].cuda.split(".")[0])
        yield Row("engines", "torch", "warn", value, remedy, _torch_commands(gpus[0]) if older else (), facts)
    else:
        yield Row("engines", "torch", "ok", f"{value}, uses the GPU", facts=facts)


def onnxruntime(ask: Ask, gpus: list[Gpu]) -> Iterator[Row]:
    """Yield the installed flavour of ONNX Runtime and the providers that load.

    Exactly one flavour must be installed.
    """
    flavours = onnxruntime_flavours()
    answer = ask("onnxruntime")
    if len(flavours) > 1:
        keep = _flavour_to_keep(list(flavours), gpus)
        value = " and ".join(f"{name} {version}" for name, version in flavours.items())
        remedy = f"they overwrite each other's files: only one may stay, here {keep}; mend it again after each install"
        commands = (f"{pip()} uninstall -y {' '.join(flavours)}", f"{pip()} install {keep}")
        facts = (answer.facts if answer else {}) | {"flavours": flavours}
        yield Row("engines", "onnxruntime", "error", value, remedy, commands, facts)
    elif not flavours and answer is None:
        remedy = "this is what runs models, unless TensorRT or OpenVINO does"
        install = f"{pip()} install onnxruntime"
        yield Row("engines", "onnxruntime", "error", "not installed", remedy, (install,), {"flavours": {}})
    elif answer is None or answer.problem:
        value = f"{_listed(flavours)} {_does_not_import(answer) if answer else 'has lost its files'}".strip()
        yield _broken("onnxruntime", value, (next(iter(flavours), "onnxruntime"),))
    else:
        yield from _providers(answer, flavours, gpus)


def onnxruntime_flavours() -> dict[str, str]:
    """Return the installed distributions that provide the module onnxruntime.

    Returns:
        Name -> version, sorted by name.
    """
    flavours = {}
    for entry in distributions():
        name = (entry.metadata["Name"] or "").lower().replace("_", "-")
        if re.fullmatch(r"(onnxruntime|ort-nightly)(-.+)?", name) and _brings_onnxruntime(entry, name):
            flavours[name] = entry.version
    return dict(sorted(flavours.items()))


def tensorrt(ask: Ask, gpus: list[Gpu], root: Path) -> Iterator[Row]:
    """Yield TensorRT and TensorRT-RTX."""
    answer = ask("tensorrt")
    version = str(answer.facts.get("version")) if answer else ""
    numbers = [int(word) for word in re.findall(r"\d+", version)[:2]]
    if answer is None:
        yield _without_tensorrt(gpus, root)
    elif answer.problem and gpus and gpus[0].jetson:
        remedy = "take the TensorRT of the system image, in an environment made with --system-site-packages"
        yield Row("engines", "tensorrt", "error", _does_not_import(answer), remedy)
    elif answer.problem:
        yield _broken("tensorrt", _does_not_import(answer), ("tensorrt",), status="warn")
    elif any(gpu.level == (7, 0) for gpu in gpus) and numbers >= [10, 5]:
        remedy = "Volta (V100) is supported up to TensorRT 10.4"
        commands = (f"{pip()} install 'tensorrt<10.5'",)
        yield Row("engines", "tensorrt", "error", version, remedy, commands, answer.facts)
    else:
        yield Row("engines", "tensorrt", "ok", version, facts=answer.facts)
    rtx = ask("tensorrt_rtx")
    if rtx is not None and rtx.problem:
        yield Row("engines", "tensorrt-rtx", "warn", _does_not_import(rtx), "install TensorRT-RTX again, or remove it")
    elif rtx is not None:
        yield Row("engines", "tensorrt-rtx", "ok", str(rtx.facts["version"] or "installed"), facts=rtx.facts)


def buffers(ask: Ask, gpus: list[Gpu]) -> Iterator[Row]:
    """Yield which libraries can allocate GPU memory for TensorRT.

    They are cuda-python, pycuda and torch, in the order in which they are taken; one is enough, but pycuda has no CUDA
    graphs.
    """
    names = {"cuda": "cuda-python", "pycuda": "pycuda", "torch": "torch"}
    answers = {name: ask(name) for name in names}
    usable = [names[name] for name, answer in answers.items() if answer and not answer.problem]
    broken = {names[name]: answer.problem for name, answer in answers.items() if answer and answer.problem}
    facts = {"usable": usable, "broken": broken}
    if usable:
        graphs = usable[0] != "pycuda"
        value = ", ".join(usable) + ("" if graphs else ": pycuda is taken, which has no CUDA graphs")
        remedy = "" if graphs else "with cuda-python, which is taken if it is installed, a film takes less time"
        # For a Jetson not every version has a package, and pycuda will do.
        needless = graphs or (gpus and gpus[0].jetson)
        commands = () if needless else (f"{pip()} install {_for_driver('cuda-python', gpus)}",)
        yield Row("engines", "cuda buffers", "warn" if commands else "ok", value, remedy, commands, facts)
        return
    status = "warn" if ask("tensorrt") is not None else "absent"
    value = "; ".join(f"{name}: {problem}" for name, problem in broken.items()) or "none of cuda-python, pycuda, torch"
    package = "pycuda" if gpus and gpus[0].jetson else _for_driver("cuda-python", gpus)
    remedy = "TensorRT engines need one of them to run"
    yield Row("engines", "cuda buffers", status, value, remedy, (f"{pip()} install {package}",), facts)


def _for_driver(package: str, gpus: list[Gpu]) -> str:
    """Return a requirement for a package whose major version is CUDA's.

    The newest one may need a newer driver.
    """
    newest = min((int(match[1]) for gpu in gpus if (match := re.match(r"(\d+)", gpu.cuda or ""))), default=None)
    return package if newest is None else f"'{package}<{newest + 1}'"


def openvino(ask: Ask) -> Iterator[Row]:
    """Yield OpenVINO."""
    answer = ask("openvino")
    if answer is None:
        yield _absent("openvino", "openvino", "optional, for Intel CPUs")
    elif answer.problem:
        yield _broken("openvino", _does_not_import(answer), ("openvino",), status="warn")
    else:
        yield Row("engines", "openvino", "ok", str(answer.facts["version"]), facts=answer.facts)


def _providers(answer: Answer, flavours: dict[str, str], gpus: list[Gpu]) -> Iterator[Row]:
    facts = answer.facts | {"flavours": flavours}
    loaded = [name.removesuffix("ExecutionProvider") for name in facts["loaded"]]
    failed = [name.removesuffix("ExecutionProvider") for name in facts["listed"] if name not in facts["loaded"]]
    value = f"{_listed(flavours) or 'onnxruntime ' + facts['version']}: {', '.join(loaded) or 'no provider loads'}"
    value += f"; does not load: {', '.join(failed)}" if failed else ""
    if "CPU" not in loaded:
        yield _broken("onnxruntime", value, (next(iter(flavours), "onnxruntime"),))
    elif "CUDA" in failed and gpus:
        remedy = "CUDA's or cuDNN's libraries are missing, or of another version than this ONNX Runtime was built for"
        commands = [] if gpus[0].jetson else [f"{pip()} install 'onnxruntime-gpu[cuda,cudnn]'"]
        yield Row("engines", "onnxruntime", "warn", value, remedy, tuple(commands), facts)
    else:
        yield Row("engines", "onnxruntime", "ok", value, facts=facts)


def _brings_onnxruntime(entry: Distribution, name: str) -> bool:
    # onnxruntime-extensions, -genai and plug-ins install into other folders.
    files = entry.files
    if files:
        return any(file.parts[:2] == ("onnxruntime", "__init__.py") for file in files)
    return not re.search(r"extensions|genai|tools|-ep-", name)


def _flavour_to_keep(names: list[str], gpus: list[Gpu]) -> str:
    # Prefer a flavour that the user chose to the plain one that came with edgecxr. But a GPU build is useless without a
    # GPU, and PyPI's GPU build does not run on a Jetson.
    chosen = [name for name in names if name != "onnxruntime"]
    if not any(not gpu.jetson for gpu in gpus):
        chosen = [name for name in chosen if not re.search(r"gpu|cuda|training", name)]
    return chosen[0] if chosen else "onnxruntime"


def _without_tensorrt(gpus: list[Gpu], root: Path) -> Row:
    folders = sorted((root / "usr/lib").glob("python3*/dist-packages/tensorrt"))
    if folders:
        value = f"not seen from here, but in {folders[0].parent}"
        remedy = "make the virtual environment with the system's packages, of the Python that they were built for"
        commands = ("python3 -m venv --system-site-packages .venv",)
        return Row("engines", "tensorrt", "warn", value, remedy, commands)
    if gpus and gpus[0].jetson:
        return Row("engines", "tensorrt", "absent", "not installed", "sudo apt-get install nvidia-jetpack brings it")
    if not gpus:
        return Row("engines", "tensorrt", "absent", "not installed", "of use with an NVIDIA GPU only")
    if any(gpu.level == (7, 0) for gpu in gpus):
        return Row("engines", "tensorrt", "absent", "not installed", "optional; up to 10.4 on a V100",
                   (f"{pip()} install 'tensorrt<10.5'",))  # fmt: skip
    major = re.match(r"12\b", gpus[0].cuda or "")
    if major:  # the package without a number is for CUDA 13
        return Row("engines", "tensorrt", "absent", "not installed", "optional; for the CUDA 12 of the driver",
                   (f"{pip()} install tensorrt-cu12 {_for_driver('cuda-python', gpus)}",))  # fmt: skip
    return _absent("tensorrt", "tensorrt", "optional")


def _runs_on(architectures: list[str], gpu: Gpu) -> bool:
    """Whether one of a library's architectures runs on this GPU.

    "sm_" is compiled code; "compute_" is PTX, which the driver also compiles for newer GPUs. Architectures that end in
    "a" or "f" run on exactly one compute capability.
    """
    for arch in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if match is None:
            continue
        level = (int(match[2]), int(match[3]))
        if match[4]:
            fits = level == gpu.level
        elif match[1] == "sm":
            fits = level[0] == gpu.level[0] and level <= gpu.level
        else:
            fits = level <= gpu.level
        if fits:
            return True
    return False


def _sm(gpu: Gpu) -> str:
    return "{}{}".format(*gpu.level)


def _torch_commands(gpu: Gpu) -> tuple[str, ...]:
    """Return the commands that install a torch for this GPU.

    CUDA 13 does not support GPUs older than Turing.
    """
    cuda = int(gpu.cuda.partition(".")[0]) if gpu.cuda else 12
    index = _CU126 if gpu.level < (7, 5) or (cuda < 13 and gpu.level < (10, 0)) else _CU128 if cuda < 13 else ""
    return (f"{pip()} uninstall -y torch torchvision", f"{pip()} install torch torchvision {index}".strip())


def _absent(name: str, package: str, remedy: str) -> Row:
    extra = extra_of(package)
    install = f"{pip()} install {package}" if extra is None else command(extra)
    return Row("engines", name, "absent", "not installed", remedy, (install,))


def _broken(name: str, value: str, packages: tuple[str, ...], status: str = "error") -> Row:
    reinstall = f"{pip()} install --force-reinstall --no-deps {' '.join(packages)}"
    return Row("engines", name, status, value, "it is installed but cannot be used: install it again", (reinstall,))


def _does_not_import(answer: Answer) -> str:
    return f"does not import ({answer.problem})"


def _listed(flavours: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in flavours.items())

"""What is said of torch, ONNX Runtime and TensorRT, from answers and distributions that the tests make up."""

from __future__ import annotations

import shlex
from functools import partial
from importlib.metadata import distributions
from pathlib import Path

import pytest

from edgecxr.doctor import decoders, engines
from edgecxr.doctor.ask import Answer, ask
from edgecxr.doctor.listing import Row
from edgecxr.machine.gpu import Gpu

V100 = Gpu("Tesla V100-SXM2-16GB", "7.0", 16384, "535.183.01", "12.2")
H100 = Gpu("NVIDIA H100", "9.0", 81559, "580.1", "13.0")
ORIN = Gpu("Orin", "8.7", None, "Jetson Linux 36.4.3", "12.6", jetson=True)
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]
CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]


@pytest.fixture(autouse=True)
def plain_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "pip", lambda: "pip")
    monkeypatch.setattr(decoders, "pip", lambda: "pip")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that installs, here alone, distributions of a name with the module onnxruntime."""
    monkeypatch.setattr(engines, "distributions", partial(distributions, path=[str(tmp_path)]))

    def install(name: str, version: str = "1.20.0", module: str = "onnxruntime") -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (folder / "RECORD").write_text(f"{module}/__init__.py,,\n")

    return install


def answers(**by_name: Answer):
    return lambda name: by_name.get(name)


def torch_row(gpus: list[Gpu], **facts) -> Row:
    torch_facts = {"version": "2.9.0", "cuda": "13.0", "architectures": CU130, "usable": True, "devices": []} | facts
    (row,) = engines.torch(answers(torch=Answer(torch_facts)), gpus)
    return row


def ort_row(gpus: list[Gpu], *listed: str, loaded: tuple[str, ...] = ("CPUExecutionProvider",)) -> Row:
    facts = {"version": "1.20.0", "listed": list(listed or loaded), "loaded": list(loaded)}
    (row,) = engines.onnxruntime(answers(onnxruntime=Answer(facts)), gpus)
    return row


def test_both_flavours_are_an_error_with_the_commands_that_mend_it(site) -> None:
    site("onnxruntime", "1.20.0")
    site("onnxruntime-gpu", "1.19.2")
    row = ort_row([V100])
    assert (row.status, row.value) == ("error", "onnxruntime 1.20.0 and onnxruntime-gpu 1.19.2")
    assert row.commands == ("pip uninstall -y onnxruntime onnxruntime-gpu", "pip install onnxruntime-gpu")
    for gpus in ([], [ORIN]):  # without a GPU; and PyPI's build for GPUs is none for Jetson
        assert ort_row(gpus).commands[1] == "pip install onnxruntime"


def test_the_flavour_that_was_chosen_stays(site) -> None:
    site("onnxruntime")
    site("onnxruntime-openvino")
    assert ort_row([]).commands[1] == "pip install onnxruntime-openvino"


def test_what_only_sounds_like_a_flavour_is_none(site) -> None:
    site("onnxruntime")
    site("onnxruntime-extensions", module="onnxruntime_extensions")
    assert engines.onnxruntime_flavours() == {"onnxruntime": "1.20.0"}
    assert ort_row([]).status == "ok"


def test_a_provider_that_is_listed_but_does_not_load(site) -> None:
    site("onnxruntime-gpu")
    listed = ("CUDAExecutionProvider", "CPUExecutionProvider")
    row = ort_row([H100], *listed)
    assert row.status == "warn" and row.value == "onnxruntime-gpu 1.20.0: CPU; does not load: CUDA"
    assert list(map(shlex.split, row.commands)) == [["pip", "install", "onnxruntime-gpu[cuda,cudnn]"]]
    assert ort_row([], *listed).status == "ok"
    assert ort_row([H100], loaded=listed).value == "onnxruntime-gpu 1.20.0: CUDA, CPU"


def test_onnxruntime_that_lost_its_files_is_installed_again(site) -> None:
    # What uninstalling one of two flavours leaves behind.
    site("onnxruntime")
    broken = Answer(problem="AttributeError: module 'onnxruntime' has no attribute 'get_available_providers'")
    (row,) = engines.onnxruntime(answers(onnxruntime=broken), [])
    assert row.status == "error" and row.commands == ("pip install --force-reinstall --no-deps onnxruntime",)


def test_no_onnxruntime(site) -> None:
    (row,) = engines.onnxruntime(answers(), [])
    assert row.status == "error" and row.commands == ("pip install onnxruntime",)


def test_torch_without_kernels_for_a_v100() -> None:
    row = torch_row([V100])
    assert row.status == "error" and "no sm_70" in row.remedy
    cu126 = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu126"
    assert row.commands == ("pip uninstall -y torch torchvision", cu126)
    assert torch_row([V100], architectures=CU126, cuda="12.6").status == "ok"


def test_torch_that_fits_or_is_not_used_on_a_gpu() -> None:
    assert torch_row([H100]).status == "ok" and "uses the GPU" in torch_row([H100]).value
    assert torch_row([Gpu("L4", "8.9")]).status == "ok"  # sm_86 code runs there
    assert torch_row([], usable=False).status == "ok"
    assert torch_row([H100], usable=False).status == "warn"


def test_a_cpu_build_of_torch_beside_a_gpu() -> None:
    row = torch_row([V100], cuda=None, architectures=[], usable=False)
    assert row.status == "warn" and row.commands[1].endswith("/cu126")
    assert torch_row([ORIN], cuda=None, architectures=[], usable=False).commands == ()


def test_no_torch_is_no_error_and_the_extra_is_named() -> None:
    (row,) = engines.torch(answers(), [H100])
    assert row.status == "absent" and row.commands[0].endswith("[train]'")


@pytest.mark.parametrize(("version", "status"), [("10.4.0", "ok"), ("10.5.0", "error"), ("8.6.1", "ok")])
def test_the_last_tensorrt_for_a_v100(version: str, status: str, tmp_path: Path) -> None:
    answer = Answer({"module": "tensorrt", "version": version})
    (row,) = engines.tensorrt(answers(tensorrt=answer), [V100], tmp_path)
    assert row.status == status
    assert next(engines.tensorrt(answers(tensorrt=answer), [H100], tmp_path)).status == "ok"


def test_tensorrt_of_the_system_image_that_the_environment_hides(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/python3.10/dist-packages/tensorrt").mkdir(parents=True)
    (row,) = engines.tensorrt(answers(), [ORIN], tmp_path)
    assert row.status == "warn" and "--system-site-packages" in row.commands[0]


def test_tensorrt_needs_buffers() -> None:
    tensorrt = Answer({"module": "tensorrt", "version": "10.3.0"})
    (row,) = engines.buffers(answers(tensorrt=tensorrt), [ORIN])
    assert (row.status, row.commands) == ("warn", ("pip install pycuda",))
    (row,) = engines.buffers(answers(tensorrt=tensorrt, cuda=Answer({})), [])
    assert (row.status, row.value) == ("ok", "cuda-python")
    (row,) = engines.buffers(answers(), [])
    assert row.status == "absent"


def test_buffers_without_graphs_are_said_and_what_has_them() -> None:
    (row,) = engines.buffers(answers(pycuda=Answer({}), torch=Answer({})), [H100])
    assert row.status == "warn" and "no CUDA graphs" in row.value
    assert "install" in row.commands[0] and "cuda-python" in row.commands[0]
    (row,) = engines.buffers(answers(pycuda=Answer({})), [ORIN])
    assert (row.status, row.commands) == ("ok", ()) and "no CUDA graphs" in row.value
    (row,) = engines.buffers(answers(pycuda=Answer({}), cuda=Answer({})), [H100])
    assert (row.status, row.value) == ("ok", "cuda-python, pycuda")


@pytest.mark.parametrize(
    ("cuda", "package"), [("12.4", "'cuda-python<13'"), ("13.0", "'cuda-python<14'"), (None, "cuda-python")]
)
def test_what_is_to_be_installed_fits_the_driver(tmp_path: Path, cuda: str | None, package: str) -> None:
    server = Gpu("NVIDIA H200", "9.0", cuda=cuda)
    (row,) = engines.buffers(answers(tensorrt=Answer({"version": "10.3.0"})), [server])
    assert row.commands[0].endswith(f"install {package}")
    (row,) = engines.tensorrt(answers(), [server], tmp_path)
    assert ("tensorrt-cu12" in str(row.commands)) is (cuda == "12.4")


# --- child processes


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "was killed by SIGILL"),
        ("raise ImportError('libnvinfer.so.10: cannot open shared object file')", "ImportError: libnvinfer.so.10"),
        ("raise SystemExit(3)", "ended with code 3"),
        ("import time; time.sleep(60)", "did not answer within 2 s"),
    ],
)
def test_a_package_that_ends_its_process_is_a_problem_and_no_more(tmp_path, monkeypatch, source, problem) -> None:
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = ask("tensorrt", 2)
    assert answer.problem.startswith(problem) and answer.facts == {}


def test_what_a_library_prints_is_not_taken_for_the_answer(tmp_path, monkeypatch) -> None:
    (tmp_path / "openvino.py").write_text("print('{}', end='')\n__version__ = '2025.1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ask("openvino", 20) == Answer({"module": "openvino", "version": "2025.1"})


def test_onnxruntime_runs_a_model_with_each_provider() -> None:
    facts = ask("onnxruntime", 60).facts
    assert "CPUExecutionProvider" in facts["loaded"]


# --- decoders


def syntaxes(answer: Answer) -> dict[str, Row]:
    return {row.facts["uid"].rpartition("1.2.840.10008.1.2")[2]: row for row in decoders.rows(answer)}


def test_every_syntax_decodes_a_frame_here() -> None:
    rows = syntaxes(ask("decoders", 60))
    assert {row.status for row in rows.values()} == {"ok"}
    untried = {uid for uid, row in rows.items() if not row.facts["tried"]}
    assert untried == {".4.201", ".4.202", ".4.203", ".5"}  # HTJ2K, RLE
    assert len(rows) == 16


def test_decoders_that_do_not_load(tmp_path, monkeypatch) -> None:
    for module in ("gdcm", "pylibjpeg"):
        (tmp_path / f"{module}.py").write_text("raise ImportError('libexpat.so.1')")
    monkeypatch.syspath_prepend(str(tmp_path))
    answer = ask("decoders", 60)
    rows = syntaxes(answer)
    for uid in (".4.57", ".4.70", ".4.51"):
        assert rows[uid].status == "error" and "python-gdcm" in rows[uid].commands[0]
    assert rows[".4.201"].status == "error" and "pylibjpeg-openjpeg" in rows[".4.201"].value
    assert rows[".4.50"].status == rows[".4.80"].status == rows[""].status == "ok"
    assert "--force-reinstall" in rows[".4.70"].commands[0]  # it is installed
    monkeypatch.setattr(decoders, "installed", lambda package: None)
    assert syntaxes(answer)[".4.70"].commands == ("pip install python-gdcm",)


def test_the_second_choice_of_decoder_is_warned_of(tmp_path, monkeypatch) -> None:
    (tmp_path / "jpeg_ls.py").write_text("raise ImportError('no')")
    monkeypatch.syspath_prepend(str(tmp_path))
    row = syntaxes(ask("decoders", 60))[".4.80"]
    assert row.status == "warn" and row.value.startswith("python-gdcm")
    assert row.commands == ("pip install pyjpegls",)


@pytest.mark.parametrize("module", ["pydicom", "openjpeg"])  # pydicom does not survive a plug-in that is broken
def test_no_dicom_reader_at_all(tmp_path, monkeypatch, module: str) -> None:
    (tmp_path / f"{module}.py").write_text("raise ImportError('gone')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (row,) = decoders.rows(ask("decoders", 60))
    assert row.status == "error" and "ImportError: gone" in row.value

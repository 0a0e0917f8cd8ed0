"""benchmarks/run_on_device.sh with stand-ins for venv, pip and edgecxr: what it does, and in which order."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "run_on_device.sh"

PYTHON = """#!/bin/bash
case "$1 $2" in
    "-m venv") echo "venv ${*:3}" >>"$LOG"
        mkdir -p "${!#}/bin"
        cp "$0" "${!#}/bin/python"
        cp "$FAKES/edgecxr" "${!#}/bin/edgecxr" ;;
    "-m pip") echo "pip ${*:4}" >>"$LOG" ;;
    "-c import tensorrt") exit 1 ;;
    *) exec "$REAL_PYTHON" "$@" ;;
esac
"""
EDGECXR = """#!/bin/bash
echo "$*" >>"$LOG"
case "$1 $2 $*" in
    "doctor --json "*) echo "{\\"rows\\": [
        {\\"section\\": \\"gpu\\", \\"name\\": \\"gpu 0\\", \\"status\\": \\"$GPU\\"},
        {\\"section\\": \\"engines\\", \\"name\\": \\"tensorrt\\", \\"status\\": \\"ok\\"}]}" ;;
    "bundle show "*) echo '{"artefacts": {"model.onnx": {"precision": "fp32"}, "b": {"precision": "fp16"}}}' ;;
    build*fp32*) echo "error: out of memory" >&2; exit 4 ;;
    benchmark*)
        echo '{"device": {"name": "NVIDIA Jetson Orin Nano (8 GB)"}, "created": "2026-01-02T03:04:05+00:00", ' \
            "\\"absent\\": {\\"openvino\\": \\"$PWD/venv/bin/python, $HOME/.local\\"}}" >unfinished.json
        exit "$CODE" ;;
esac
"""
JETSON = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1, BOARD: generic\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/loadavg": "0.00 0.00 0.00 1/100 100\n",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the script in a folder with a wheel and a bundle, on a Jetson made of files."""
    for name, text in {"fakes/python3": PYTHON, "fakes/edgecxr": EDGECXR}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    for name, text in JETSON.items():
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(text)
    (tmp_path / "here" / "student").mkdir(parents=True)
    (tmp_path / "here" / "student" / "card.json").write_text("{}")
    (tmp_path / "here" / "edgecxr-1-py3-none-any.whl").write_text("")

    def typed(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": f"{tmp_path / 'fakes'}:/usr/bin:/bin", "HOME": str(tmp_path), "LOG": str(tmp_path / "log"),
            "FAKES": str(tmp_path / "fakes"), "REAL_PYTHON": sys.executable, "CODE": "0", "GPU": "ok",
            "RUN_ON_DEVICE_ROOT": str(tmp_path / "root"),
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(SCRIPT), *args],
            capture_output=True,
            text=True,
            cwd=tmp_path / "here",
            env=environment | more,
            timeout=60,
        )

    return typed


USUAL = ("--wheel", "edgecxr-1-py3-none-any.whl", "--bundles", "student", "--rest", "0")


def test_shellcheck_has_nothing_to_say() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck")
    done = subprocess.run(["shellcheck", str(SCRIPT)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_help_names_every_option(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0 and not done.stderr
    for option in ("--wheel ", "--bundles", "--data", "--film", "--extras", "--wheels", "--python", "--out"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--bundles", "student"), "--wheel"),
        (("--wheel", "gone.whl", "--bundles", "student"), "gone.whl is not there"),
        (("--wheel", "student/card.json", "--bundles", "student"), "no wheel"),
        (("--wheel", "edgecxr-1-py3-none-any.whl"), "--bundles"),
        (("--wheel", "edgecxr-1-py3-none-any.whl", "--bundles", "gone"), "gone is no bundle"),
        (("--wheel", "edgecxr-1-py3-none-any.whl", "--bundles"), "--bundles needs a value"),
        ((*USUAL, "student/"), "student/ is no option"),
        ((*USUAL, "--bundles", "../here/student"), "two bundles are called student"),
        ((*USUAL, "--data", "gone.npz"), "gone.npz is not there"),
        ((*USUAL, "--film", "gone.dcm"), "gone.dcm is not there"),
        ((*USUAL, "--wheels", "gone"), "gone is no folder"),
        ((*USUAL, "--precision", "fp8"), "fp8"),
        ((*USUAL, "--python", "python0"), "python0"),
        ((*USUAL, "--fast"), "--fast is no option"),
        ((*USUAL, "--out"), "--out needs a value"),
        ((*USUAL, "--out", "student/card.json"), "cannot be made"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(run: Run, args: tuple[str, ...], message: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and message in line


def test_one_file_is_left_and_the_second_run_installs_nothing(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here" / "test.npz").write_text("")
    (tmp_path / "here" / "Jane Doe.dcm").write_text("")
    args = (*USUAL, "--data", "test.npz", "--film", "Jane Doe.dcm", "--extras", "nvml", "--also", "cuda-python")
    first = run(*args, "--", "--passes", "1")
    assert first.returncode == 0, first.stderr
    out = tmp_path / "here" / "edgecxr-device"
    log = (tmp_path / "log").read_text().splitlines()
    assert log == [
        f"venv --system-site-packages {out}/venv",
        f"pip install --quiet {tmp_path}/here/edgecxr-1-py3-none-any.whl[nvml] cuda-python",
        "doctor",
        "doctor --json",
        "bundle show inputs/student --json",
        "build inputs/student --precision fp32",
        "build inputs/student --precision fp16",
        "benchmark inputs/student --data inputs/pack.npz --film inputs/film.dcm --out unfinished.json --passes 1",
    ]
    assert "warning: no engine of student fp32: see above" in first.stderr
    assert "Jetson Linux 36.4.3" in first.stdout and "sudo jetson_clocks" in first.stdout
    record = out / "edgecxr-nvidia-jetson-orin-nano-8-gb-2026-01-02.json"
    assert first.stdout.splitlines()[-1] == f"send back this one file: {record}"
    assert json.loads(record.read_text())["absent"] == {"openvino": "./venv/bin/python, ~/.local"}
    second = run(*args)
    assert second.returncode == 0, second.stderr
    assert not [line for line in (tmp_path / "log").read_text().splitlines()[len(log) :] if line.startswith("pip")]
    names = {path.name for path in out.glob("edgecxr-*.json")}
    assert names == {record.name, record.name.replace(".json", "-2.json")}


def test_another_wheel_of_the_same_version_is_installed(run: Run, tmp_path: Path) -> None:
    assert run(*USUAL, "--wheels", ".").returncode == 0
    (tmp_path / "here" / "edgecxr-1-py3-none-any.whl").write_text("another")
    assert run(*USUAL, "--wheels", ".").returncode == 0
    here = tmp_path / "here"
    wheel = f"{here}/edgecxr-1-py3-none-any.whl"
    local = f"pip install --quiet --no-index --find-links {here}"
    installed = [line for line in (tmp_path / "log").read_text().splitlines() if line.startswith("pip")]
    assert installed == [f"{local} {wheel}", f"{local} {wheel}", f"{local} --force-reinstall --no-deps {wheel}"]


def test_what_lies_in_the_folder_already_stays(run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "here" / "inputs" / "mine"
    kept.parent.mkdir()
    kept.write_text("kept")
    assert run(*USUAL, "--out", ".").returncode == 0
    assert kept.read_text() == "kept"


def test_no_gpu_no_engine(run: Run, tmp_path: Path) -> None:
    done = run(*USUAL, GPU="absent")
    assert done.returncode == 0 and "engines: none, for there is no GPU here" in done.stdout
    assert "build" not in (tmp_path / "log").read_text()


def test_a_precision_and_a_target_are_handed_on(run: Run, tmp_path: Path) -> None:
    assert run(*USUAL, "--precision", "fp16", "int8", "--target", "jetson-orin-nano").returncode == 0
    log = (tmp_path / "log").read_text().splitlines()
    assert [line for line in log if line.startswith("build")] == [
        "build inputs/student --precision fp16 --target jetson-orin-nano"  # the bundle has no int8
    ]
    assert log[-1] == "benchmark inputs/student --precision fp16 --precision int8 --out unfinished.json"


def test_a_busy_machine_is_said(run: Run, tmp_path: Path) -> None:
    (tmp_path / "root" / "proc" / "loadavg").write_text(f"{4 * (os.cpu_count() or 1)}.0 0 0 1/1 1\n")
    done = run(*USUAL)
    assert done.returncode == 0 and "other programs are at work" in done.stderr


def test_a_benchmark_that_fails_passes_its_code_on(run: Run, tmp_path: Path) -> None:
    done = run(*USUAL, CODE="4")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("error: the benchmark ended with 4")
    assert not list((tmp_path / "here" / "edgecxr-device").glob("edgecxr-*.json"))


def test_jetpack_4_is_refused_before_anything_is_made(run: Run, tmp_path: Path) -> None:
    (tmp_path / "root" / "etc" / "nv_tegra_release").write_text("# R32 (release), REVISION: 7.1, GCID: 1\n")
    done = run(*USUAL)
    assert done.returncode == 2 and "JetPack 4" in done.stderr
    assert not (tmp_path / "log").exists()

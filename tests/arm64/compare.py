"""What infer_arm64.sh leaves to Python: films to read, versions, and the comparison.

    python compare.py films DIR                    write phantoms in many forms, and files that are to be rejected
    python compare.py versions                     print what this Python has
    python compare.py record RESULTS QEMU [FILE]   compare, print the record, write it to FILE

The last ends with 6 if the sides differ. The second is for both sides, so it needs the base install only.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

LIMIT = 1e-3
DIFFERENT = 6
PACKAGES = (
    "edgecxr", "numpy", "onnxruntime", "pydicom",
    "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "python-gdcm", "Pillow",
)  # fmt: skip

Result = dict[str, Any]
"""What `edgecxr infer --json` prints of one file."""


def films(folder: Path) -> None:
    """Write 24 phantoms, which between them are of every transfer syntax that a phantom can have, and other files."""
    import numpy as np
    from PIL import Image
    from pydicom.uid import JPEGBaseline8Bit

    from edgecxr.phantom.dicom_file import encode
    from edgecxr.phantom.film import render
    from tests.films.dicom_files import compressed, film, write

    for index in range(24):
        (folder / f"phantom{index:02}.dcm").write_bytes(encode(render(seed=0, index=index), 0))
    pixels = np.rint(render(seed=0, index=24).pixels * 255).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    Image.fromarray(pixels).save(folder / "image.jpg", quality=90)
    stream = (folder / "image.jpg").read_bytes()
    write(compressed(film(pixels), JPEGBaseline8Bit, stream), folder, "jpeg-baseline.dcm")
    write(compressed(film(pixels), JPEGBaseline8Bit, stream[: len(stream) // 2]), folder, "half-a-frame.dcm")
    (folder / "half-a-file.dcm").write_bytes((folder / "phantom00.dcm").read_bytes()[:100_000])
    (folder / "text.dcm").write_text("not a film\n")


def versions() -> dict[str, Any]:
    """Return the versions of this Python's packages, and which decoders fail on a frame of their own."""
    from edgecxr.doctor.frames import try_decoders

    tried = [entry for entry in try_decoders() if entry["tried"]]
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "decoders_tried": len(tried),
        "decoders_failed": {entry["name"]: entry["problem"] for entry in tried if entry["problem"]},
    }


def compare(here: list[Result], there: list[Result]) -> tuple[float, list[str]]:
    """Return the largest difference between two sides' probabilities, and a line for each file that differs."""
    answers = {result["source"]: result for result in there}
    largest, problems = 0.0, []
    for ours in here:
        theirs = answers.get(ours["source"], {"status": "no result"})
        name = Path(ours["source"]).name
        if _outcome(ours) != _outcome(theirs):
            problems.append(f"{name}: {_outcome(ours)} here, {_outcome(theirs)} there")
        elif ours["status"] == "ok":
            a, b = probabilities(ours), probabilities(theirs)
            difference = max(abs(a[label] - b[label]) for label in a)
            largest = max(largest, difference)
            if not difference <= LIMIT:
                problems.append(f"{name}: probabilities differ by {difference:.2g}")
    return largest, problems


def probabilities(result: Result) -> dict[str, float]:
    """Return every probability of a file that was predicted."""
    answers = result["findings"] | {"abnormal": result["abnormal"]}
    return {label: value["probability"] for label, value in answers.items()}


def record(folder: Path, qemu: str) -> dict[str, Any]:
    """Compare each emulated processor's results in `folder` with this machine's, and return all that is to be kept."""
    results = {file.stem: [json.loads(line) for line in file.open()] for file in sorted(folder.glob("*.jsonl"))}
    sides = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.versions"))}
    here = results.pop("x86_64")
    predicted = [probabilities(result) for result in here if result["status"] == "ok"]
    by_label = [[probabilities[label] for probabilities in predicted] for label in predicted[0]]
    processors: dict[str, dict[str, Any]] = {}
    for name, there in results.items():
        largest, problems = compare(here, there)
        problems += [f"{decoder}: {problem}" for decoder, problem in sides[name]["decoders_failed"].items()]
        processors[name] = {"largest_difference": largest, "problems": problems}
    emulated = sides[next(iter(results))]
    return {
        "what": "edgecxr infer of the base install, emulated, compared with x86_64",
        "status": "fail" if any(comparison["problems"] for comparison in processors.values()) else "pass",
        "architecture": emulated["machine"],
        "emulated": True,
        "speed": "emulated, speed meaningless",
        "qemu": qemu,
        "model": next(result["model"] for result in here if result["status"] == "ok"),
        "files": len(here),
        "real_files": sum(not result["source"].startswith("films/") for result in here),
        "predicted": len(predicted),
        "rejected": Counter(result["reason"] for result in here if result["status"] == "rejected"),
        "limit": LIMIT,
        "largest_difference": max(comparison["largest_difference"] for comparison in processors.values()),
        "largest_range_over_files": max(max(values) - min(values) for values in by_label),
        "processors": processors,
        "versions": {"x86_64": sides["x86_64"], "aarch64": emulated},
    }


def _outcome(result: Result) -> str:
    return " ".join(filter(None, (result["status"], result.get("reason"))))


def main(action: str, *args: str) -> int:
    """Do what the module's docstring says; return the exit code."""
    if action == "films":
        films(Path(args[0]))
    elif action == "versions":
        print(json.dumps(versions()))
    else:
        whole = record(Path(args[0]), args[1])
        text = json.dumps(whole, indent=1)
        print(text)
        if args[2:]:
            Path(args[2]).parent.mkdir(parents=True, exist_ok=True)
            Path(args[2]).write_text(text + "\n")
        return 0 if whole["status"] == "pass" else DIFFERENT
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

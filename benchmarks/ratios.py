"""What the benchmarks of ratios share: a record of ratios, each with its limit. Standard library only."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIMIT_EXCEEDED = 6
"""Exit code, as for any check of edgecxr that failed."""


def spread(values: Sequence[float], digits: int = 4) -> dict[str, float]:
    """Return smallest, median and largest value."""
    return {
        "min": round(min(values), digits),
        "median": round(statistics.median(values), digits),
        "max": round(max(values), digits),
    }


def judged(name: str, ratio: float, limit: float) -> dict[str, Any]:
    """Return a ratio beside its limit, and whether it keeps it."""
    return {"name": name, "ratio": round(ratio, 4), "limit": limit, "pass": ratio <= limit}


def record(benchmark: str, settings: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole record.

    Args:
        benchmark: name of the script.
        settings: what was asked for.
        results: each with "checks", a list of what `judged` returns.
    """
    passed = all(check["pass"] for result in results for check in result["checks"])
    return {
        "benchmark": benchmark,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "status": "pass" if passed else "fail",
        "machine": machine(),
        "settings": settings,
        "results": results,
    }


def _commit() -> str | None:
    """Return the commit of the code, with a + if files have changed since; None outside a clone."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")


def machine() -> dict[str, Any]:
    """Say on what a record was made; no name of a host or a person."""
    packages = ("edgecxr", "numpy", "pydicom", "onnxruntime", "openvino", "typer", "torch", "timm", "python-gdcm")
    return {
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": {name: version for name in packages if (version := _version(name))},
    }


def finish(whole: dict[str, Any], out: Path | None) -> int:
    """Print the record, write it, say which limits are exceeded, and return the exit code."""
    text = json.dumps(whole, indent=1)
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = out.with_name(f".{out.name}.tmp")
        temporary.write_text(text + "\n")
        temporary.replace(out)
    exceeded = [check for result in whole["results"] for check in result["checks"] if not check["pass"]]
    for check in exceeded:
        print(f"limit exceeded: {check['name']} is {check['ratio']:g}, at most {check['limit']:g}", file=sys.stderr)
    return LIMIT_EXCEEDED if exceeded else 0


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None

"""Rows about the transfer syntaxes that this machine can decode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgecxr.doctor.ask import Answer
from edgecxr.doctor.listing import Row
from edgecxr.extras import installed, pip

# Installed together: neither works alone, and a broken plug-in prevents the import of all pydicom decoders.
_WITH_PLUGINS = "pylibjpeg pylibjpeg-openjpeg"


def rows(answer: Answer) -> Iterator[Row]:
    """Yield one row per transfer syntax.

    Args:
        answer: of the probe "decoders".
    """
    if answer.problem:
        remedy = "no DICOM file can be read: install the readers again"
        commands = (f"{pip()} install --force-reinstall pydicom {_WITH_PLUGINS}",)
        yield Row("decoders", "decoders", "error", f"cannot be tried ({answer.problem})", remedy, commands)
        return
    for entry in answer.facts["syntaxes"]:
        yield _row(entry)


def _row(entry: dict[str, Any]) -> Row:
    package, preferred = entry["package"], entry["preferred"]
    version = installed(package)
    name = _short(entry["name"])
    packages = _WITH_PLUGINS if package in _WITH_PLUGINS else package
    reinstall = f"{pip()} install --force-reinstall --no-deps {packages}"
    shown = f"{package} {version}" if version else package
    if entry["missing"] and version is None:
        return Row("decoders", name, "error", f"{package} is missing", "films of this kind cannot be read",
                   (f"{pip()} install {package}",), entry)  # fmt: skip
    if entry["problem"]:
        reason = "does not load" if entry["missing"] else entry["problem"]
        return Row(
            "decoders", name, "error", f"{shown}: {reason}", "films of this kind cannot be read", (reinstall,), entry
        )
    if package != preferred:
        remedy = f"{preferred} is missing: lossy films may differ in single grey levels from those of other machines"
        return Row("decoders", name, "warn", shown, remedy, (f"{pip()} install {preferred}",), entry)
    return Row("decoders", name, "ok", shown + ("" if entry["tried"] else " (installed, not tried)"), facts=entry)


def _short(name: str) -> str:
    """Return the DICOM name of a transfer syntax, abbreviated."""
    for long, short in (
        ("High-Throughput JPEG 2000", "HTJ2K"),
        (" Image Compression", ""),
        (", Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])", " SV1"),
        (", Non-Hierarchical (Process 14)", ""),
        (" with RPCL Options", " RPCL"),
        (" (Process 2 and 4)", ""),
        (" (Process 1)", ""),
        (" (Near-Lossless)", ""),
        ("(Lossless Only)", "lossless"),
    ):
        name = name.replace(long, short)
    return name

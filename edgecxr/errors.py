"""Exceptions of edgecxr, each with the exit code of the command line.

    EdgeCxrError           1  an unexpected failure
     +-- UsageError        2  the command was given something it cannot accept
     +-- InputError        3  an image, DICOM file or data set is rejected (carries a reason code)
     +-- ModelError        4  a checkpoint or bundle is missing, damaged or of another kind
     +-- MissingPackage    5  a needed runtime is not installed (names the extra)
     +-- CheckFailed       6  an artefact, a loss or a comparison failed its check, and what it guards is not used
     +-- TimeIsUp          7  a limit of time ended work that the same command goes on with

A message says what is wrong, in which file, and what to do. Code that calls a third-party library turns its errors into
these, so that no other code needs to know the library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgecxr.bundle.gate import GateResult

REASONS = {
    "not-found": "the path does not exist",
    "not-an-image": "neither DICOM nor an image that Pillow reads",
    "malformed": "the file or table breaks its own format, or ends too early",
    "no-pixels": "a DICOM file without pixel data",
    "undecodable": "the pixel data cannot be decoded",
    "unsupported": "a kind of image that is not a radiograph for presentation",
    "blank": "every pixel has the same value, or nearly so",
    "too-slow": "the file was not read within the limit of time",
    "too-large": "reading the file needs more memory than its limit",
    "crash": "reading the file ended the process that read it",
    "modality": "the file says that it is no radiograph: its Modality is none of CR, DX, RG",
    "no-patient": "the file says that it is of an animal, or an image for quality control",
    "bones": "the file says that it is an image of bones alone, as dual-energy radiography makes",
    "body-part": "the file says that it shows another part of the body than the chest",
    "view": "the file says that it is no frontal view",
    "tiny": "fewer than 64 pixels on a side",
    "saturated": "nearly all pixels are black or white",
    "polarity": "it looks like a chest film once black and white are exchanged, against what the file says",
    "not-chest": "it does not look like the chest films that the model learnt from",
    "no-numbers": "the model gives values that are not numbers for the film",
    "dataset": "a data set's table or folder is not what its adapter expects",
}
"""Reason codes of `InputError`, as they appear in JSON output and in rejected.csv."""

GATE_REASONS = (
    *("modality", "no-patient", "bones", "body-part", "view", "tiny", "blank", "saturated", "polarity", "not-chest"),
)
"""Reason codes of the quality gate; if several apply, the first in this order is reported. The user can overrule the
gate, but a film whose pixels all have the same value is already rejected by its reader."""


AGAIN = "save or send the film again"
"""Advice about a damaged film, for error messages."""


def brief(text: object, width: int = 160) -> str:
    """Return another library's message as one printable line.

    It is cut between words if it is longer than `width`.
    """
    words = "".join(c if c.isprintable() or c.isspace() else "?" for c in str(text)).split()
    line = " ".join(words) or "no details"
    if len(line) <= width:
        return line
    cut = line[: width - 3]
    return (cut.rpartition(" ")[0] or cut).rstrip(",;:. ") + "..."


class EdgeCxrError(Exception):
    """Base of all errors that edgecxr raises on purpose."""

    exit_code = 1


class UsageError(EdgeCxrError):
    """The command was given something it cannot accept."""

    exit_code = 2


class InputError(EdgeCxrError):
    """An image, DICOM file or data set that is rejected.

    Attributes:
        reason: one of `REASONS`, stable across versions, meant for programs.
        gate: the quality gate's `edgecxr.bundle.gate.GateResult` for a film that it refuses; else None.
    """

    exit_code = 3

    def __init__(self, message: str, reason: str, gate: GateResult | None = None) -> None:
        if reason not in REASONS:
            raise ValueError(f"unknown reason code {reason!r}")
        # Pass all arguments to the base class so that the error survives pickling between processes.
        super().__init__(message, reason, gate)
        self.reason = reason
        self.gate = gate

    def __str__(self) -> str:
        return str(self.args[0])


class ModelError(EdgeCxrError):
    """A checkpoint or bundle is missing, damaged or of another kind."""

    exit_code = 4


class MissingPackage(EdgeCxrError):
    """A needed package is not installed, or its library does not load.

    If the library does not load, the error's cause is an ImportError.

    Attributes:
        package: name of the missing package.
        extra: the extra of edgecxr that installs it; "" if the base install does.
        purpose: what needs it.
    """

    exit_code = 5

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(package, extra, purpose)
        self.package = package
        self.extra = extra
        self.purpose = purpose

    def __str__(self) -> str:
        from edgecxr import extras

        cause = self.__cause__
        if isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError):
            reason = (str(cause).splitlines() or [""])[0]
            return f"{self.purpose} needs {self.package}, which does not load ({reason}): `edgecxr doctor` says more"
        return f"{self.purpose} needs {self.package}, which is not installed: {extras.command(self.extra)}"


class CheckFailed(EdgeCxrError):
    """A check that guards an artefact failed.

    The artefact was not written; or, if it was there before, it is no longer used.
    """

    exit_code = 6


class TimeIsUp(EdgeCxrError):
    """A limit of time ended long work before its end.

    What was done is kept, and the same command goes on with it.
    """

    exit_code = 7

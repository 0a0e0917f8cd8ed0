"""Statements of a DICOM file against its use.

They say that it is no frontal chest film for people to look at.
"""

from __future__ import annotations

from pydicom import Dataset

from edgecxr.films.radiograph import Objection
from edgecxr.films.statements.coded_terms import texts
from edgecxr.films.statements.regions import other_region
from edgecxr.films.statements.subject import no_patient, shows_bones_alone
from edgecxr.films.statements.view import OBLIQUE

# DR is not a DICOM term, but some devices write it for DX.
_RADIOGRAPHY = ("CR", "DX", "DR", "RG")

_FOR_PROCESSING = frozenset({
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray
    "1.2.840.10008.5.1.4.1.1.1.2.1",  # Digital Mammography
    "1.2.840.10008.5.1.4.1.1.1.3.1",  # Digital Intra-Oral
})  # fmt: skip
"""SOP classes of images For Processing."""


def objections_of(dataset: Dataset, view: str | None) -> tuple[Objection, ...]:
    """Return a file's statements against it being a frontal chest film.

    Args:
        dataset: the file.
        view: what `edgecxr.films.statements.view.stated_view` returned.
    """
    objections = []
    modalities = texts(dataset, "Modality")
    if modalities and not set(modalities) & set(_RADIOGRAPHY):
        objections.append(Objection("modality", f"modality {modalities[0][:16]} is not radiography (CR, DX, RG)"))
    if subject := no_patient(dataset):
        objections.append(Objection("no-patient", f"{subject}, and no film of a patient"))
    if shows_bones_alone(dataset):
        objections.append(Objection("bones", "it is an image of bones alone, computed from films of several energies"))
    part = other_region(dataset)
    if part:
        objections.append(Objection("body-part", f"the body part {part[:32]} is not the chest"))
    if view in ("LL", OBLIQUE):
        kind = "an oblique" if view == OBLIQUE else "a lateral"
        objections.append(Objection("view", f"it is {kind} view, and models learn from frontal ones"))
    return tuple(objections)


def is_for_processing(dataset: Dataset) -> bool:
    """Return whether a file is an image For Processing.

    PresentationIntentType says it, or the SOP class: that of the file meta information if the file has no other.
    """
    intents = [intent.replace("_", " ").replace("-", " ") for intent in texts(dataset, "PresentationIntentType")]
    classes = texts(dataset, "SOPClassUID") or texts(
        getattr(dataset, "file_meta", Dataset()), "MediaStorageSOPClassUID"
    )
    return "FOR PROCESSING" in intents or bool(_FOR_PROCESSING.intersection(classes))

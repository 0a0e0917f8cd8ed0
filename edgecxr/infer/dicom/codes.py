"""Codes for the concepts of a result.

They are SNOMED CT or DICOM codes if one has exactly that meaning, else private codes of edgecxr.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from edgecxr.terminal import printable

PRIVATE = "99EDGECXR"
"""Designator of edgecxr's own coding scheme; DICOM reserves a leading 99 for private use (PS3.16, 8.2)."""

_LONGEST_MEANING = 64


class Code(NamedTuple):
    """A coded concept.

    Attributes:
        value: the code, at most 16 characters.
        scheme: "SCT" (SNOMED CT), "DCM" (PS3.16, annex D) or `PRIVATE`.
        meaning: the concept in words, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str


# VinDr-CXR and NIH ChestX-ray14 use different names for the same findings; keys are lower case, with "_" as a space.
_FINDINGS = {
    "atelectasis": Code("46621007", "SCT", "Atelectasis"),
    "bacterial pneumonia": Code("53084003", "SCT", "Bacterial pneumonia"),
    "calcification": Code("112063", "DCM", "Abnormal calcifications"),
    "cardiomegaly": Code("8186001", "SCT", "Cardiomegaly"),
    "clavicle fracture": Code("58150001", "SCT", "Fracture of clavicle"),
    "consolidation": Code("95436008", "SCT", "Lung consolidation"),
    "copd": Code("13645005", "SCT", "Chronic obstructive pulmonary disease"),
    "edema": Code("19242006", "SCT", "Pulmonary edema"),
    "emphysema": Code("87433001", "SCT", "Pulmonary emphysema"),
    "ild": Code("233703007", "SCT", "Interstitial lung disease"),
    "infiltration": Code("112121", "DCM", "Infiltrate"),
    "lung opacity": Code("112001", "DCM", "Opacity"),
    "mass": Code("4147007", "SCT", "Mass"),
    "nodule": Code("27925004", "SCT", "Nodule"),
    "pleural effusion": Code("60046008", "SCT", "Pleural effusion"),
    "pneumonia": Code("233604007", "SCT", "Pneumonia"),
    "pneumothorax": Code("36118008", "SCT", "Pneumothorax"),
    "pulmonary fibrosis": Code("51615001", "SCT", "Fibrosis of lung"),
    "rib fracture": Code("33737001", "SCT", "Fracture of rib"),
    "tuberculosis": Code("56717001", "SCT", "Tuberculosis"),
    "viral pneumonia": Code("75570004", "SCT", "Viral pneumonia"),
    # We know no single concept that means what the data sets mean by these.
    "aortic enlargement": Code("AORTIC-ENLARGED", PRIVATE, "Aortic enlargement"),
    "enlarged pa": Code("PA-ENLARGED", PRIVATE, "Enlarged pulmonary artery"),
    "hernia": Code("HERNIA", PRIVATE, "Hernia"),
    "lung cavity": Code("LUNG-CAVITY", PRIVATE, "Lung cavity"),
    "lung cyst": Code("LUNG-CYST", PRIVATE, "Lung cyst"),
    "lung tumor": Code("LUNG-TUMOR", PRIVATE, "Lung tumor"),
    "mediastinal shift": Code("MEDIAST-SHIFT", PRIVATE, "Mediastinal shift"),
    "nodule/mass": Code("NODULE-OR-MASS", PRIVATE, "Nodule or mass"),
    "other diseases": Code("OTHER-DISEASES", PRIVATE, "Other diseases"),
    "other lesion": Code("OTHER-LESION", PRIVATE, "Other lesion"),
    "pleural thickening": Code("PLEURAL-THICK", PRIVATE, "Pleural thickening"),
}
_SAME = {
    "effusion": "pleural effusion",
    "fibrosis": "pulmonary fibrosis",
    "pneumonia bacterial": "bacterial pneumonia",
    "pneumonia viral": "viral pneumonia",
}

ABNORMAL_FILM = Code("ABNORMAL-FILM", PRIVATE, "Film is not normal")
DECISION = Code("DECISION", PRIVATE, "Decision at the operating point")
THRESHOLD = Code("THRESHOLD", PRIVATE, "Threshold of the operating point")
ANALYSIS = Code("ANALYSIS", PRIVATE, "Analysis by the model")
NOT_ANALYSED = Code("NOT-ANALYSED", PRIVATE, "Not analysed")
REASON = Code("REASON", PRIVATE, "Reason why it was not analysed")
PROBABILITY = Code("122157", "DCM", "Probability")
NORMALITY = Code("121402", "DCM", "Normality")
COMMENT = Code("121106", "DCM", "Comment")
POSITIVE = Code("10828004", "SCT", "Positive")
NEGATIVE = Code("260385009", "SCT", "Negative")
ABNORMAL = Code("263654008", "SCT", "Abnormal")
NORMAL = Code("17621005", "SCT", "Normal")
CHEST_FILM = Code("399208008", "SCT", "Plain chest X-ray")
NO_UNITS = Code("1", "UCUM", "no units")


def reason(name: str) -> Code:
    """Return the code of a reason why a film was not analysed.

    Args:
        name: one of `edgecxr.errors.REASONS`.
    """
    return Code(name.upper()[:16], PRIVATE, name)


def finding(label: str) -> Code:
    """Return the code of a finding.

    An unknown label gets a private code that depends only on its name.

    Args:
        label: as on a model's card.
    """
    name = " ".join(label.lower().replace("_", " ").split())
    code = _FINDINGS.get(_SAME.get(name, name))
    if code is not None:
        return code
    meaning = printable(label).replace("\\", "/").strip()[:_LONGEST_MEANING] or "Finding"
    return Code(f"L-{hashlib.sha256(label.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}", PRIVATE, meaning)

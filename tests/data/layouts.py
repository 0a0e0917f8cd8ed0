"""Data sets as they are distributed, in small: their folders, their tables with all their quirks, synthetic films."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from edgecxr.data.dataset import Dataset
from edgecxr.phantom.film import render
from tests.films.dicom_files import film, write


@lru_cache(maxsize=8)
def pixels(index: int, side: int = 96) -> np.ndarray:
    """Return a phantom of (side, side) uint8; there are 5 different ones."""
    picture = Image.fromarray(render(seed=0, index=index % 5).pixels)
    return np.rint(255 * np.asarray(picture.resize((side, side)))).astype(np.uint8)


def picture(path: Path, index: int = 0, side: int = 96) -> Path:
    """Write a PNG or JPEG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(index, side)).save(path)
    return path


def dicom(path: Path, index: int = 0, side: int = 96) -> Path:
    """Write a DICOM film."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write(film(pixels(index, side)), path.parent, path.name)


def table(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    """Write a CSV table, packed if it is called so."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


# ---- NIH ChestX-ray14

NIH_HEADER = (
    *("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
    *("OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]"),
)
NIH_ROWS = {
    "00000001_000.png": "Cardiomegaly",
    "00000001_001.png": "Cardiomegaly|Emphysema",
    "00000002_000.png": "No Finding",
    "00000003_000.png": "Hernia|Infiltration|Pleural_Thickening",
    "00000004_000.png": "Mass|Nodule",
    "00000005_000.png": "No Finding",
    "00000006_000.png": "Nodule",
    "00000007_000.png": "Effusion|Fibrosis",
    "00000008_000.png": "No Finding",
    "00000009_000.png": "Pneumonia",
}
NIH_TEST = ("00000007_000.png", "00000008_000.png", "00000009_000.png")
NIH_BOXES = (
    ("00000001_000.png", "Cardiomegaly", 256.0, 512.0, 512.0, 256.0),
    ("00000003_000.png", "Infiltrate", 100.5, 100.5, 50, 50),
    ("00000007_000.png", "Effusion", 0, 0, 1024, 1024),
)


def nih_layout(folder: Path, side: int = 96, rows: dict[str, str] = NIH_ROWS, test: Sequence[str] = NIH_TEST) -> Path:
    """Write NIH ChestX-ray14, its films in two of the twelve folders."""
    lines = [
        (name, labels, int(name[9:12]), int(name[:8]), 58, "M", "PA", 2682, 2749, 0.143, 0.143, "")
        for name, labels in rows.items()
    ]
    # The table's lines end with a comma more than there are columns, as does its header.
    table(folder / "Data_Entry_2017.csv", (*NIH_HEADER, ""), lines)
    (folder / "test_list.txt").write_text("".join(f"{name}\n" for name in test))
    (folder / "train_val_list.txt").write_text("\n".join(name for name in rows if name not in test))
    boxes = [(*box, "", "", "") for box in NIH_BOXES]
    table(folder / "BBox_List_2017.csv", ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""), boxes)
    for index, name in enumerate(rows):
        picture(folder / f"images_{1 + index % 2:03}" / "images" / name, index, side)
    return folder


# ---- CheXpert

CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture"),
    "Support Devices",
)
"""The 14 observations, in the order of the tables."""

CHEXPERT_ROWS = {
    ("train", "patient00001/study1/view1_frontal.jpg"): {"No Finding": 1.0, "Support Devices": 1.0},
    ("train", "patient00001/study1/view2_lateral.jpg"): {"No Finding": 1.0, "Support Devices": 1.0},
    ("train", "patient00002/study1/view1_frontal.jpg"): {"Edema": -1.0, "Cardiomegaly": 1.0, "Pneumothorax": 0.0},
    ("train", "patient00002/study2/view1_frontal.jpg"): {"Edema": 1.0, "Pleural Effusion": -1.0, "Fracture": 1.0},
    ("train", "patient00003/study1/view1_frontal.jpg"): {"Lung Lesion": 1.0, "Cardiomegaly": -1.0},
    ("train", "patient00004/study1/view1_frontal.jpg"): {"No Finding": 1.0},
    ("valid", "patient64541/study1/view1_frontal.jpg"): dict.fromkeys(CHEXPERT, 0.0) | {"Edema": 1.0},
    ("valid", "patient64542/study1/view1_frontal.jpg"): dict.fromkeys(CHEXPERT, 0.0) | {"No Finding": 1.0},
}


CHEXPERT_TEST = {
    "patient64741/study1/view1_frontal.jpg": dict.fromkeys(CHEXPERT, 0) | {"Cardiomegaly": 1, "Support Devices": 1},
    "patient64741/study1/view2_lateral.jpg": dict.fromkeys(CHEXPERT, 0) | {"Cardiomegaly": 1, "Support Devices": 1},
    "patient64742/study1/view1_frontal.jpg": dict.fromkeys(CHEXPERT, 0) | {"No Finding": 1},
    "patient64743/study1/view1_frontal.jpg": dict.fromkeys(CHEXPERT, 0) | {"Edema": 1},
    "patient64744/study1/view1_frontal.jpg": dict.fromkeys(CHEXPERT, 0) | {"Support Devices": 1},
    "patient64745/study1/view1_frontal.jpg": dict.fromkeys(CHEXPERT, 0),
}
"""The last two as in the radiologists' table: devices are no normal film there, and some films are nothing at all."""


def chexpert_batches(folder: Path) -> Path:
    """Write CheXpert's full edition as it is downloaded, in batches."""
    chexpert_layout(folder)
    first = folder / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir()
    for name in ("train.csv", "valid.csv", "valid"):
        (folder / name).rename(first / name)
    for index, patient in enumerate(sorted((folder / "train").iterdir())):
        batch = folder / f"CheXpert-v1.0 batch {2 + index // 2} (train {1 + index // 2})"
        batch.mkdir(exist_ok=True)
        patient.rename(batch / patient.name)
    (folder / "train").rmdir()
    return folder


def chexpert_test(folder: Path, name: str) -> Path:
    """Add CheXpert's test set: by film in test_labels.csv, by study in groundtruth.csv; one more study has no film."""
    if name == "groundtruth.csv":
        studies = {path.rpartition("/")[0]: says for path, says in CHEXPERT_TEST.items()}
        studies["patient64746/study1"] = dict.fromkeys(CHEXPERT, 0)
        rows = [(f"CheXpert-v1.0/test/{study}", *says.values()) for study, says in studies.items()]
    else:
        rows = [(f"test/{path}", *says.values()) for path, says in CHEXPERT_TEST.items()]
    table(folder / name, ("Study" if name == "groundtruth.csv" else "Path", *CHEXPERT), rows)
    for index, path in enumerate(CHEXPERT_TEST):
        picture(folder / "test" / path, 20 + index)
    return folder


def chexpert_layout(folder: Path) -> Path:
    """Write CheXpert's small edition; lateral films have no AP/PA."""
    for split in ("train", "valid"):
        rows = [
            (
                f"CheXpert-v1.0-small/{split}/{path}", "Female", 68, "Frontal" if "frontal" in path else "Lateral",
                "AP" if "frontal" in path else "", *(values.get(label, "") for label in CHEXPERT),
            )
            for (of, path), values in CHEXPERT_ROWS.items()
            if of == split
        ]  # fmt: skip
        table(folder / f"{split}.csv", ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT), rows)
    for index, (split, path) in enumerate(CHEXPERT_ROWS):
        picture(folder / split / path, index)
    return folder


# ---- MIMIC-CXR

MIMIC = tuple(sorted(CHEXPERT))
"""The same observations, in the order of MIMIC-CXR's tables."""

MIMIC_ROWS = (
    # subject, study, dicom_id, split, view, what the CheXpert labeler says; None where the study is not in its table
    ("10000032", "50414267", "02aa804e-bde0afdd", "train", "PA", {"No Finding": 1.0}),
    ("10000032", "50414267", "174413ec-4ec4c1f7", "train", "LATERAL", {"No Finding": 1.0}),
    ("10000033", "53189527", "2a2277a9-b0ded155", "train", "AP", {"Edema": 1.0, "Pleural Effusion": -1.0}),
    ("10000034", "53911762", "68b5c4b1-227d0485", "validate", "AP", {"Pneumonia": 1.0}),
    ("10000764", "57375967", "096052b7-d256dc40", "test", "AP", {"Consolidation": -1.0, "Edema": 0.0}),
    ("10000765", "57375968", "096052b7-d256dc41", "test", "PA", {"No Finding": 1.0}),
    ("10000766", "57375969", "196052b7-d256dc42", "train", "PA", None),
    ("10000767", "57375970", "196052b7-d256dc43", "train", "", {"Edema": 1.0}),
)


MIMIC_MANUAL = {
    "57375967": {"Airspace Opacity": 1, "Edema": -1},
    "57375968": {"Support Devices": 1},
    "50414267": {"Edema": 1},
}
"""Labels by hand: of the two test studies, and of one that is none."""


def mimic_manual(folder: Path) -> Path:
    """Add the labels that were made by hand; lung opacities have another name there, and patients none."""
    names = ["Airspace Opacity" if name == "Lung Opacity" else name for name in MIMIC]
    rows = [(study, *(says.get(name, "") for name in names)) for study, says in MIMIC_MANUAL.items()]
    table(folder / "mimic-cxr-2.1.0-test-set-labeled.csv", ("study_id", *names), rows)
    return folder


def mimic_layout(folder: Path, ending: str = ".jpg", packed: bool = True) -> Path:
    """Write MIMIC-CXR, the JPG or the DICOM edition."""
    gz = ".gz" if packed else ""
    studies = {(row[0], row[1]): row[5] for row in MIMIC_ROWS if row[5] is not None}
    for labeler in ("chexpert", "negbio"):
        # NegBio finds nothing uncertain here, so that the two differ.
        labelled = [
            (
                *study,
                *("" if labeler == "negbio" and values.get(name) == -1 else values.get(name, "") for name in MIMIC),
            )
            for study, values in studies.items()
        ]
        table(folder / f"mimic-cxr-2.0.0-{labeler}.csv{gz}", ("subject_id", "study_id", *MIMIC), labelled)
    splits = [(dicom_id, study, subject, split) for subject, study, dicom_id, split, _, _ in MIMIC_ROWS]
    table(folder / f"mimic-cxr-2.0.0-split.csv{gz}", ("dicom_id", "study_id", "subject_id", "split"), splits)
    metadata = [
        (dicom_id, subject, study, "CHEST (PORTABLE AP)", view, 3056, 2544)
        for subject, study, dicom_id, _, view, _ in MIMIC_ROWS
    ]
    header = (
        "dicom_id",
        "subject_id",
        "study_id",
        "PerformedProcedureStepDescription",
        "ViewPosition",
        "Rows",
        "Columns",
    )
    table(folder / f"mimic-cxr-2.0.0-metadata.csv{gz}", header, metadata)
    for index, (subject, study, dicom_id, *_) in enumerate(MIMIC_ROWS):
        path = folder / "files" / f"p{subject[:2]}" / f"p{subject}" / f"s{study}" / f"{dicom_id}{ending}"
        (dicom if ending == ".dcm" else picture)(path, index)
    return folder


# ---- VinBigData

VINBIGDATA_HEADER = ("image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max")
NOTHING = ("No finding", 14, "", "", "", "")
VINBIGDATA_ROWS = {
    # image -> reader -> rows of class and box
    "0a": {"R1": [NOTHING], "R2": [NOTHING], "R3": [NOTHING]},
    "0b": {
        "R8": [("Cardiomegaly", 3, 20, 40, 60, 80), ("Aortic enlargement", 0, 10, 10, 30, 30)],
        "R9": [("Cardiomegaly", 3, 24, 44, 64, 84), ("Cardiomegaly", 3, 1, 2, 3, 4)],
        "R10": [NOTHING],
    },
    "0c": {"R8": [("Nodule/Mass", 8, 5, 5, 9, 9)], "R9": [NOTHING], "R10": [NOTHING]},
    "0d": {"R8": [("Pneumothorax", 12, 5, 5, 9, 9)], "R9": [("Pneumothorax", 12, 6, 6, 9, 9)], "R10": [NOTHING]},
    **{f"1{i}": {"R1": [NOTHING], "R2": [NOTHING], "R3": [NOTHING]} for i in range(6)},
    **{f"2{i}": {"R8": [("ILD", 5, 1, 1, 9, 9)], "R9": [("ILD", 5, 1, 1, 9, 9)], "R10": [NOTHING]} for i in range(6)},
}


def vinbigdata_layout(folder: Path, ending: str = ".dicom") -> Path:
    """Write VinBigData: DICOM films of 96 px; or an edition of PNGs of 48 px, with the sizes of the films."""
    rows = [
        (image, name, number, reader, *box)
        for image, readers in VINBIGDATA_ROWS.items()
        for reader, findings in readers.items()
        for name, number, *box in findings
    ]
    table(folder / "train.csv", VINBIGDATA_HEADER, rows)
    for index, image in enumerate(VINBIGDATA_ROWS):
        path = folder / "train" / f"{image}{ending}"
        dicom(path, index) if ending == ".dicom" else picture(path, index, 48)
    if ending != ".dicom":
        table(folder / "train_meta.csv", ("image_id", "dim0", "dim1"), [(image, 96, 96) for image in VINBIGDATA_ROWS])
    return folder


# ---- ChestMNIST


def chestmnist_layout(path: Path, side: int = 64, counts: Sequence[int] = (8, 3, 4)) -> Path:
    """Write one of ChestMNIST's files; image i of a split has finding i, and the first ones have none."""
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        labels = np.zeros((count, 14), np.uint8)
        for row in range(1, count):
            labels[row, row % 3] = 1
        arrays[f"{split}_images"] = np.stack([pixels(i, side) for i in range(count)])
        arrays[f"{split}_labels"] = labels
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)
    return path


def named(dataset: Dataset, image: str) -> dict[str, float]:
    """Return label -> target of an image, what is 0 left out."""
    (row,) = np.flatnonzero(dataset.ids == image)
    values = dict(zip(dataset.labels, dataset.targets[row].tolist(), strict=True))
    return {label: value for label, value in values.items() if value != 0} | {"abnormal": float(dataset.abnormal[row])}


def splits_of(dataset: Dataset) -> dict[str, str]:
    return dict(zip(dataset.ids.tolist(), dataset.splits.tolist(), strict=True))

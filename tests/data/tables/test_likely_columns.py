"""A table whose columns are called otherwise than by default says which option names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgecxr.data.tables.likely_columns import patients_hint, require_images
from edgecxr.data.tables.table import Table
from edgecxr.errors import InputError


def table(**columns: list[str]) -> Table:
    named = {name.replace("_of_", " "): cells for name, cells in columns.items()}
    return Table(Path("labels.csv"), named, list(range(2, 2 + len(next(iter(columns.values()))))))


@pytest.mark.parametrize(
    "name", ["patient_id", "PatientID", "patient id", "Patient ID", "subject_id", "patientId", "MRN", "pid", "Subject"]
)
def test_a_column_that_looks_like_patients_is_suggested(name: str) -> None:
    quoted = f"'{name}'" if " " in name else name
    assert patients_hint(Table(Path("a.csv"), {"image": ["1.png"], name: ["7"]}, [2])).endswith(
        f"--patient-column {quoted}"
    )


@pytest.mark.parametrize("name", ["age", "patient age", "outpatient", "study_id", "Pneumonia"])
def test_other_columns_are_not(name: str) -> None:
    assert patients_hint(Table(Path("a.csv"), {"image": ["1.png"], name: ["7"]}, [2])).endswith("NAME")


@pytest.mark.parametrize(
    ("columns", "suggested"),
    [
        ({"age": ["60", "61"], "filename": ["a.png", "b.PNG"]}, "filename"),
        ({"age": ["60", "61"], "where": ["x/a.dcm", "x/b.dcm"]}, "where"),
        ({"age": ["60", "61"], "dicom": ["IM0001", "IM0002"]}, "dicom"),
        ({"age": ["60", "61"], "Image_of_Path": ["IM0001", "IM0002"]}, "'Image Path'"),
        ({"file": ["study", "study"], "age": ["60", "61"]}, "NAME"),
        ({"age": ["60.5", "61.5"], "Mass": ["1", "0"]}, "NAME"),
    ],
)
def test_a_column_that_looks_like_images_is_suggested(columns: dict[str, list[str]], suggested: str) -> None:
    with pytest.raises(InputError, match="has no column 'image'") as refusal:
        require_images(table(**columns), "image")
    assert f"--image-column {suggested} " in str(refusal.value) and "did you mean" not in str(refusal.value)
    assert refusal.value.reason == "dataset"

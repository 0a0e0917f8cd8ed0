"""Small DICOM files for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

DX_FOR_PRESENTATION = "1.2.840.10008.5.1.4.1.1.1.1"


def film(pixels: np.ndarray, **elements: Any) -> FileDataset:
    """Return a DX film of (H, W) or (H, W, 3) integers; `elements` are set last, None removes one."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = DX_FOR_PRESENTATION
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    bits = 8 * pixels.dtype.itemsize
    values = {
        "SOPClassUID": DX_FOR_PRESENTATION,
        "SOPInstanceUID": "1.2.3.4",
        "Modality": "DX",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 3 if pixels.ndim == 3 else 1,
        "PhotometricInterpretation": "RGB" if pixels.ndim == 3 else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": (elements.get("BitsStored") or bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
    }
    if pixels.ndim == 3:
        values["PlanarConfiguration"] = 0
    data = pixels.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    for keyword, value in (values | elements).items():
        if value is None:
            dataset.pop(keyword, None)
        else:
            setattr(dataset, keyword, value)
    if "PixelPaddingValue" in dataset:
        dataset["PixelPaddingValue"].VR = "US"
    return dataset


def lookup(entries: list[int], first: int, bits: int) -> Dataset:
    """Return an item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "US", entries)
    return item


def compressed(dataset: FileDataset, syntax: str, stream: bytes) -> FileDataset:
    """Put an encoded frame in place of the pixels."""
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def without_transfer_syntax(path: Path) -> Path:
    """Take the TransferSyntaxUID out of a written file."""
    content = path.read_bytes()
    start = content.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(content[start + 6 : start + 8], "little")
    path.write_bytes(content[:start] + content[start + 8 + length :])
    return path


def write(dataset: FileDataset, folder: Path, name: str = "film.dcm") -> Path:
    """Save under `folder`; for a big-endian syntax the pixels must already be."""
    path = folder / name
    syntax = dataset.file_meta.TransferSyntaxUID
    dataset.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian, "iso8859")
    dataset.save_as(path, enforce_file_format=True)
    return path

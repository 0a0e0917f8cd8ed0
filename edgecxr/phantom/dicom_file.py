"""Encode a phantom's film as DICOM, in varied forms like hospitals' files."""

from __future__ import annotations

import hashlib
import io

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from edgecxr.phantom.anatomy import stream
from edgecxr.phantom.film import PhantomFilm

_SYNTAXES = {
    ExplicitVRLittleEndian: 0.30,
    ImplicitVRLittleEndian: 0.16,
    JPEGLSLossless: 0.20,
    JPEG2000Lossless: 0.14,
    JPEGLosslessSV1: 0.10,
    RLELossless: 0.06,
    DeflatedExplicitVRLittleEndian: 0.04,
}
# RLE by gdcm: pydicom's own encoder is written in Python and ten times slower.
_ENCODERS = {JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg", RLELossless: "gdcm"}
_DISPLAYS = {"window": 0.62, "lut": 0.24, "none": 0.14}


def uid(*parts: object) -> UID:
    """Return a DICOM UID that depends only on `parts`."""
    digest = hashlib.sha256("/".join(map(str, ("edgecxr phantom", *parts))).encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def encode(film: PhantomFilm, seed: int) -> bytes:
    """Return a complete DICOM file.

    The same film and seed give the same bytes.

    Args:
        film: a film made by `edgecxr.phantom.film.render`.
        seed: seed of the data set.
    """
    index = film.plan.index
    rng = stream(seed, index, 6)
    dataset = _identity(film, seed)
    bits = int(rng.choice([12, 14, 16], p=[0.5, 0.3, 0.2]))
    inverse = bool(rng.random() < 0.3)
    display = str(rng.choice(list(_DISPLAYS), p=list(_DISPLAYS.values())))
    syntax = list(_SYNTAXES)[int(rng.choice(len(_SYNTAXES), p=list(_SYNTAXES.values())))]

    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverse else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if inverse else "IDENTITY"
    dataset.PixelIntensityRelationship = "LOG"
    dataset.PixelIntensityRelationshipSign = 1 if inverse else -1
    dataset.Rows, dataset.Columns = film.pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    shown = 1 - film.pixels if inverse else film.pixels
    stored = _stored(dataset, shown, bits, display, rng)
    return file_of(dataset, stored, syntax)


def _stored(
    dataset: Dataset, shown: NDArray[np.float32], bits: int, display: str, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """Return stored values, and write the VOI LUT attributes into `dataset`.

    They map the stored values to `shown`.
    """
    top = (1 << bits) - 1
    low, high = int(top * rng.uniform(0, 0.2)), int(top * rng.uniform(0.75, 1))
    span = high - low
    gamma = rng.uniform(0.75, 1.35)
    if display == "window":
        # PS3.3 C.11.2.1.2: `low` becomes black and `high` white.
        dataset.WindowCenter, dataset.WindowWidth = (low + high + 1) / 2, span + 1
        dataset.VOILUTFunction = "LINEAR"
    elif display == "lut":
        high = low + min(span, 16383)  # a longer LUT would be larger than the film
        span = high - low
        shown = shown ** np.float32(gamma)
        item = Dataset()
        curve = np.linspace(0, 1, span + 1) ** (1 / gamma)
        item.LUTDescriptor = [span + 1, low, 16]
        item["LUTDescriptor"].VR = "US"
        item.LUTData = np.rint(curve * 65535).astype("<u2").tobytes()
        item["LUTData"].VR = "OW"
        item.LUTExplanation = "NORMAL"
        dataset.VOILUTSequence = [item]
    return np.rint(low + shown * span).astype(np.uint16)


def file_of(dataset: Dataset, stored: NDArray[np.uint16], syntax: UID) -> bytes:
    """Return the DICOM file of a data set and its pixels.

    The data set is changed.

    Args:
        dataset: everything but the pixels.
        stored: the stored values.
        syntax: transfer syntax of the file.
    """
    dataset.PixelData = stored.astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
    if syntax == JPEGLosslessSV1:
        dataset.PixelData = encapsulate([_jpeg_lossless(dataset)])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax
    elif syntax.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.compress(syntax, encoding_plugin=_ENCODERS[syntax], generate_instance_uid=False)
    else:
        dataset.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _jpeg_lossless(dataset: Dataset) -> bytes:
    """Return the pixels as a JPEG lossless stream.

    This is process 14, selection value 1, for which pydicom has no encoder.
    """
    # GDCM counts references: a separate image would be freed twice, and a temporary one too early.
    writer = gdcm.ImageWriter()
    image = writer.GetImage()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, dataset.BitsStored, dataset.HighBit, 0))
    photometric = gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(dataset.PixelData)
    image.SetDataElement(element)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(image)
    if not change.Change():
        raise RuntimeError("GDCM could not encode a phantom as JPEG lossless")
    encoded = change.GetOutput()
    fragments = encoded.GetDataElement().GetSequenceOfFragments()
    if fragments is None or fragments.GetNumberOfFragments() != 1:
        raise RuntimeError("GDCM did not encode a phantom as one JPEG lossless fragment")
    data: bytes = fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")
    return data


def _identity(film: PhantomFilm, seed: int) -> Dataset:
    """Return all DICOM attributes that do not describe the pixels.

    Nothing depends on the clock.
    """
    plan, shot, anatomy = film.plan, film.plan.exposure, film.plan.anatomy
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.ImplementationClassUID = uid("implementation")
    dataset.file_meta.ImplementationVersionName = "EDGECXR_PHANTOM"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = uid(seed, plan.index, "image")
    dataset.StudyInstanceUID = uid(seed, plan.index, "study")
    dataset.SeriesInstanceUID = uid(seed, plan.index, "series")
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID = ""
    dataset.Modality = "DX"
    dataset.Manufacturer = "edgecxr phantom"
    dataset.StudyDescription = "Synthetic phantom, no patient"
    dataset.PatientName = f"PHANTOM^{plan.patient:04d}"
    dataset.PatientID = f"PHANTOM-{seed}-{plan.patient:05d}"
    dataset.PatientBirthDate = ""
    dataset.PatientSex = "M" if anatomy.male else "F"
    dataset.PatientAge = f"{anatomy.age:03d}Y"
    dataset.BodyPartExamined = "CHEST"
    dataset.AnatomicRegionSequence = [_code(codes.SCT.Chest)]
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.ImageComments = "Synthetic phantom made by edgecxr; it shows no patient"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ImageLaterality = "U"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ViewPosition = shot.view
    view = _code(codes.SCT.PosteroAnterior if shot.view == "PA" else codes.SCT.AnteroPosterior)
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.DetectorType = ""
    dataset.ImagerPixelSpacing = [round(10 * shot.spacing, 4)] * 2
    dataset.BurnedInAnnotation = "NO"  # the markers do not identify a patient
    dataset.LossyImageCompression = "00"
    dataset.AcquisitionContextSequence = []
    return dataset


def _code(code: object) -> Dataset:
    item = Dataset()
    item.CodeValue = getattr(code, "value", "")
    item.CodingSchemeDesignator = getattr(code, "scheme_designator", "")
    item.CodeMeaning = getattr(code, "meaning", "")
    return item

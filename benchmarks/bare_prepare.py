"""What `edgecxr prepare` is held against: the same work, as one would write it for films without errors.

    python benchmarks/bare_prepare.py FOLDER OUT.npy

It reads each film with pydicom, decodes it by the plug-in that edgecxr uses, applies the window, shrinks it to 224 px
by Pillow's area filter and stacks the images into one array. No table, journal, rejection or process of its own.
"""

import sys
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import JPEG2000TransferSyntaxes

folder, out = sys.argv[1:]
images = []
for film in sorted(Path(folder).glob("*.dcm")):
    dataset = pydicom.dcmread(film)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_compressed:
        dataset.pixel_array_options(decoding_plugin="pylibjpeg" if syntax in JPEG2000TransferSyntaxes else "gdcm")
    pixels = dataset.pixel_array.astype(np.float32)
    low = float(dataset.WindowCenter) - float(dataset.WindowWidth) / 2
    pixels -= low
    pixels *= 255 / float(dataset.WindowWidth)
    np.clip(pixels, 0, 255, out=pixels)
    small = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BOX)
    images.append(np.rint(np.asarray(small)).astype(np.uint8))
np.save(out, np.stack(images))

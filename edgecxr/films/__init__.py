"""Read DICOM files and pictures into the pixels that models see.

Training and the device use the same code.
"""

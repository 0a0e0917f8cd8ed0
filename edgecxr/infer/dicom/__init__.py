"""Predictions as DICOM objects: a structured report and a picture."""

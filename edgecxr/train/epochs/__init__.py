"""Epochs of a run: their end, average weights, validation and reports."""

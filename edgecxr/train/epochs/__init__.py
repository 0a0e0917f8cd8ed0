"""Epochs of a run: when they end, their average weights, validation and reports."""

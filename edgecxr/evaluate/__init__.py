"""Evaluation of models: scores, calibration, comparisons, sizes, attention."""

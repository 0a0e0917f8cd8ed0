"""Measuring what a model is worth; no torch."""

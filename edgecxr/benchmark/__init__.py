"""Benchmarks of all models on all engines of a device.

They measure AUROC, latency, memory and energy, and keep the results in records.
"""

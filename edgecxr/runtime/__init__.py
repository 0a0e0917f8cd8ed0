"""The device: a radiograph in, a prediction out; no torch."""

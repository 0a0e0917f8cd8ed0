"""Inference engines behind one interface: images in, outputs out."""

"""Inference engines behind one interface: tensors in, tensors out.

They do not depend on anything specific to X-rays.
"""

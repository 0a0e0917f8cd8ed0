"""TensorRT 8.5 to 11 and TensorRT-RTX: building and running engines.

Engines are built on the machine that runs them.
"""

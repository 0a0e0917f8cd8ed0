"""TensorRT 8.5 to 11 and TensorRT-RTX: built where they run, and run through whatever buffers there are."""

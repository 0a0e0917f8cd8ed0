"""What runs a model, whatever the engine: tensors in, tensors out, nothing of X-rays."""

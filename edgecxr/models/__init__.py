"""The torch models."""

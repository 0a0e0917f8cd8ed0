"""Synthetic chest X-rays, for trying everything without data."""

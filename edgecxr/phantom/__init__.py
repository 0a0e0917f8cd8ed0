"""Synthetic chest X-rays, so that the whole path can be tried without data."""

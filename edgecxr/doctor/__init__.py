"""Checks of what this machine can do and what is missing."""

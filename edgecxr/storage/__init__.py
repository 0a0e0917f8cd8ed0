"""Atomic storage on disk, for one writing process at a time."""

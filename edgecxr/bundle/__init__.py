"""Deployable models: cards, files, quality gates and engine records."""

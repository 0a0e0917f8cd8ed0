"""Processes that work for this one and survive each other's crashes."""

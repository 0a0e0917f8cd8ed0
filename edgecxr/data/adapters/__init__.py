"""Adapters that open data sets, one function for each.

Each turns a path and options into a `Dataset`, which `prepare` reads.
"""

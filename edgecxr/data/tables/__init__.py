"""Parsers for the tables of data sets: cells, labels, splits, boxes, readers."""

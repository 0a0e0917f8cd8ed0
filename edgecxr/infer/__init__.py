"""Predict from films, and write results for people, programs and PACS."""

"""A node beside the PACS: it receives films, and files their results.

Its processes share a folder and a database, and nothing else. Each may be killed at any moment. This wing alone imports
pynetdicom.
"""

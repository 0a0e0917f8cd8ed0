"""Facts about this machine, not formatted for display.

Files are read below a root that tests replace.
"""

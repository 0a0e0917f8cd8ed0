"""edgecxr: chest X-ray models for small devices. Research use only, not a medical device."""

__version__ = "0.1.0.dev0"

NOTICE = "Research use only. Not a medical device; not for diagnosis."
"""Goes with every output that a person or a program could take for a finding."""

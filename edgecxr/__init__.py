"""edgecxr: chest X-ray models for small devices. Research use only, not a medical device."""

__version__ = "0.1.0.dev0"

"""Facts about this machine. Files are read under a root that tests replace; nothing here is for display."""

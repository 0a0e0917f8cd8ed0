"""A node with its own modality and archive, to look at."""

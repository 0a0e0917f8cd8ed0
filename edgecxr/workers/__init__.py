"""Worker processes, each isolated from the crashes of the others."""

"""From a checkpoint to the files that a device runs."""

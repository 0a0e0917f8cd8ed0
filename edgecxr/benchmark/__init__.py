"""Every model on every engine of this device: AUROC, latency, memory, energy, and the records of it."""

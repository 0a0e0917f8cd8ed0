"""Ways in from the network: listeners, and the bounds that strangers meet."""

"""TLS of a node: its certificates, and an authority of its own."""

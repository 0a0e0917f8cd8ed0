"""Codestreams of films: decoding, and checks that nothing of one is lost."""

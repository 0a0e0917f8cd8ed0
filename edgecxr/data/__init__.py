"""Data sets, and the array of 224 px images that training reads; no torch."""

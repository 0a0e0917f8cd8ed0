"""Data sets, and the arrays of 224 px images that training reads.

Nothing here imports torch.
"""

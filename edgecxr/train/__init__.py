"""Training of teachers and students."""

import os

from edgecxr.launcher import place

# Before Lightning is imported, which raises errors of its own over variables of launchers that make no sense.
place()

# OpenMP's threads spin at the end of each parallel loop, in case another begins at once. Beside other programs they so
# keep each other from the cores. OpenMP reads this when torch is imported, before which this package is.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # GNU's, in rounds
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # LLVM's and Intel's, in milliseconds

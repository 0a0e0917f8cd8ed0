"""How well a model reads a data set: scores with intervals, calibration, comparisons, sizes, attention."""

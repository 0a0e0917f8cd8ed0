"""One function for each data set: a path and options -> what `prepare` reads."""

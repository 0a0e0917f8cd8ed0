"""Decode a data set's films into the workspace, resumably."""

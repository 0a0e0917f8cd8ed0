"""Models of others, measured in the same run as edgecxr's own."""

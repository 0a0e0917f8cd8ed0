"""`edgecxr doctor`: what this machine can do, what is missing, and the command that brings it."""

"""Ways out: results go to their destinations."""

"""Storage commitment: destinations say that they keep what they were sent."""

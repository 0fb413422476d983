"""What to run, in which order, and what it will take on this machine or another."""

"""What is kept of the teacher at a position: the first axis, one file for each family of targets."""

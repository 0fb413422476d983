"""The networks, and the checkpoints of their weights."""

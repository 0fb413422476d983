"""What a run takes, counted before it runs: FLOPs, bytes, and the error that a byte buys."""

"""Text and conversations as shuffled rows of tokens, with their fingerprints."""

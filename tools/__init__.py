"""What the Makefile calls to keep the environment; nothing of the suite imports it."""

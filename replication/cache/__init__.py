"""Sparse targets on disk: coded, written by several jobs at once, verified, mended, read."""

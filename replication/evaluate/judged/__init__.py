"""Answers to instructions, and a judge's ratings of them."""

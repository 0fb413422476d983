"""Tasks at hand: questions that any machine makes itself, from the documents that its corpus holds out.

Each has a counterpart among the papers' tasks (`experiment/suites.py`) and is run by the same harness. Items follow
from the documents alone, character by character: no tokenizer, no seed of a run, no version of Python changes one.
"""

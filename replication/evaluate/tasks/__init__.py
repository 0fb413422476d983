"""Downstream tasks: their data, their releases, the harness's tasks on them."""

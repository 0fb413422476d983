"""Notes: what a user should know of a run and need not act on, said once, beside any progress bar."""

from __future__ import annotations

import sys
from functools import cache

from tqdm import tqdm


@cache
def note(line: str) -> None:
    tqdm.write(f"note: {line}", file=sys.stderr)

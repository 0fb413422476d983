"""Notes: what a user should know of a run and need not act on, said once, by one process, beside any progress bar."""

from __future__ import annotations

import os
import sys
from functools import cache

from tqdm import tqdm


@cache
def note(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        tqdm.write(f"note: {line}", file=sys.stderr)

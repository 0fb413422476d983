"""What every test stands on: one thread, no network, no window. Set before torch is imported, inherited by children."""

from __future__ import annotations

import os

# One thread: sums come out in one order, and pytest's workers do not fight for the cores.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

"""Random streams, named by purpose: no two purposes share one."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch


def seed_for(seed: int, *purpose: Any) -> int:
    """A seed for one purpose ("init", "draw", 17, ...), so that no two purposes share a random stream."""
    text = json.dumps([seed, *purpose])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: Any) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, *purpose))

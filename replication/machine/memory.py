"""Memory: room for large results that a step finds again, and the most that a process has held."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import resource
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

LARGE = 2**23  # bytes; malloc gives so much back to the system, and takes fresh pages the next time
# free memory of earlier large results, the oldest first: logits of student and teacher, the head's gradient, that of
# the step before where gradients are accumulated, and the probabilities of a draw
LEFT: deque[mmap.mmap] = deque(maxlen=6)


def forget_peak_memory() -> None:
    """So that the next peak is that of what comes now; on a CPU where the system can: Linux does."""
    forgetting = Path("/proc/self/clear_refs")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif forgetting.exists():
        forgetting.write_text("5")


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def peak_growth(act: Callable[[], object]) -> int | None:
    """Bytes that `act` takes at most, beyond what is held before it; None where no system tells (Linux does).

    What earlier work has let go is given back first: memory that stands there already would not be seen to grow.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        act()
        return torch.cuda.max_memory_allocated() - before
    if (held := resident_memory()) is None:
        return None
    forget_peak_memory()
    act()
    return max(0, peak_memory() - held)  # pages are counted in batches


def resident_memory() -> int | None:
    """Bytes of the process in memory, once free ones are given back; None where no system tells."""
    held = Path("/proc/self/statm")
    if not held.exists():
        return None
    LEFT.clear()
    with suppress(AttributeError):  # of another C library
        ctypes.CDLL(None).malloc_trim(0)
    return int(held.read_text().split()[1]) * mmap.PAGESIZE


def total_memory() -> int:
    """Bytes that there are: of the GPU where there is one, else of the machine, or of what a container gets of it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    given = limit.read_text().strip() if limit.exists() else "max"
    return min(there, int(given)) if given.isdigit() else there


def spacious(shape: tuple[int, ...] | torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for large results, not initialised. A step finds again what the step before has let go.

    To have it from the system every time can cost as much as the step: a page that is touched for the first time is
    cleared, and on a virtual machine its host may have to find it first.
    """
    numbers = torch.Size(shape).numel()
    size = numbers * dtype.itemsize
    if device.type != "cpu" or size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(shape, dtype=dtype, device=device)
    memory = left(size) or huge_pages(size)
    # lives as long as the tensor's storage does, and takes note of its end
    holder = np.frombuffer(memory, np.uint8)
    weakref.finalize(holder, LEFT.append, memory).atexit = False
    return torch.from_numpy(holder).view(dtype).view(shape)


def left(size: int) -> mmap.mmap | None:
    """Free memory of exactly `size` bytes, which is the caller's from then on; None where there is none."""
    # every step of this is atomic: the end of a tensor, in this thread or another, may come between any two
    with suppress(IndexError):
        for _ in range(len(LEFT)):
            memory = LEFT.popleft()
            if len(memory) == size:
                return memory
            LEFT.append(memory)
    return None


def huge_pages(size: int) -> mmap.mmap:
    """`size` bytes from the system, in huge pages where it has them."""
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel built without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory

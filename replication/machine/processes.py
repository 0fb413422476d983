"""Several processes at one run: each takes its share of every batch. torchrun starts them; alone, nothing changes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

# the others wait while the first caches, evaluates or saves
PATIENCE = timedelta(hours=6)


@dataclass(frozen=True)
class World:
    """This process's place among those of the run."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, indices_B: np.ndarray) -> np.ndarray:
        """This process's part of a batch; all parts are of one size, so that the mean of their means is the batch's."""
        if len(indices_B) % self.size:
            raise ValueError(
                f"A batch of {len(indices_B)} sequences cannot be shared by {self.size} processes; "
                "start a number of them that divides it."
            )
        return np.split(indices_B, self.size)[self.rank]

    def mean(self, value: Tensor) -> Tensor:
        """Over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
            value /= self.size
        return value

    def wait(self) -> None:
        """For all the others."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process does it, the others after it find it done."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()


def join(device: torch.device) -> World:
    """The world that torchrun has announced in the environment; a world of one without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return World(dist.get_rank(), size)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def replicated(student: nn.Module, world: World, device: torch.device) -> nn.Module:
    """Every process holds all weights; gradients are averaged over the world."""
    if world.size == 1:
        return student
    return DistributedDataParallel(student, device_ids=[device] if device.type == "cuda" else None)


def sharded(student: nn.Module, layers: nn.ModuleList, world: World) -> nn.Module:
    """Every process holds a shard of the weights, gradients and moments (FSDP2); a layer is whole while it is used."""
    if world.size == 1:
        return student
    for layer in layers:
        fully_shard(layer)
    fully_shard(student)
    return student


def synchronised(student: nn.Module, last: bool) -> AbstractContextManager[object]:
    """Gradients of a step's parts are averaged over the world once, with the last part's."""
    if isinstance(student, FSDPModule):
        student.set_requires_gradient_sync(last)
    if isinstance(student, DistributedDataParallel) and not last:
        return student.no_sync()
    return nullcontext()


def whole(value: Tensor) -> Tensor:
    """The value of what may be spread over the world."""
    return value.full_tensor() if isinstance(value, DTensor) else value

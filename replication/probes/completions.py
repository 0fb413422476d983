"""Completions: what an oracle writes after prefixes of held-out rows, kept on disk: every student reads the same.

A row holds L + 1 tokens: token 0 stands for the start of a sequence, tokens 1 to L are SALT's x_1 to x_T.
A prefix of s tokens is tokens 0 to s. Axis P: prefixes; N: completions of one prefix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer

from replication.data.packing import Packing
from replication.machine.device import Machine
from replication.machine.files import replacing
from replication.model.decoder import fingerprint, to_width
from replication.seeds import generator
from replication.training.writing import ROOM, bytes_per_row, chosen


@dataclass(frozen=True)
class Completions:
    """`count` completions to `length` tokens of each prefix of a packing's rows, a file per row."""

    packing: Packing
    prefixes: tuple[int, ...]
    length: int
    count: int
    seed: int

    def folder(self, oracle: PreTrainedModel, machine: Machine, scale: str) -> Path:
        """Named after all that decides what is written: another oracle never shares a folder."""
        words = [fingerprint(oracle), self.packing.fingerprint, self.prefixes, self.length, self.count, self.seed]
        name = hashlib.sha256(json.dumps(words).encode()).hexdigest()[:16]
        return machine.artifacts / scale / "completions" / f"s{self.seed}-{name}"

    def write(self, rows_S: Sequence[int], oracle: PreTrainedModel, folder: Path, machine: Machine) -> None:
        """Sample what is not there yet, in the order given. A process beside this one takes part from its own end."""
        folder.mkdir(parents=True, exist_ok=True)
        at_once = max(1, ROOM[machine.device.type] // (self.count * bytes_per_row(oracle, self.length)))
        progress = tqdm(total=len(rows_S), desc="completing", unit="row", mininterval=2.0)
        while missing := [row for row in rows_S if not place(folder, row).exists()]:
            progress.update(len(rows_S) - len(missing) - progress.n)
            batch = missing[:at_once]
            for row, tokens_PNL in zip(batch, self.sample(batch, oracle, machine), strict=True):
                with replacing(place(folder, row)) as file:
                    np.save(file, tokens_PNL.cpu().numpy().astype(np.uint32))
        progress.update(len(rows_S) - progress.n)
        progress.close()

    def read(self, folder: Path, row: int) -> Tensor:
        """[P, N, L + 1] int64: the row's prefix and its completions."""
        return torch.from_numpy(np.load(place(folder, row)).astype(np.int64))

    def sample(self, batch: Sequence[int], oracle: PreTrainedModel, machine: Machine) -> Tensor:
        """[B, P, N, L + 1]; each row and prefix has a random stream of its own, so no batch decides a completion."""
        tokens_BL = torch.from_numpy(self.packing.rows(list(batch))[:, : self.length + 1]).to(machine.device)
        parts = []
        for prefix in self.prefixes:
            shape = (self.count, self.length - prefix)
            streams = [generator(self.seed, "completion", row, prefix) for row in batch]
            chances = [torch.rand(shape, generator=stream, dtype=torch.float64) for stream in streams]
            parts.append((prefix, torch.stack(chances).to(machine.device)))
        return completed(oracle, tokens_BL, parts, self.packing.vocabulary)


def place(folder: Path, row: int) -> Path:
    return folder / f"{row}.npy"


@torch.inference_mode()
def completed(
    oracle: PreTrainedModel, tokens_BL: Tensor, chances: Sequence[tuple[int, Tensor]], vocabulary: int
) -> Tensor:
    """The rows completed beyond each prefix, [B, P, N, L + 1].

    tokens_BL: [B, L + 1]. chances: prefix s and [B, N, L - s] uniform numbers in [0, 1), one for each token drawn.
    The oracle reads a row once; its keys and values up to a prefix serve all completions of that prefix.
    """
    length = tokens_BL.shape[1] - 1
    name = oracle.name_or_path or type(oracle).__name__
    reading = oracle(input_ids=tokens_BL[:, :-1], use_cache=True)
    found = []
    for prefix, chance_BNL in chances:
        count = chance_BNL.shape[1]
        chance_ML = chance_BNL.flatten(0, 1)  # M = B * N
        written_ML = tokens_BL.repeat_interleave(count, 0)
        if prefix < length:
            read = reading.past_key_values.layers
            cache = Cache(layers=[Buffer(layer.keys, layer.values, prefix + 1, length, count) for layer in read])
            logits_MV = reading.logits[:, prefix].repeat_interleave(count, 0)
        for position in range(prefix + 1, length + 1):
            drawn_M = chosen(to_width(logits_MV, vocabulary, name), chance_ML[:, position - prefix - 1])
            written_ML[:, position] = drawn_M
            if position < length:
                logits_MV = oracle(input_ids=drawn_M[:, None], past_key_values=cache, use_cache=True).logits[:, -1]
        found.append(written_ML.unflatten(0, (-1, count)))
    return torch.stack(found, 1)


class Buffer(DynamicLayer):
    """A layer's keys and values with room for the whole row: the dynamic one copies all it holds at every token."""

    def __init__(self, keys: Tensor, values: Tensor, read: int, room: int, count: int) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.all_keys, self.all_values = (
            part.new_empty(part.shape[0] * count, part.shape[1], room, part.shape[3]) for part in (keys, values)
        )
        self.keys, self.values = self.all_keys[:, :, :0], self.all_values[:, :, :0]
        self.update(*(part[:, :, :read].repeat_interleave(count, 0) for part in (keys, values)))

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        self.all_keys[:, :, begin:end] = key_states
        self.all_values[:, :, begin:end] = value_states
        self.keys, self.values = self.all_keys[:, :, :end], self.all_values[:, :, :end]
        return self.keys, self.values

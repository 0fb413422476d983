"""Supervised fine-tuning: what it changed, on the responses of held-out conversations."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from replication.machine import Machine
from replication.model import logits_of
from replication.run import Data
from replication.target import precise


@torch.no_grad()
def response_loss(student: PreTrainedModel, data: Data, sequences: int, machine: Machine) -> dict[str, float]:
    """`response_loss`, nats per token of the responses in the first `sequences` held-out rows (all of them if there
    are fewer); nothing where nobody is tuned."""
    held_out = data.held_out
    if held_out is None:
        return {}
    student.eval()
    nats, count = 0.0, 0
    for row in range(min(sequences, len(held_out))):
        tokens_1L = torch.from_numpy(held_out.rows([row])).to(machine.device)
        said_L = torch.from_numpy(held_out.responses([row])[0]).to(machine.device)
        with machine.precision():
            logits_LV = logits_of(student, tokens_1L[:, :-1], data.tokenizer.vocabulary)[0]
        nats += float(cross_entropy(precise(logits_LV[said_L]), tokens_1L[0, 1:][said_L], reduction="sum"))
        count += int(said_L.sum())
    return {"response_loss": nats / count}

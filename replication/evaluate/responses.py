"""The loss on the responses of held-out conversations: what fine-tuning changed."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from replication.axes.targets.base import precise
from replication.data.packed_conversations import Conversations
from replication.machine.device import Machine
from replication.model.decoder import logits_of


@torch.no_grad()
def response_loss(
    student: PreTrainedModel, held_out: Conversations | None, sequences: int, vocabulary: int, machine: Machine
) -> dict[str, float]:
    """`response_loss`, nats per token of the responses in the first `sequences` held-out rows (all of them if there
    are fewer); nothing where nobody is tuned."""
    if held_out is None:
        return {}
    student.eval()
    nats, count = 0.0, 0
    for row in range(min(sequences, len(held_out))):
        tokens_1L = torch.from_numpy(held_out.rows([row])).to(machine.device)
        said_L = torch.from_numpy(held_out.responses([row])[0]).to(machine.device)
        with machine.precision():
            logits_LV = logits_of(student, tokens_1L[:, :-1], vocabulary)[0]
        nats += float(cross_entropy(precise(logits_LV[said_L]), tokens_1L[0, 1:][said_L], reduction="sum"))
        count += int(said_L.sum())
    return {"response_loss": nats / count}

"""Stand-ins for a text, a teacher and a cache of its draws: a step takes as long with them as with real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tokenizers
import torch
from torch import Tensor
from transformers import PreTrainedModel

from replication.axes.targets.base import SparseTarget, Target
from replication.cache.manifest import Header
from replication.cache.manifest import Target as TargetEntry
from replication.cache.reader import Reader
from replication.cache.writer import Writer
from replication.data.packing import Packing
from replication.data.tokenizer import Tokenizer
from replication.experiment.identity import plain
from replication.experiment.run import Run
from replication.machine.device import Machine
from replication.model.decoder import build
from replication.seeds import generator, seed_for
from replication.training.run_data import Data
from replication.training.supervision import drawn
from replication.training.teacher_pass import put

DRAWS, CLASSES = 50, 12  # RS-KD App. C: what a pre-trained teacher's draws find


def random_text(run: Run, rows: int) -> Data:
    """Rows of random tokens, of as many classes as the run's tokenizer has."""
    classes, tokens = run.scale.classes, rows * run.length + 1
    stream = np.random.default_rng(seed_for(run.seed, "random text"))
    packing = Packing(
        split="train",
        fingerprint="random",
        length=run.length,
        vocabulary=classes,
        source="random",
        tokens_T=stream.integers(classes, size=tokens, dtype=np.uint16 if classes <= 1 << 16 else np.uint32),
        documents_D=np.zeros(1, np.int64),
        begins_D=np.zeros(1, np.int64),
        starts_D=np.zeros(1, np.int64),
        tokens=tokens,
        order_R=np.arange(rows),
    )
    words = tokenizers.models.WordLevel({str(number): number for number in range(classes)}, unk_token="0")
    tokenizer = Tokenizer(tokenizers.Tokenizer(words), end_of_text=0)
    return Data({"name": "random tokens", "fingerprint": "random"}, tokenizer, packing, packing, repack=None)


def untrained(role: str, run: Run, machine: Machine) -> PreTrainedModel:
    """A model of this role before its first step: as a teacher it takes as long as after its last."""
    seed = seed_for(0, "init") % 2**63
    return build(run.scale.role(role), run.scale.classes, run.length, 0, seed).to(machine.device).eval()


@torch.no_grad()
def cache_of(target: Target, data: Data, run: Run, folder: Path, machine: Machine) -> Reader:
    """What the suite draws for every row of the text from a teacher that follows Zipf's law, whatever it reads."""
    packing, header = data.train, header_of(target, data, run)
    zipf_V = zipf(packing.vocabulary).to(machine.device)
    classes_V = torch.arange(packing.vocabulary, device=machine.device)
    with Writer(folder, header, len(packing)) as writer:
        for row in range(len(packing)):
            # another class comes first at each position
            first_L = torch.randint(packing.vocabulary, (packing.length,), generator=generator(run.seed, "first", row))
            logits_LV = zipf_V[(classes_V - first_L.to(machine.device)[:, None]) % packing.vocabulary]
            labels_BL = torch.from_numpy(packing.rows([row])[:, 1:]).to(machine.device)
            kept = drawn(target, logits_LV[None], labels_BL, np.array([row]), run.seed)
            assert isinstance(kept, SparseTarget)
            put(writer, row, target, kept, packing.length)
    return Reader(folder)


def header_of(target: Target, data: Data, run: Run) -> Header:
    packing, stored = data.train, plain(target)
    return Header(
        teacher="Zipf",
        tokenizer=data.tokenizer.fingerprint,
        packing=packing.fingerprint,
        target=TargetEntry(name=stored.pop("name"), fields=stored),
        seed=run.seed,
        vocabulary=packing.vocabulary,
        length=packing.length,
    )


def zipf(classes: int) -> Tensor:
    """[V] log-probabilities of the power law in which DRAWS draws find CLASSES different classes on average."""
    log_ranks_V = torch.arange(1, classes + 1, dtype=torch.float64).log()
    flat, steep = 0.0, 20.0
    for _ in range(60):
        exponent = (flat + steep) / 2
        log_probs_V = (-exponent * log_ranks_V).log_softmax(0)
        found = (1 - (1 - log_probs_V.exp()) ** DRAWS).sum()
        flat, steep = (exponent, steep) if found > CLASSES else (flat, exponent)
    return log_probs_V.float()

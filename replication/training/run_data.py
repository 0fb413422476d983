"""The text of a run as the model reads it, and the order in which it does."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from replication.data.chat import TEMPLATE
from replication.data.conversations import open_conversations
from replication.data.corpus import Corpus, open_corpus
from replication.data.packed_conversations import SPLITS, Conversations, pack_conversations
from replication.data.packing import Packing, pack, validation
from replication.data.tokenizer import Tokenizer
from replication.experiment.lineage import Instructed
from replication.experiment.run import Run, Scores
from replication.seeds import generator
from replication.training.reading import tokenizer_of


@dataclass(frozen=True)
class Data:
    """The text of a run, as the model reads it."""

    corpus: dict[str, Any]  # name and fingerprint, for the record
    tokenizer: Tokenizer
    train: Packing
    validation: Packing
    repack: Any  # (seed, length) -> Packing of the same documents
    conversations: Conversations | None = None  # of a student that is tuned
    held_out: Conversations | None = None
    scores: Scores | None = None  # of a run whose samples are chosen by scores
    source: Corpus | None = None  # the documents themselves

    @property
    def training_rows(self) -> Packing | Conversations:
        """What the training steps read."""
        return self.train if self.conversations is None else self.conversations


def order_of(run: Run, data: Data) -> np.ndarray:
    """The training rows in training order, once through; a longer budget goes through them again.

    Without those by which the student was pretrained. ValueError where they are all of them.
    """
    samples = run.recipe.training_recipe.samples
    scores_S = torch.full((len(data.training_rows),), torch.nan)
    if samples.score is not None:
        assert data.scores is not None, "what reads the rows of a run has its data scored first (training/scores.py)"
        scores_S = torch.from_numpy(data.scores.values_S)
    random = generator(run.seed, "samples")
    before = pretrained_on(run)
    if before is None or data.conversations is not None:
        return samples(scores_S, random).numpy()
    read = before.steps * before.role.optimiser.batch
    if read >= len(scores_S):
        raise ValueError(
            f"Pretraining {run.recipe.student!r} for {before.recipe.tokens} tokens reads all {len(scores_S):,} rows of "
            f"the text, and leaves none to distil it on: give initial = {{ name = 'Pretrained', tokens = ... }} fewer "
            f"than {len(scores_S) * run.length:,}."
        )
    left_S = np.setdiff1d(np.arange(len(scores_S)), order_of(before, data)[:read])
    return left_S[samples(scores_S[left_S], random).numpy()]


def pretrained_on(run: Run) -> Run | None:
    """The run that pretrained the student on this run's own text; None where there is none."""
    before = run.pretraining
    return before if before is not None and before.recipe.text == run.recipe.text else None


def data_for(run: Run, artifacts: Path) -> Data:
    if isinstance(run.recipe.tuning, Instructed) and run.recipe.probe == "train":  # its probes read none of it again
        return with_conversations(run, run.recipe.tuning, artifacts)
    corpus, folder = open_corpus(run.scale.corpus_of(run.recipe.text)), artifacts / "text"
    tokenizer = tokenizer_of(run, corpus, folder)
    return Data(
        corpus={"name": corpus.name, "fingerprint": corpus.fingerprint, **as_read(tokenizer)},
        tokenizer=tokenizer,
        train=pack(corpus, tokenizer, run.seed, run.length, folder),
        validation=validation(corpus, tokenizer, run.length, folder),
        repack=lambda seed, length: pack(corpus, tokenizer, seed, length, folder),
        source=corpus,
    )


def as_read(tokenizer: Tokenizer) -> dict[str, Any]:
    """For the record, where rows or documents begin with a token of the tokenizer's."""
    if tokenizer.begins == "none":
        return {}
    return {"begin": {tokenizer.begins: tokenizer.backend.id_to_token(tokenizer.before[0])}}


def with_conversations(run: Run, tuning: Instructed, artifacts: Path) -> Data:
    assert run.start is not None
    data = data_for(run.start, artifacts)
    found = open_conversations(run.scale.corpus_of(tuning.text))
    train, held_out = (
        pack_conversations(found, split, data.tokenizer, run.seed, run.length, artifacts / "text") for split in SPLITS
    )
    return replace(
        data,
        corpus={
            **data.corpus,
            "conversations": f"{found.name} ({found.fingerprint})",
            "count": train.count,
            "cut": train.cut,
            **({"skipped": found.skipped} if found.skipped else {}),
        },
        tokenizer=replace(data.tokenizer, chat_template=TEMPLATE),
        conversations=train,
        held_out=held_out,
    )

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
from replication.data.packing import Packing, pack, positions_in, validation
from replication.data.tokenizer import Tokenizer
from replication.experiment.lineage import Instructed, SameText
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
    talks: Corpus | None = None  # those conversations as they are written
    scores: Scores | None = None  # of a run whose samples are chosen by scores
    source: Corpus | None = None  # the documents themselves

    @property
    def training_rows(self) -> Packing | Conversations:
        """What the training steps read."""
        return self.train if self.conversations is None else self.conversations


def order_of(run: Run, data: Data) -> np.ndarray:
    """The training rows in training order, once through; a longer budget goes through them again.

    They are chosen in the pool. Where that is for a first stage only, the others of the pool follow. ValueError where a
    pool has too few.
    """
    samples = run.recipe.training_recipe.samples
    pool_P = pool_of(run, data)
    scores_P = torch.full((len(pool_P),), torch.nan)
    if samples.score is not None:
        assert data.scores is not None, "what reads the rows of a run has its data scored first (training/scores.py)"
        scores_P = torch.from_numpy(data.scores.values_P)
    kept_K = pool_P[samples(scores_P, run.stage, generator(run.seed, "samples")).numpy()]
    if samples.until == 1:
        return kept_K
    if len(kept_K) < run.stage:
        raise ValueError(
            f"The first stage reads {run.stage:,} sequences, and samples {type(samples).__name__} keeps "
            f"{len(kept_K):,} of {len(pool_P):,}: give a larger pool, or a shorter stage (samples.until)."
        )
    first_K = kept_K[: run.stage]
    return np.concatenate([first_K, np.setdiff1d(pool_P, first_K)])


def pool_of(run: Run, data: Data) -> np.ndarray:
    """The rows among which samples are chosen, ascending: without those by which the student was pretrained, and those
    that a model has read which was made to choose.

    ValueError where too few are left.
    """
    rows_S = np.arange(len(data.training_rows))
    if data.conversations is not None:
        return rows_S
    for before in readers_of(run):
        rows_S = np.setdiff1d(rows_S, read_by(before, run, data))
        if not len(rows_S):
            pretrains, whole = before == run.pretraining, len(data.train)
            said = "initial = { name = 'Pretrained', tokens = ... }" if pretrains else "samples by a model that reads"
            raise ValueError(
                f"{'Pretraining' if pretrains else 'Training'} {before.recipe.student!r} for {before.recipe.tokens} "
                f"tokens reads all {whole:,} rows of the text, and leaves none to distil it on: give {said} fewer "
                f"than {whole * run.length:,}."
            )
    word = run.recipe.training_recipe.samples.pool
    if not word:
        return rows_S
    wanted = run.scale.budget(word) // run.length
    if not 0 < wanted <= len(rows_S):
        raise ValueError(
            f"A pool of {word} tokens is {wanted:,} rows of {run.length:,}, and {len(rows_S):,} are there: give "
            "another pool, or none for all of them."
        )
    return rows_S[:wanted]


def readers_of(run: Run) -> list[Run]:
    """The runs whose training rows this one leaves out: of a part of its own text, made for it."""
    made = [pretrained_on(run), *(run.scorers.get(what) for what in ("early", "reference"))]
    return [each for each in made if isinstance(each, Run) and each.recipe.text == run.recipe.text]


def read_by(before: Run, run: Run, data: Data) -> np.ndarray:
    """The run's rows of which a run before has read a token as input."""
    theirs = data.train
    if (before.seed, before.length) != (run.seed, run.length):
        theirs = data.repack(before.seed, before.length)
    read_R = order_of(before, replace(data, train=theirs))[: before.steps * before.role.optimiser.batch]
    if theirs is data.train:
        return read_R
    places = positions_in(data.train, theirs, read_R)
    return np.unique(places[places >= 0] // run.length)


def pretrained_on(run: Run) -> Run | None:
    """The run that pretrained the student on this run's own text; None where there is none."""
    return run.pretraining if isinstance(run.recipe.background, SameText) else None


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
        talks=found,
    )

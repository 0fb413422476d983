"""Tokenizer: a byte-level BPE trained on the corpus, or one that exists.

bpe:4096                trained on the training documents, stored, reused for the same corpus and vocabulary
<name or folder>        any fast tokenizer that transformers' AutoTokenizer loads
<file>.json[.gz]        a tokenizer.json
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from replication.data import pretrained
from replication.data.corpus import Corpus, content_hash
from replication.data.text_files import first_line
from replication.machine.files import replace_text

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[SEP]")
SMALLEST = 257  # every byte, and the end of text
TRAINING_SAMPLE = 16_000_000  # bytes; all of the standard library, twice as much, saves under 1 % of tokens at 4096


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to ids and back. No special token is added, and one spelled out in a document is ordinary text."""

    backend: tokenizers.Tokenizer
    end_of_text: int
    chat_template: str | None = None  # for what talks to a tuned student; no id depends on it

    @cached_property
    def vocabulary(self) -> int:
        """Number of ids, special tokens included: one more than the largest."""
        return max(self.backend.get_vocab(with_added_tokens=True).values()) + 1

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over what decides the ids. A post-processor does not: it only adds special tokens."""
        stored = json.loads(self.backend.to_str())
        decisive = [stored[part] for part in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
        return hashlib.sha256(json.dumps([self.end_of_text, decisive]).encode()).hexdigest()[:16]

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """One int64 array per text, in parallel over texts, without an end of text."""
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: list[int] | np.ndarray) -> str:
        return str(self.backend.decode([int(token) for token in ids], skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write what `AutoTokenizer.from_pretrained(folder)` loads.

        Beside a config.json of type qwen2, transformers 5 takes Qwen2's own splits whatever these files say: with
        another tokenizer than Qwen2's, load it by `PreTrainedTokenizerFast.from_pretrained(folder)`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        end = self.backend.id_to_token(self.end_of_text)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end,
            "pad_token": end,
            "clean_up_tokenization_spaces": False,
        }
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def open_tokenizer(spec: str, corpus: Corpus, directory: Path) -> Tokenizer:
    """Raises ValueError, one line, for a spec that is none, a vocabulary below 257, and a tokenizer that cannot be
    loaded, has no fast version, or has no end-of-text token."""
    return byte_pairs(spec, corpus, directory) if spec.startswith("bpe:") else given_tokenizer(spec)


def given_tokenizer(spec: str) -> Tokenizer:
    """One that exists, whatever the text."""
    if spec.endswith((".json", ".json.gz")):
        backend = from_file(Path(spec).expanduser())
        ends = [token for token in KNOWN_ENDS if backend.token_to_id(token) is not None]
        return wrapped(backend, ends[0] if ends else None, spec)
    found = pretrained.loaded(spec)
    return wrapped(pretrained.fast(found, spec), pretrained.end_of(found, spec), spec)


def byte_pairs(spec: str, corpus: Corpus, directory: Path) -> Tokenizer:
    size = spec.removeprefix("bpe:")
    if not size.isdecimal() or int(size) < SMALLEST:
        raise ValueError(
            f"Tokenizer {spec!r}: the vocabulary must be a number of at least {SMALLEST}, as in 'bpe:4096'."
        )
    # the sample's size is in the name: a file trained on another sample is another tokenizer
    path = directory / f"bpe{int(size)}-{TRAINING_SAMPLE}-{corpus.fingerprint}.json"
    if not path.exists():
        replace_text(path, train(corpus, int(size)).to_str(pretty=True))
    try:
        backend = from_file(path)
    except ValueError as error:  # we wrote it
        raise ValueError(f"{error} Delete it; it is then trained again.") from None
    return wrapped(backend, END_OF_TEXT, spec)


def train(corpus: Corpus, size: int) -> tokenizers.Tokenizer:
    """Byte-level BPE of at most `size` tokens: a tiny corpus runs out of pairs before that."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[END_OF_TEXT],
        show_progress=True,
    )
    texts = training_sample(corpus.training_documents)
    backend.train_from_iterator(texts, trainer, length=len(texts))
    return backend


def training_sample(documents: list[str]) -> list[str]:
    """The documents of smallest hash, up to TRAINING_SAMPLE bytes; at least one."""
    chosen: list[str] = []
    total = 0
    for document in sorted(documents, key=content_hash):
        total += len(document.encode())
        if chosen and total > TRAINING_SAMPLE:
            break
        chosen.append(document)
    return chosen


def from_file(path: Path) -> tokenizers.Tokenizer:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return tokenizers.Tokenizer.from_str(raw.decode())
    except Exception as error:  # the library raises bare Exception for a file it cannot parse
        raise ValueError(f"Cannot read tokenizer {path}: {first_line(error)}. It must be a tokenizer.json.") from None


def wrapped(backend: tokenizers.Tokenizer, end: str | None, spec: str) -> Tokenizer:
    end_of_text = None if end is None else backend.token_to_id(end)
    if end_of_text is None:
        raise ValueError(
            f"Tokenizer {spec!r} names no end-of-text token. Use a tokenizer.json that has any of "
            f"{', '.join(KNOWN_ENDS)}, or a folder whose tokenizer_config.json names its eos_token."
        )
    # Stored settings of someone's batches would cut and pad our documents.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True  # a document that spells the end of text out does not end there
    return Tokenizer(backend, end_of_text)

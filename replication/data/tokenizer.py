"""Tokenizer: a byte-level BPE trained on the corpus, or one that exists.

bpe:4096                trained on the training documents, stored, reused for the same corpus and vocabulary
<name or folder>        any fast tokenizer that transformers' AutoTokenizer loads
<file>.json[.gz]        a tokenizer.json
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from replication.data import pretrained
from replication.data.corpus import Corpus, content_hash
from replication.data.text_files import first_line
from replication.machine.files import replace_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
KNOWN_ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[SEP]")
SMALLEST = 257  # every byte, and the end of text
TRAINING_SAMPLE = 16_000_000  # bytes; all of the standard library, twice as much, saves under 1 % of tokens at 4096
# what UTF-8 writes nothing with; decoded each is a replacement character
NEVER_IN_TEXT, REPLACED = (0xC0, 0xC1, *range(0xF5, 0x100)), "\ufffd"
# what families of tokenizers split in ways of their own
SAMPLE = "It's 1,234.5 naïve  words;\n\n\tif (x_1 >= 10): return ['don't', 漢字]\r\n"


@dataclass(frozen=True, eq=False)
class Tokenizer:
    """Text to ids and back. A special token spelled out in a document is ordinary text, unless `reads_special`."""

    backend: tokenizers.Tokenizer
    end_of_text: int
    chat_template: str | None = None  # for what talks to a tuned student; no id depends on it
    came: PreTrainedTokenizerBase | None = None  # from elsewhere, as it was loaded: what is published
    reads_special: bool = False
    begins: str = "none"  # where packing puts the token `before`: "none", at "rows" or at "documents"
    classes: int | None = None  # of the models, where they lack the last tokens, which no text has

    @cached_property
    def ids(self) -> dict[str, int]:
        return dict(self.backend.get_vocab(with_added_tokens=True))

    @cached_property
    def vocabulary(self) -> int:
        """Number of ids, special tokens included: one more than the largest; fewer only where models have fewer."""
        return max(self.ids.values()) + 1 if self.classes is None else self.classes

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits over what decides the ids of a text. A post-processor does not: it only adds special tokens."""
        stored = json.loads(self.backend.to_str())
        decisive = [stored[part] for part in ("added_tokens", "normalizer", "pre_tokenizer", "model")]
        how = ["special tokens are read"] if self.reads_special else []
        return hashlib.sha256(json.dumps([self.end_of_text, decisive, *how]).encode()).hexdigest()[:16]

    @cached_property
    def before(self) -> tuple[int, ...]:
        """What this tokenizer puts before every sequence of its own accord: mostly nothing, or one token, a <bos>."""
        bare, whole = (self.backend.encode("a", add_special_tokens=added).ids for added in (False, True))
        return tuple(whole[: whole.index(bare[0])]) if bare else ()

    @cached_property
    def added(self) -> dict[str, bool]:
        """The tokens that stand beside the model's own, and whether each is special."""
        return {str(each.content): bool(each.special) for each in self.backend.get_added_tokens_decoder().values()}

    @cached_property
    def unknown(self) -> str | None:
        """The token that stands for what the model cannot spell."""
        model = json.loads(self.backend.to_str())["model"]
        return model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else model.get("unk_token")

    @cached_property
    def sentinels(self) -> tuple[int, ...]:
        """Tokens that no text has, by which an objective marks what it took out (`axes/objectives.py`).

        They are those of the 13 bytes that UTF-8 never uses: a tokenizer over bytes has them, and no document does, so
        that no token has to be added. ValueError of one that has none.
        """
        spelled = (form for byte in NEVER_IN_TEXT for form in (chr(byte), f"<0x{byte:02X}>"))
        known = [self.ids[token] for token in spelled if token in self.ids]
        found = tuple(token for token in known if self.backend.decode([token]) == REPLACED)
        if not found:
            raise ValueError(
                "This tokenizer has no token of a byte that no text has, to stand for a span that was taken out: use "
                "one over bytes (bpe:2048, or that of GPT-2, Llama or Qwen), or an objective that takes out none."
            )
        return found

    def beyond(self, width: int) -> list[str]:
        """The tokens of its model that a model of `width` classes lacks, by id; those added beside it may be unused."""
        lacking = [token for token, place in self.ids.items() if place >= width and token not in self.added]
        return sorted(lacking, key=self.ids.__getitem__)

    def occurs(self, token: str, corpus: Corpus) -> bool:
        """Whether the token may occur in a row of this corpus. True where only tokenising would tell."""
        if token not in self.added or token == self.unknown or self.ids[token] in (self.end_of_text, *self.before):
            return True
        if self.added[token] and not self.reads_special:
            return False
        return any(token.casefold() in document.casefold() for document in corpus.documents)

    def read_as(self, begin: str, special: str) -> Tokenizer:
        """The same tokenizer, reading as a recipe's `begin` and `special` say.

        ValueError where `begin` wants a first token, and this tokenizer puts none, or several, before a text.
        """
        if begin == "auto":
            begin = "rows" if self.before else "none"
        if begin != "none" and len(self.before) != 1:
            tokens = ", ".join(repr(self.backend.id_to_token(token)) for token in self.before) or "no token"
            raise ValueError(
                f"begin {begin!r} wants one token, and the tokenizer puts {tokens} before a text: use begin 'none'."
            )
        if special == "text":
            return replace(self, begins=begin)
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        return replace(self, begins=begin, backend=backend, reads_special=True)

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        """One int64 array per text, in parallel over texts, without a first token or an end of text."""
        encodings = self.backend.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int64) for encoding in encodings]

    def decode(self, ids: list[int] | np.ndarray) -> str:
        return str(self.backend.decode([int(token) for token in ids], skip_special_tokens=False))

    def save(self, folder: Path) -> None:
        """Write what `AutoTokenizer.from_pretrained(folder)` loads: what came from elsewhere as it came.

        Beside a config.json of type qwen2, transformers 5 takes Qwen2's own splits whatever these files say: with
        another tokenizer than Qwen2's, load it by `PreTrainedTokenizerFast.from_pretrained(folder)`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self.came is not None:
            published = copy.deepcopy(self.came)
            if self.chat_template is not None:
                published.chat_template = self.chat_template
            published.save_pretrained(folder)
            return
        end = self.backend.id_to_token(self.end_of_text)
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end,
            "pad_token": end,
            "clean_up_tokenization_spaces": False,
        }
        if len(self.before) == 1:
            config["bos_token"] = self.backend.id_to_token(self.before[0])
        if self.chat_template is not None:
            config["chat_template"] = self.chat_template
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def comes_back(self, folder: Path) -> bool:
        """Whether AutoTokenizer reads as this one does, from where it was saved."""
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(folder)
        return bool(loaded(SAMPLE, add_special_tokens=False)["input_ids"] == self.encode_batch([SAMPLE])[0].tolist())


def differences(ours: Tokenizer, theirs: Tokenizer, corpus: Corpus) -> Iterator[str]:
    """Where two tokenizers mean different tokens by one id, the first ids first: "id 7 is 'ab' here and 'cd' there".

    A token that only one of them has, or that each has under another name, is no difference where no text has it: an
    added [PAD], a reserved token that somebody has named.
    """
    mine, its = ({place: token for token, place in each.ids.items()} for each in (ours, theirs))
    for place in sorted(mine.keys() | its.keys()):
        here, there = mine.get(place), its.get(place)
        if here == there:
            continue
        if (here is None or not ours.occurs(here, corpus)) and (there is None or not theirs.occurs(there, corpus)):
            continue
        words = [("no token" if token is None else repr(token)) for token in (here, there)]
        yield f"id {place} is {words[0]} here and {words[1]} there"


def fitted(tokenizer: Tokenizer, width: int, corpus: Corpus) -> Tokenizer:
    """The tokenizer over `width` classes, those of a model, which lacks nothing but tokens that no text has.

    ValueError for any other.
    """
    lacking = [token for token, place in tokenizer.ids.items() if place >= width]
    if used := [token for token in lacking if tokenizer.occurs(token, corpus)]:
        raise ValueError(
            f"A model of {width:,} output classes cannot predict token {used[0]!r}, id {tokenizer.ids[used[0]]:,}, "
            "which this text may have. Give its folder the tokenizer that it was trained with, or widen the model "
            "(resize_token_embeddings, then save_pretrained)."
        )
    return replace(tokenizer, classes=width) if lacking else tokenizer


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
    tokenizer = replace(wrapped(pretrained.fast(found, spec), pretrained.end_of(found, spec), spec), came=found)
    if not len(tokenizer.encode_batch([SAMPLE])[0]):  # transformers makes an empty one where it finds no vocabulary
        raise ValueError(
            f"Tokenizer {spec!r} has {len(tokenizer.ids):,} tokens, spells no text: its folder lacks its vocabulary. "
            "Add its tokenizer.json, or the vocab.json and merges.txt that it is made of."
        )
    return tokenizer


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

"""A tokenizer as transformers loads it, with the end of text wherever its folder names it."""

from __future__ import annotations

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tokenizers

from replication.data.text_files import first_line
from replication.machine.hub import located

# the one file of a slow tokenizer, and what reads it: SentencePiece's, or lines of base64 and a rank
SLOW, RANKS = "tokenizer.model", re.compile(rb"[A-Za-z0-9+/]+=* \d+\s")
# where a checkpoint may say by number which token ends a text, if its tokenizer does not
ENDS = ("generation_config.json", "config.json")
# of a file that need not be there
QUIET = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
KINDS = "Give 'bpe:<vocabulary>', a tokenizer.json, a folder, or a name on the Hugging Face hub"


def loaded(spec: str) -> Any:
    """The tokenizer of transformers. ValueError, one line, where it cannot be had."""
    from transformers import AutoTokenizer

    place = located(spec)
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # transformers and the hub raise many kinds; each is the user's to repair
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"Tokenizer {spec!r} is code of its own, which this suite does not run. Convert it to a tokenizer.json "
                "and give that file, or another model."
            ) from None
        if package := missing_package(place):
            raise ValueError(
                f"Tokenizer {spec!r} is a {SLOW}, which the package {package} reads; it is not installed. Install it "
                f"(pip install {package}), or give a tokenizer.json beside it."
            ) from None
        raise ValueError(f"Cannot load tokenizer {spec!r}: {first_line(error)}. {KINDS}.") from None


def missing_package(place: str) -> str:
    """The package that would read a slow tokenizer's only file, where it is not installed; "" elsewhere."""
    from transformers.utils import cached_file

    path = cached_file(place, SLOW, local_files_only=True, **QUIET)
    if path is None:
        return ""
    package = "tiktoken" if RANKS.match(Path(path).read_bytes()[:200]) else "sentencepiece"
    return "" if find_spec(package) else package


def fast(tokenizer: Any, spec: str) -> tokenizers.Tokenizer:
    """Its fast version, made of a slow one where transformers can. ValueError where it cannot."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        from transformers.convert_slow_tokenizer import convert_slow_tokenizer

        try:
            backend = convert_slow_tokenizer(tokenizer)
        except Exception as error:  # as many kinds as there are tokenizers
            raise ValueError(
                f"Tokenizer {spec!r} ({type(tokenizer).__name__}) has no fast version, and transformers makes none: "
                f"{first_line(error)}. Convert it to a tokenizer.json and give that file."
            ) from None
    return tokenizers.Tokenizer.from_str(backend.to_str())


def end_of(tokenizer: Any, spec: str) -> str | None:
    """The token that ends a text: the tokenizer's own, else that of the model's configuration, the first of several."""
    if tokenizer.eos_token is not None:
        return str(tokenizer.eos_token)
    for name in ENDS:
        stated = stated_in(located(spec), name).get("eos_token_id")
        number = stated[0] if isinstance(stated, list) and stated else stated
        token = tokenizer.convert_ids_to_tokens(number) if isinstance(number, int) else None
        if token is not None:
            return str(token)
    return None


def stated_in(place: str, name: str) -> dict[str, Any]:
    """A JSON file beside the tokenizer; nothing where there is none."""
    from transformers.utils import cached_file

    path = cached_file(place, name, **QUIET)
    return {} if path is None else dict(json.loads(Path(path).read_text()))


def specials(tokenizer: Any) -> str:
    """Its special tokens in words, and whether it sets one before a text by itself."""
    named = [f"{name.removesuffix('_token')} {word!r}" for name, word in tokenizer.special_tokens_map.items()
             if isinstance(word, str)]  # fmt: skip
    first = tokenizer("a").input_ids[:1]
    begins = tokenizer.bos_token_id is not None and first == [tokenizer.bos_token_id]
    return ", ".join(named or ["none"]) + (f"; a text begins with {tokenizer.bos_token!r}" if begins else "")

"""A GPU scale as a CPU rehearses it: its shapes and classes, few sequences, text and tokenizer that are at hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from replication.axes.targets.kept import OneHot
from replication.data.tokenizer import END_OF_TEXT
from replication.experiment.recipe import Recipe
from replication.experiment.run import Run
from replication.experiment.scale import Role, Scale, load_scale
from replication.machine.device import this_machine
from replication.machine.files import replace_text
from replication.training.run_data import data_for

STEPS, BATCH = 3, 2  # a checkpoint after the last step but one


def rehearsed(scale: Scale, path: Path, layers: dict[str, int], text: str, lengths: dict[str, int]) -> Scale:
    """As `write` puts it into `path`. `lengths` are those of the sequences that a budget's word is spent on."""
    tokens = {word: STEPS * BATCH * lengths.get(word, max(scale.lengths.values())) for word in scale.tokens}
    roles = {name: smaller(role, layers.get(name, role.layers)) for name, role in scale.roles.items()}
    sizes = {
        "name": path.stem, "about": f"scale {scale.name}, rehearsed", "corpus": text, "corpus_tokens": None,
        "texts": {}, "vocabulary": scale.classes, "tokenizer": str(path.with_name("tokenizer.json")), "roles": roles,
        "tokens": tokens, "evaluation_sequences": BATCH, "probe_sequences": 1, "timed_turns": 1, "log_every": 1,
        "evaluate_at": (0.4,), "checkpoint_every": STEPS - 1,
    }  # fmt: skip
    return scale.model_copy(update=sizes)


def smaller(role: Role, layers: int) -> Role:
    optimiser = role.optimiser.model_copy(update={"batch": BATCH})
    return role.model_copy(update={"layers": layers, "optimiser": optimiser})


def write(scale: Scale, path: Path) -> None:
    """The scale as a file, and beside it the tokenizer that it names."""
    replace_text(path, toml(scale.model_dump(mode="json", exclude_none=True, exclude={"name"})))
    replace_text(path.with_name("tokenizer.json"), tokenizer(scale.classes).to_str())


def toml(values: dict[str, Any], path: tuple[str, ...] = ()) -> str:
    """What tomllib reads back: JSON's strings, numbers and lists are TOML's."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    head = f"[{'.'.join(map(json.dumps, path))}]\n" if path else ""
    own = "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in values.items() if key not in tables)
    return head + own + "".join(toml(value, (*path, key)) for key, value in tables.items())


def tokenizer(classes: int) -> tokenizers.Tokenizer:
    """Of as many classes: every byte, the end of text, and words that no text has, in place of those of the hub."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, END_OF_TEXT, *(f"<|no text has {number}|>" for number in range(classes - len(alphabet) - 1))]
    made = tokenizers.Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=[]))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.add_special_tokens([END_OF_TEXT])
    return made


def main() -> None:
    """What every run of the scale in argv[1] begins with: the program itself, its tokenizer and text."""
    from transformers import LlamaForCausalLM

    run = Run(Recipe(teacher="none", target=OneHot()), load_scale(sys.argv[1]), seed=0)
    data = data_for(run, this_machine().artifacts)
    print(LlamaForCausalLM.__name__, len(data.train))


if __name__ == "__main__":
    main()

"""Outline: what is known of a model before its weights are read, from its configuration and its files' headers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PretrainedConfig

from replication.data.text_files import first_line
from replication.machine.hub import located
from replication.model.reach import reach_of

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
OTHER_KINDS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.safetensors", "adapter_model.bin")
# how a configuration says that its logits are more than head times states
SCALED = {"logits_scaling": "divided by", "logit_scale": "multiplied by", "lm_head_multiplier": "multiplied by"}
CAPPED = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
NUMBERS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WANTED = "Give a folder written by save_pretrained, or a Hugging Face name that this machine can reach"


@dataclass(frozen=True)
class Stored:
    """As a safetensors file's header states it."""

    kind: str  # "float32"
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Outline:
    """A causal language model of transformers, by its name or path."""

    name: str
    config: PretrainedConfig
    tensors: dict[str, Stored]  # by name; none where the weights are in another kind of file, or not here yet

    @property
    def family(self) -> str:
        return str(self.config.model_type)

    @property
    def classes(self) -> int:
        """Of its output: at least as many as its tokenizer has tokens, often padded."""
        return int(self.config.get_text_config(decoder=True).vocab_size)

    @property
    def reach(self) -> int | None:
        return reach_of(self.config)

    @property
    def head(self) -> str:
        """In words: how logits follow from hidden states."""
        text = self.config.get_text_config(decoder=True)
        parts = ["product with a bias" if "lm_head.bias" in self.tensors else "product"]
        for name, words in SCALED.items():
            if (value := getattr(text, name, None)) not in (None, 1, 1.0):
                parts.append(f"{words} {value} ({name})")
        for name in CAPPED:
            if (value := getattr(text, name, None)) is not None:
                parts.append(f"capped at {value} ({name})")
        tied = ["tied to the embeddings"] if getattr(text, "tie_word_embeddings", False) else []
        return ", ".join(parts + tied)

    @property
    def precision(self) -> str:
        """Of the weights in the files, the most frequent first; "" where it is not known."""
        numbers: Counter[str] = Counter()
        for tensor in self.tensors.values():
            numbers[tensor.kind] += prod(tensor.shape)
        return ", ".join(kind for kind, _ in numbers.most_common())


def outline(name: str) -> Outline:
    """ValueError, one line, for what is not there, is not readable, or is no causal language model of transformers."""
    place = located(name)
    config = configuration(name, place)
    folder = folder_of(place)
    return Outline(name, config, {} if folder is None else tensors_in(folder, here=Path(place).is_dir()))


def configuration(name: str, place: str) -> PretrainedConfig:
    try:
        stated, _ = PretrainedConfig.get_config_dict(place)
        family = stated.get("model_type")
        config = AutoConfig.from_pretrained(place, trust_remote_code=False) if family in CONFIG_MAPPING else None
    except Exception as error:  # transformers and the hub raise many kinds; each is the user's to repair
        raise ValueError(f"Cannot read the configuration of {name!r}: {first_line(error)}. {WANTED}.") from None
    if not stated:
        raise ValueError(f"The model {name!r} has no config.json{held(place)}. {WANTED}.")
    if "auto_map" in stated and config is None:
        raise ValueError(
            f"The model {name!r} (model_type {family!r}) is code of its own ({own_code(stated)}), which this suite "
            "does not run. Convert it to a family that transformers has, or give another model."
        )
    if config is None or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"The model {name!r} is of family {family!r}, for which transformers {version('transformers')} has no "
            "causal language model. Give one that predicts the next token, of a family that it has."
        )
    return config


def own_code(stated: dict[str, object]) -> str:
    """The Python files that a configuration names."""
    mapped = stated["auto_map"]
    named = mapped.values() if isinstance(mapped, dict) else [mapped]
    return ", ".join(sorted({f"{str(each).rpartition('--')[2].partition('.')[0]}.py" for each in named}))


def held(place: str) -> str:
    """What a folder holds, in words."""
    if not Path(place).is_dir():
        return ""
    names = sorted(path.name for path in Path(place).iterdir())
    return f" but {', '.join(names[:6])}{' ...' if len(names) > 6 else ''}" if names else ", nor any other file"


def folder_of(place: str) -> Path | None:
    """Where the files lie: of a name on the hub, in its cache; None where they are not all here yet."""
    if Path(place).is_dir():
        return Path(place)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(place, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def tensors_in(folder: Path, here: bool) -> dict[str, Stored]:
    """Of all safetensors files. `here`: what is missing will not be fetched later, so that it is refused."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, Stored] = {}
    for path in weight_files(folder, here):
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():
                    part = file.get_slice(key)
                    kind = str(part.get_dtype())
                    found[key] = Stored(NUMBERS.get(kind, kind.lower()), tuple(part.get_shape()))
        except (SafetensorError, OSError) as error:
            raise ValueError(f"Cannot read {path}: {first_line(error)}. Copy or write it again.") from None
    return found


def weight_files(folder: Path, here: bool) -> list[Path]:
    index = folder / INDEX
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        names = [SINGLE] if (folder / SINGLE).exists() else []
    missing = [name for name in names if not (folder / name).exists()]
    if here and missing:
        raise ValueError(f"{folder} lacks {', '.join(missing)}, which its {INDEX} names. Copy the whole model.")
    if here and not names and not any((folder / name).exists() for name in OTHER_KINDS):
        raise ValueError(f"The model {str(folder)!r} has no weights ({SINGLE}){held(str(folder))}. {WANTED}.")
    return [folder / name for name in names if name not in missing]

"""Text that a model writes: many rows together, as `transformers` itself does it, and one row after another.

The model is not trained, and stops at no token: everyone writes the same number of them. A unit is a token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from transformers import GenerationConfig, PreTrainedModel

from benchmarks.effort import Effort
from benchmarks.race import Contender
from benchmarks.result import Group
from replication.experiment.scale import Scale, load_scale
from replication.machine.device import this_machine
from replication.model.decoder import build
from replication.training.writing import Stop, Writers

TOGETHER, GENERATE, ALONE = "rows together", "transformers' generate", "one row at a time"
ROWS, TEMPERATURE, TOP_P = 64, 0.7, 0.9


def groups(effort: Effort) -> Iterator[Group]:
    scale, device = load_scale(effort.scale), this_machine().device
    for role in ("300M", "3B"):
        length = scale.length(scale.role(role).length)
        case: dict[str, int | str] = {"scale": effort.scale, "model": role, "rows": ROWS, "tokens": ROWS * length // 2}
        model = fresh(scale, role, length).to(device)
        yield Group("writing", "tokens", case, GENERATE, seconds=effort.race(contenders(model, length), 20))


def fresh(scale: Scale, role: str, length: int) -> PreTrainedModel:
    return build(scale.role(role), scale.classes, length, 0, seed=0).eval()


def contenders(model: PreTrainedModel, length: int) -> list[Contender]:
    """The first half of each row is the prompt."""
    classes, device, random = model.config.vocab_size, model.device, torch.Generator().manual_seed(0)
    rows_BX = torch.randint(classes, (ROWS, length), generator=random).to(device)
    chance_BX = torch.rand(rows_BX.shape, generator=random, dtype=torch.float64).to(device)
    begin_B = torch.full((ROWS,), length - length // 2, device=device)
    writers = Writers([model], classes, Stop(classes), temperature=TEMPERATURE, top_p=TOP_P)
    settings = GenerationConfig(
        do_sample=True, temperature=TEMPERATURE, top_p=TOP_P, top_k=0, max_new_tokens=length // 2, use_cache=True,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    prompt_BX = rows_BX[:, : length - length // 2]
    seen_BX = torch.ones_like(prompt_BX)

    def write(first: int, last: int) -> Callable[[], object]:
        some = slice(first, last)
        return lambda: writers.write(rows_BX[some], begin_B[some], chance_BX[some])

    each = length // 2
    return [
        Contender(TOGETHER, write(0, ROWS), ROWS * each),
        Contender(
            GENERATE,
            lambda: model.generate(prompt_BX, attention_mask=seen_BX, generation_config=settings),
            ROWS * each,
        ),
        Contender(ALONE, write(0, 1), each),
    ]

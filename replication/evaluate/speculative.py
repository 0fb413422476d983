"""Speculative decoding by transformers: the student drafts, the teacher decides (Leviathan et al. 2023, Algorithm 1).

transformers hands over what each step of the teacher settled: the drafts that it accepted, and one token of its own.
So accepted drafts are counted from outside, and what should have been accepted is computed afterwards from both models'
distributions along the text that came out.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

DRAFTS = 5  # tokens that the student drafts between two steps of the teacher
NORMAL_99 = 2.575829


@dataclass
class Decoded:
    """Drafts that the teacher looked at: those accepted, and the first that it did not accept of each step."""

    steps: int = 0  # of the teacher
    tokens: int = 0  # that came out
    accepted: int = 0
    expected: list[Tensor] = field(default_factory=list)  # sum over classes of min(teacher, student), at each draft
    agreed: int = 0  # drafts where both find the same class likeliest
    seconds: float = 0.0
    seconds_alone: float = 0.0  # of the teacher alone, for as many tokens

    @property
    def expected_N(self) -> Tensor:
        return torch.cat(self.expected) if self.expected else torch.zeros(0, dtype=torch.float64)

    @property
    def error(self) -> float:
        """Half of the 99 % interval of the acceptance around its expectation; the drafts are a martingale."""
        variance = float((self.expected_N * (1 - self.expected_N)).clamp_min(0).sum())  # 1 may be rounded up
        return NORMAL_99 * math.sqrt(variance) / len(self.expected_N)

    def metrics(self) -> dict[str, float]:
        drafts = len(self.expected_N)
        return {
            "decoded_acceptance": self.accepted / drafts,
            "decoded_expected": float(self.expected_N.mean()),
            "decoded_error": self.error,
            "decoded_agreement": self.agreed / drafts,
            "decoded_drafts": float(drafts),
            "accepted_per_step": self.accepted / self.steps,
            "tokens_per_step": self.tokens / self.steps,
            "speed_up": self.seconds_alone / self.seconds,
        }


class Steps:
    """A streamer: how many tokens each step of the teacher settled. The prompt comes first."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def put(self, tokens: Tensor) -> None:
        self.sizes.append(tokens.numel())

    def end(self) -> None:
        pass


def decode(teacher: PreTrainedModel, student: PreTrainedModel, prompts_SL: Tensor, new: int, drafts: int) -> Decoded:
    """Continue prompts by `new` tokens each, one after the other, until the teacher has looked at `drafts` drafts.

    At temperature 1 from the whole distributions, past any end of text. ValueError for models of different widths and
    where the prompts run out before.
    """
    wide, narrow = (model.config.get_text_config(decoder=True).vocab_size for model in (teacher, student))
    if wide != narrow:
        raise ValueError(f"Speculative decoding needs equal classes: the teacher has {wide}, the student {narrow}.")
    settings = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, use_cache=True, max_new_tokens=new, pad_token_id=0
    )
    # the models' own would fill in what is not said here, such as an end of text
    teacher.generation_config = GenerationConfig()
    student.generation_config = GenerationConfig(
        num_assistant_tokens=DRAFTS,
        num_assistant_tokens_schedule="constant",
        assistant_confidence_threshold=0.0,  # never stop drafting early
    )
    found = Decoded()
    for prompt_L in prompts_SL:
        prompt_1L, watched = prompt_L[None], Steps()
        start = time.perf_counter()
        made_1L = teacher.generate(prompt_1L, generation_config=settings, assistant_model=student, streamer=watched)
        middle = time.perf_counter()
        teacher.generate(prompt_1L, generation_config=settings)
        found.seconds += middle - start
        found.seconds_alone += time.perf_counter() - middle
        compare(found, teacher, student, made_1L, watched.sizes)
        if len(found.expected_N) >= drafts:
            return found
    raise ValueError(f"{len(prompts_SL)} prompts gave only {len(found.expected_N)} of {drafts} drafts.")


@torch.no_grad()
def compare(
    found: Decoded, teacher: PreTrainedModel, student: PreTrainedModel, made_1L: Tensor, sizes: list[int]
) -> None:
    """Add one continuation: `sizes` are those of the prompt and of what each step settled."""
    place = sizes[0]
    looked_at: list[int] = []
    for size in sizes[1:]:
        drafted = min(DRAFTS, made_1L.shape[1] - place - 1)  # the last token is always the teacher's
        accepted = size - 1
        # predicted at the position before; the first draft that was not accepted was looked at too
        looked_at += range(place - 1, place - 1 + min(accepted + 1, drafted))
        found.accepted += accepted
        place += size
    found.steps += len(sizes) - 1
    found.tokens += place - sizes[0]
    teacher_NV, student_NV = (model(made_1L).logits[0, looked_at].float().softmax(-1) for model in (teacher, student))
    found.expected.append(torch.minimum(teacher_NV, student_NV).sum(-1, dtype=torch.float64).cpu())
    found.agreed += int((teacher_NV.argmax(-1) == student_NV.argmax(-1)).sum())

"""Who writes the tokens that are trained on: the writing axis.

A row of text has a beginning, the prompt, and a model writes what follows in place of the text (`training/writing.py`
samples it, `training/authors.py` says when). Only what was written is trained on. A row's prompt and chances are of a
random stream of its own, so that no batch, no worker and no restart decides a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from replication.axes.targets.base import at_least_one

PROMPTS = ("middle", "questions")


class Writing:
    """A point on the writing axis. Models that write sample at `temperature` from the `top_p` likeliest classes."""

    prompts: str = "middle"
    temperature: float = 1.0
    top_p: float = 1.0
    most: int = 0
    written: ClassVar[bool] = True  # whether a model writes the tokens
    anew: ClassVar[bool] = False  # whether it does so at every visit to a row, as the student stands
    whole_batch: ClassVar[bool] = False  # whether a position's loss depends on other sequences

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.prompts not in PROMPTS:
            raise ValueError(f"{name}.prompts is {self.prompts!r}. Known: {', '.join(PROMPTS)}.")
        if not self.temperature > 0:
            raise ValueError(f"{name}.temperature is {self.temperature}; give a number above 0.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"{name}.top_p is {self.top_p}; give the mass of the classes sampled from, in (0, 1].")
        if self.most < 0:
            raise ValueError(f"{name}.most is {self.most}; give the most tokens of a text, or 0 for the whole row.")


@dataclass(frozen=True)
class Text(Writing):
    """Nobody: the tokens are the text's."""

    written: ClassVar[bool] = False


@dataclass(frozen=True)
class OnPolicy(Writing):
    """The student, as it stands at each step (Agarwal et al. 2024; SE-KD Sections 5 and 6).

    Temperature, top-p and length are those of SE-KD's code; the paper states none. `prompts`: "middle" cuts a row at a
    random place of its middle half; "questions" behind one of its lines that end with a question mark, with a third of
    the row before it, and then a blank line ends what is written. A row without such a line is cut in the middle.
    """

    prompts: str = "middle"
    temperature: float = 0.7
    top_p: float = 0.9
    most: int = 256  # tokens; a row's end, or the end of text, may come first
    anew: ClassVar[bool] = True


@dataclass(frozen=True)
class SeqKD(Writing):
    """The teacher, once before training; with target OneHot the student learns its words alone (Kim and Rush 2016).

    They take the likeliest sequence that a beam search finds; a teacher of free text is sampled, since its likeliest
    text repeats itself (so MiniPLM, from which TAD quotes).
    """

    prompts: str = "middle"
    temperature: float = 1.0
    top_p: float = 1.0
    most: int = 0


@dataclass(frozen=True)
class MiniLLM(Writing):
    """Student and teacher together, and a policy gradient of the reverse KL (Gu et al. 2024), as its code computes it.

    `batches` batches of rows are written by a mixture with the share `teacher` of the teacher, and then gone through
    `epochs` times. `training/policy.py` has the loss. Its code writes 256 texts at once, which is four of its batches.
    """

    prompts: str = "middle"
    teacher: float = 0.2
    scaling: float = 0.5  # rewards are divided by it
    reward_clip: float = 100.0
    discount: float = 0.95
    clip: float = 0.2  # of the ratio of probabilities (PPO)
    text: float = 1.0  # weight of the loss on the text's own rows
    batches: int = 4
    epochs: int = 4
    anew: ClassVar[bool] = True
    whole_batch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least_one("MiniLLM.batches", self.batches)
        at_least_one("MiniLLM.epochs", self.epochs)
        for name, value, most in (("teacher", self.teacher, 1.0), ("discount", self.discount, 1.0)):
            if not 0 <= value <= most:
                raise ValueError(f"MiniLLM.{name} is {value}; give a number between 0 and 1.")
        for name, value in (("scaling", self.scaling), ("reward_clip", self.reward_clip), ("clip", self.clip)):
            if not value > 0:
                raise ValueError(f"MiniLLM.{name} is {value}; give a number above 0.")

    @property
    def turn(self) -> int:
        """The steps from one writing to the next."""
        return self.batches * self.epochs


WRITINGS = {cls.__name__: cls for cls in (Text, OnPolicy, SeqKD, MiniLLM)}

"""What lies around a student's distillation: its first weights, what its teacher read before, its end, its tuning.

`text` and `tokens` are words of the scale; a text may also be a corpus, as in a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from replication.experiment.scale import Scale
from replication.experiment.suggestion import one_of


@dataclass(frozen=True)
class Fresh:
    """The student begins with random weights, which are the run's seed's; a checkpoint as student with its own."""


@dataclass(frozen=True)
class FromTeacherLayers:
    """The student begins with its teacher's attention, cut to its own width; the rest is random (TAD Section 3.2).

    Its S layers take those of T teacher layers that stand at even distances, the first one among them: of twice as
    many every other one (Sanh et al. 2019, whom TAD follows). Each head keeps its first inputs and first outputs. A
    student as wide as its teacher takes its embeddings too, and its output head (Section 3.2.2).
    `model/initialise.py` does it.

    `embeddings`: "trained" as all else, or "frozen", as TAD has them there. Then the student has to be as wide as its
    teacher. Where one matrix is embeddings and head, the head is frozen with them; a head of its own is trained.
    """

    embeddings: str = "trained"

    def __post_init__(self) -> None:
        one_of("embeddings of FromTeacherLayers", self.embeddings, ("trained", "frozen"))


@dataclass(frozen=True)
class Pretrained:
    """The student begins as a trained model, as SE-KD's Qwen3-1.7B and TAD's TinyLlama do.

    Of a role that is a run of its own: by cross-entropy, for `tokens`, under the student's seed. It reads what the
    teacher read first (`background`), or with `text` "student's" what the student is to be distilled on, whatever the
    teacher read. Of its own text, what it reads is then left out of what the student is distilled on. A checkpoint as
    student is trained already, and begins as it is.
    """

    tokens: str = "pretraining"
    text: str = "teacher's"

    def __post_init__(self) -> None:
        one_of("text of Pretrained", self.text, ("teacher's", "student's"))


@dataclass(frozen=True)
class Continued:
    """The student begins as its own recipe leaves it on another text (TAD Section 3.4: first articles, then solutions).

    There it reads `text` for `tokens`, begun as a model pretrained for `pretraining` tokens; everything else is the
    recipe's own. One tokenizer is read throughout, that of the background, which has to be another text.
    """

    text: str
    tokens: str
    pretraining: str = "pretraining"

    def settings(self, scale: Scale) -> dict[str, Any]:
        before = {"pretrained_for": scale.budget(self.pretraining), "tokens": scale.budget(self.tokens)}
        return {"text": scale.corpus_of(self.text), **before}


@dataclass(frozen=True)
class SameText:
    """The teacher was trained on the text that the student reads."""

    def settings(self, scale: Scale) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class OtherText:
    """The teacher was trained on another text, whose tokenizer is everyone's (RS-KD Table 13, "w/o adapt").

    In a recipe without a teacher it is the student itself that was trained on the other text, by a teacher's budget.
    """

    text: str = "other"

    def settings(self, scale: Scale) -> dict[str, Any]:
        return {"teacher_read": scale.corpus_of(self.text)}


@dataclass(frozen=True)
class Adapted:
    """The teacher was trained on another text, and then for `tokens` on the student's (RS-KD Section 7.2)."""

    text: str = "other"
    tokens: str = "50B"

    def settings(self, scale: Scale) -> dict[str, Any]:
        return {"teacher_read": scale.corpus_of(self.text), "adapted_for": scale.budget(self.tokens)}


@dataclass(frozen=True)
class Untuned:
    """The student as distillation leaves it."""


@dataclass(frozen=True)
class Instructed:
    """The student after supervised fine-tuning on conversations, its loss on the responses only (RS-KD App. E.2)."""

    text: str = "instructions"
    tokens: str = "SFT"

    def settings(self, scale: Scale, steps: int, length: int) -> dict[str, Any]:
        """`steps` on sequences of `length` tokens are what the tuning takes of this student."""
        text, optimiser = scale.corpus_of(self.text), scale.tuner.settings()
        return {"tuned_on": {"text": text, "steps": steps, "length": length, "optimiser": optimiser}}


@dataclass(frozen=True)
class FineTuned(Instructed):
    """The student after fine-tuning on one task (SALT Section 5.3), whose held-out conversations it then answers
    (`evaluate/fine_tuned.py`): `text` is a corpus of them."""

    text: str = "sums:20000"


@dataclass(frozen=True)
class AtItsEnd:
    """Training takes all of its steps."""

    def of(self, steps: int) -> int:
        return steps


@dataclass(frozen=True)
class Early:
    """Training stops after a `share` of its steps, on the way of its schedules: an early checkpoint of the whole run.

    So nothing has to have been kept of a teacher that is trained already: the first steps, made again, are the same.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"Early.share is {self.share}; give the share of the steps to take, in (0, 1].")

    def of(self, steps: int) -> int:
        return max(1, round(self.share * steps))


Initial = Fresh | FromTeacherLayers | Pretrained | Continued
INITIALS = {cls.__name__: cls for cls in (Fresh, FromTeacherLayers, Pretrained, Continued)}
Background = SameText | OtherText | Adapted
BACKGROUNDS = {cls.__name__: cls for cls in (SameText, OtherText, Adapted)}
Tuning = Untuned | Instructed | FineTuned
TUNINGS = {cls.__name__: cls for cls in (Untuned, Instructed, FineTuned)}
Stop = AtItsEnd | Early
STOPS = {cls.__name__: cls for cls in (AtItsEnd, Early)}

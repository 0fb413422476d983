"""Which tasks each paper judges students by, with how many examples, and by which of the harness's metrics."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from replication.experiment.scale import Scale

# The harness's task, and its metric that counts. Where it offers accuracy with and without normalising by length, no
# paper says which it took: normalised where the harness's users normalise, since only that comes near what is printed
# (RS-KD's 300M students reach 41 % on HellaSwag).
METRICS = {
    "arc_easy": "acc,none",
    "arc_challenge": "acc_norm,none",
    "hellaswag": "acc_norm,none",
    "lambada_openai": "acc,none",
    "lambada_standard": "acc,none",
    "piqa": "acc,none",
    "winogrande": "acc,none",
    "openbookqa": "acc_norm,none",
    "social_iqa": "acc,none",
    "boolq": "acc,none",
    "gsm8k": "exact_match,flexible-extract",
    "ifeval": "prompt_level_strict_acc,none",
    "triviaqa": "exact_match,remove_whitespace",
    "nq_open": "exact_match,remove_whitespace",
    "mbpp": "pass_at_1,none",
}


@dataclass(frozen=True)
class Suite:
    """The tasks of one mean, and the number of examples in their prompts."""

    tasks: tuple[str, ...]
    shots: int = 0

    def settings(self, scale: Scale) -> dict[str, Any]:
        """What a table's header says of it."""
        rows = scale.task_rows
        limit = "all rows" if rows is None else f"at most {rows:,} rows of each, drawn"
        return {"tasks": f"{', '.join(self.tasks)}; {self.shots}-shot; {limit}; lm_eval {version('lm_eval')}"}


SUITES = {
    # RS-KD App. E.1 and Table 22
    "zero_shot": Suite(("arc_easy", "hellaswag", "lambada_openai", "lambada_standard", "piqa")),
    # TAD Section 3.1, 'few-shot as in Gu et al. 2025', which is zero-shot; StoryCloze may not be passed on
    "zero_shot_tad": Suite(
        ("hellaswag", "winogrande", "openbookqa", "arc_easy", "arc_challenge", "piqa", "social_iqa")
    ),
    # SE-KD Section 5
    "zero_shot_sekd": Suite(("hellaswag", "piqa", "arc_easy", "gsm8k", "lambada_openai")),
    "ifeval_sekd": Suite(("ifeval",)),
    # SALT App. F, those of its 28 that are at hand; MBPP runs the programs that the student writes
    "one_shot_salt": Suite(
        (
            *("nq_open", "triviaqa", "arc_easy", "arc_challenge", "hellaswag", "openbookqa", "piqa", "winogrande"),
            *("boolq", "lambada_openai"),
        ),
        shots=1,
    ),
    "mbpp_salt": Suite(("mbpp",), shots=3),
}


# What any machine makes itself (`evaluate/tasks/at_hand`), where a scale says so; each with a counterpart above
AT_HAND = Suite(("next_line", "last_word", "pairs", "docstring", "signature", "sums", "instruct"))


@dataclass(frozen=True)
class InstructionSet:
    release: str  # in a folder of task data
    hub: tuple[str, str]  # repository and file


INSTRUCTION_SETS = {
    "dolly": InstructionSet("if_minillm_eval/dolly_valid.jsonl.gz", ("MiniLLM/dolly", "valid.jsonl")),
    # RS-KD counts 252, as the authors released them; MiniLLM's file has 242 of them
    "self_inst": InstructionSet(
        "if_self_instruct/user_oriented_instructions.jsonl.gz", ("MiniLLM/self-inst", "valid.jsonl")
    ),
    "vicuna": InstructionSet("if_minillm_eval/vicuna_valid.jsonl.gz", ("MiniLLM/Vicuna", "valid.jsonl")),
    # MiniLLM's choice of answers of 11 tokens and more is taken as it is
    "s_ni": InstructionSet("if_minillm_eval/sinst_11_valid.jsonl.gz", ("MiniLLM/sinst", "11_/valid.jsonl")),
    "unni": InstructionSet("if_minillm_eval/uinst_11_valid.jsonl.gz", ("MiniLLM/uinst", "11_/valid.jsonl")),
}

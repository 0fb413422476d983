"""What a student that was tuned on a task answers to the task's held-out conversations, by greedy decoding."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from replication.data.chat import Conversation, opening
from replication.evaluate.tasks.harness import reader

ROUGE = ("rouge1", "rouge2", "rougeLsum")
TOKENS = 48  # of an answer, at most
KIND = re.compile(r"Round (\d):")  # of an inference


def answers(
    student: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, asked: Sequence[Conversation], autocast: bool
) -> list[str]:
    """To the last turn of each, which is the assistant's; up to the end of text, or as far as the longest true answer
    goes, so that a student that reads little loses no more of a question than it must."""
    from lm_eval.api.instance import Instance

    longest = max(len(ids) for ids in tokenizer([turns[-1].text for turns in asked])["input_ids"])
    how = {"until": [tokenizer.eos_token], "max_gen_toks": min(TOKENS, longest + 1), "do_sample": False}
    requests = [
        Instance("generate_until", {}, (opening(turns[:-1]), dict(how)), number) for number, turns in enumerate(asked)
    ]
    found: list[str] = reader(student.eval(), tokenizer, autocast).generate_until(requests, disable_tqdm=True)
    return found


def scores(asked: Sequence[Conversation], answered: Sequence[str]) -> dict[str, float]:
    """`exact`, the share whose last line is the true answer's, of a conversation that has rounds also by round
    (`exact_round1`); and the F-measures of ROUGE, with stems as in the papers, in fractions."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(ROUGE, use_stemmer=True)
    found: dict[str, list[float]] = defaultdict(list)
    for turns, answer in zip(asked, answered, strict=True):
        truth, exact = turns[-1].text, float(last_line(answer) == last_line(turns[-1].text))
        found["exact"].append(exact)
        if kind := KIND.match(turns[-2].text):
            found[f"exact_round{kind.group(1)}"].append(exact)
        for name, score in scorer.score(truth, answer).items():
            found[name.lower()].append(score.fmeasure)
    return {name: fmean(values) for name, values in found.items()}


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2].strip()

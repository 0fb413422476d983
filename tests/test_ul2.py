"""UL2's mixture: each denoiser on a row worked by hand, and that cache and teacher say the same of a rewritten row."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import oracle
import pytest
import tokenizers
import torch
from torch import Tensor

from replication.axes.objectives import UL2, corrupted, divided, parts
from replication.axes.targets.drawing import Streams
from replication.data.corpus import open_corpus
from replication.data.tokenizer import Tokenizer, open_tokenizer
from replication.experiment.recipe import parse
from replication.experiment.run import Run
from replication.experiment.scale import load_scale
from replication.machine.device import Machine, this_machine
from replication.planning.plan import Plan
from replication.seeds import generator
from replication.training.before import Seen, sentinels
from replication.training.loop import train
from replication.training.needs import Need
from replication.training.posing import posed
from replication.training.run_data import Data, data_for
from replication.training.teacher_pass import build
from replication.training.training import Training
from replication.training.weights import teacher_for
from tests.small import write_scale, write_text

SENTINELS = torch.tensor([901, 902])
ROW = torch.arange(100, 141)  # 41 tokens


def smallest_at(*places: int, count: int) -> Tensor:
    """Points whose smallest ones stand at these places."""
    points = torch.linspace(0.5, 0.9, count, dtype=torch.float64)
    points[list(places)] = 0.1
    return points


def test_few_short_spans_of_a_row_worked_by_hand() -> None:
    """Of 41 tokens 36 are read: 15 % of them are 5, in 2 spans of about 3, and 5 sentinels make it 41 again."""
    assert divided(36, 0.15, 3) == (36, 5, 2)
    points = torch.cat([smallest_at(1, count=4), smallest_at(10, count=36)])  # 5 = 2 + 3, 31 = 11 + 20
    row, trained = corrupted(ROW, 0.15, 3, points, SENTINELS)
    given = [*range(100, 111), 901, *range(113, 133), 902]
    written = [901, 111, 112, 902, 133, 134, 135, 901]  # a third span's sentinel, which is the first one's again
    assert row.tolist() == given + written
    assert row[1:][trained].tolist() == written


def test_half_of_a_row_in_one_long_span_worked_by_hand() -> None:
    """Of 41 tokens 38 are read: half of them are 19, in one span."""
    row, trained = corrupted(ROW, 0.5, 32, smallest_at(count=40), SENTINELS)
    assert row.tolist() == [*range(100, 119), 901, 901, *range(119, 138), 902]
    assert row[1:][trained].tolist() == [901, *range(119, 138), 902]


def test_what_is_left_of_a_row_is_not_trained() -> None:
    row, trained = corrupted(torch.arange(8), 0.15, 3, smallest_at(count=7), SENTINELS)
    assert row.tolist() == [0, 1, 2, 3, 901, 901, 4, 902] and trained.tolist() == [False] * 4 + [True] * 3
    for size in range(5, 200):
        for share, mean in UL2.spans:
            found, mask = corrupted(torch.arange(size), share, mean, torch.rand(size, dtype=torch.float64), SENTINELS)
            rest = int((~mask).flip(0).cumprod(0).sum())
            assert len(found) == size and mask.any() and rest < 3, (size, share)
    with pytest.raises(ValueError, match=r"^UL2 corrupts spans of rows of 4 tokens or more; these have 3\.$"):
        corrupted(torch.arange(4), 0.15, 3, torch.rand(4), SENTINELS)


def test_spans_are_t5_s_and_every_split_is_as_likely() -> None:
    for seed in range(20):
        points = torch.rand(128, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        _, noise, spans = divided(116, 0.15, 3)
        assert (noise, spans) == (17, 6)
        lengths = parts(noise, spans, points[:16]).tolist(), parts(99, spans, points[16:114]).tolist()
        given, written = oracle.corrupted_spans(range(129), lengths[1], lengths[0])
        meant = [token if isinstance(token, int) else int(SENTINELS[token[1] % 2]) for token in (*given, *written)]
        row, trained = corrupted(torch.arange(129), 0.15, 3, points, SENTINELS)
        assert row.tolist() == meant and int(trained.sum()) == len(written)
    counts = Counter(tuple(parts(5, 3, point).tolist()) for point in torch.rand(6000, 4))
    assert len(counts) == 6 and max(abs(count - 1000) for count in counts.values()) < 150  # 5 standard deviations


def test_four_tasks_six_to_two_to_one_to_one() -> None:
    rows = torch.arange(129).expand(4000, 129)
    found = UL2()(rows, generator(0, "a test"), SENTINELS)
    assert found.mask_BL is not None
    first = [("written" if 902 in row or 901 in row else "text", int(mask.sum())) for row, mask in tasks(found)]
    tally = Counter("causal" if of == ("text", 128) else of[0] if of[0] == "text" else str(of[1]) for of in first)
    shares = {"causal": 0.6 + 0.2 * 2 / 65, "text": 0.2 * 63 / 65, "24": 0.1, "65": 0.1}  # a prefix of 0 or 1 is none
    assert set(tally) == set(shares)
    for name, share in shares.items():
        assert tally[name] / 4000 == pytest.approx(share, abs=0.03), name


def tasks(found: object) -> list[tuple[list[int], Tensor]]:
    return [(row.tolist(), mask) for row, mask in zip(found.labels_BL, found.mask_BL, strict=True)]  # type: ignore[attr-defined]


def test_a_row_s_task_depends_on_no_other_row() -> None:
    rows = torch.arange(8 * 41).view(8, 41)

    def streams(numbers: range) -> Streams:
        return Streams(tuple(generator(0, "objective", number, 0) for number in numbers))

    whole = UL2()(rows, streams(range(8)), SENTINELS)
    part = UL2()(rows[3:5], streams(range(3, 5)), SENTINELS)
    assert whole.mask_BL is not None and part.mask_BL is not None
    assert torch.equal(whole.tokens_BL[3:5], part.tokens_BL) and torch.equal(whole.mask_BL[3:5], part.mask_BL)


def test_sentinels_are_tokens_that_no_text_has(tmp_path: Path) -> None:
    tokenizer = open_tokenizer("bpe:320", open_corpus(f"path:{write_text(tmp_path / 'text')}"), tmp_path)
    assert len(set(tokenizer.sentinels)) == 13
    text = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000, 7)]))  # every kind of byte that UTF-8 has
    assert not set(tokenizer.sentinels) & set(np.concatenate(tokenizer.encode_batch([text])).tolist())
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "À": 1, "ÿ": 2}, unk_token="a"))
    with pytest.raises(ValueError, match=r"^This tokenizer has no token of a byte that no text has"):
        _ = Tokenizer(words, 0).sentinels
    for objective in ("PrefixLM", "UL2"):
        seen = Seen(Run(parse({"objective": objective}), load_scale("smoke"), 0))
        seen.__dict__["tokenizer"] = Tokenizer(words, 0)
        if objective == "PrefixLM":
            assert sentinels(seen) is None
    with pytest.raises(ValueError, match="has no token of a byte"):  # before any work
        sentinels(seen)


# In a run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A scale whose teacher is trained, and the caches of both targets written."""
    folder = tmp_path_factory.mktemp("ul2")
    machine = this_machine(folder / "results", folder / "artifacts").at("float32")
    write_scale(folder)
    plan = Plan()
    plan.add(run_of(folder, "cache"))
    for teacher in plan.teachers.values():
        train(teacher, machine)
    build(plan.needs, machine)
    return folder, machine


def run_of(folder: Path, delivery: str, **stated: object) -> Run:
    target = {"name": "RandomSampling", "draws": 8}
    recipe = {"objective": "UL2", "target": target, "teacher_tokens": "768", "delivery": delivery, **stated}
    return Run(parse(recipe), load_scale(str(folder / "small.toml")), 0)


def test_cache_and_teacher_say_the_same_of_rewritten_rows(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    losses = {}
    for delivery in ("cache", "online"):
        run = run_of(folder, delivery)
        data: Data = data_for(run, machine.artifacts)
        training = Training(run, data, teacher_for(run, machine), machine)
        losses[delivery] = [training.advance()[0] for _ in range(run.steps)]
    assert run.steps * 4 <= len(data.train)  # one epoch
    assert losses["cache"] == pytest.approx(losses["online"], rel=1e-6)


def test_a_cache_of_other_rows_is_another_cache_and_later_visits_repeat_the_first(place: tuple[Path, Machine]) -> None:
    folder, machine = place
    ul2, causal = Need(run_of(folder, "cache")), Need(run_of(folder, "cache", objective="NextToken"))
    assert ul2.folder(machine) != causal.folder(machine)
    assert ul2.run.teacher is not None and ul2.run.teacher.recipe.objective == UL2()
    assert ul2.run.teacher.steps == 8 and ul2.run.settings()["teacher_tokens"] == 768
    data, teacher = data_for(ul2.run, machine.artifacts), teacher_for(ul2.run, machine)
    assert ul2.header(data, teacher).packing == causal.header(data, teacher).packing + "-UL2-1"
    assert not ul2.problems(ul2.folder(machine), data, teacher, machine)
    rows_B, text = np.arange(16), (data.train, data.tokenizer)
    for delivery, same in (("cache", True), ("online", False)):
        first, second = (
            posed(run_of(folder, delivery), *text, rows_B, np.full(16, epoch), machine.device).tokens_BL
            for epoch in (0, 1)
        )
        assert torch.equal(first, second) == same


def test_the_other_context_s_cache_is_refused() -> None:
    stated = {"objective": "UL2", "target": {"name": "TopK", "k": 4}}
    with pytest.raises(
        ValueError, match="Alignment Different finds a token by its place in the text, and objective UL2"
    ):
        parse({**stated, "alignment": {"name": "Different", "teacher_length": "1024"}})

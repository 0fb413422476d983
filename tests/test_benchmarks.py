"""The benchmarks' harness, never a time: who runs when, what is compared with what, which file and page they leave."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small import write_scale

from benchmarks import __main__ as command
from benchmarks import bars, draws, losses, memory, page, parts, race, result, rows, stores, training
from benchmarks.machine import Machine
from benchmarks.race import Contender
from benchmarks.result import Group, Result
from replication.cache.manifest import read_manifest
from replication.machine.device import Machine as Place

# race


class Stage:
    """A clock that only contenders move, and who did what."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[str] = []

    def clock(self) -> float:
        return self.now

    def act(self, word: str, seconds: float | Iterator[float]) -> Callable[[], None]:
        def acted() -> None:
            self.said.append(word)
            self.now += seconds if isinstance(seconds, float) else next(seconds)

        return acted


def test_each_round_has_every_contender_in_an_order_of_its_own() -> None:
    stage = Stage()
    three = [Contender(name, stage.act(name, 1.0)) for name in "abc"]
    found = race.race(three, 33.0, clock=stage.clock)
    said = "".join(stage.said)
    rounds = [said[start : start + 3] for start in range(0, len(said), 3)]
    assert rounds[0] == "abc" and len(rounds) == 11  # a first round, not counted, then 30 of 33 seconds
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    # nobody always follows the same one
    assert all(any(pair in each for each in rounds[1:]) for pair in ("ab", "ba", "ac", "ca", "bc", "cb"))
    assert found == {name: [1.0] * 10 for name in "abc"}


def test_settling_is_not_measured_and_finishing_is() -> None:
    stage = Stage()
    one = [Contender("a", stage.act("a", 1.0), units=4)]
    settle, finish = stage.act("s", 10.0), stage.act("f", 2.0)
    assert race.race(one, 0.0, settle, finish, stage.clock, warm=False) == {"a": [0.75] * race.LEAST}
    assert "".join(stage.said) == "saf" * race.LEAST


def test_rounds_go_on_while_there_is_time_and_no_longer_than_sensible() -> None:
    stage = Stage()
    assert len(race.race([Contender("a", stage.act("a", 1.0))], 7.0, clock=stage.clock, warm=False)["a"]) == 7
    assert len(race.race([Contender("a", stage.act("a", 0.0))], 7.0, clock=stage.clock)["a"]) == race.MOST


def test_a_machine_that_slows_down_changes_no_ratio() -> None:
    stage = Stage()
    ours = Contender("ours", stage.act("a", iter([1.0, 2.0, 4.0, 8.0])))
    theirs = Contender("theirs", stage.act("b", iter([2.0, 4.0, 8.0, 16.0])))
    found = race.race([ours, theirs], 0.0, clock=stage.clock)
    assert race.ratio(found["ours"], found["theirs"]) == race.Spread(0.5, 0.5, 0.5)
    assert race.spread([1.0, 2.0, 3.0, 4.0, 5.0]) == race.Spread(3.0, pytest.approx(1.4), pytest.approx(4.6))


# the same work on both sides

SMALL = losses.Sizes(positions=10, classes=97, width=8, kept=4)
SAME_LOSS = [
    (losses.RSKD, losses.LISTED),
    (losses.ONE_HOT, losses.CROSS_ENTROPY),
    (losses.ONE_HOT, losses.LINEAR_CROSS_ENTROPY),
    (losses.FULL, losses.LISTED_FULL),
]


def taken(name: str, given: losses.Inputs) -> list[torch.Tensor]:
    value = losses.step_on(name, given)()
    assert isinstance(value, torch.Tensor)
    assert given.hidden_ND.grad is not None and given.weight_VD.grad is not None
    return [value, given.hidden_ND.grad, given.weight_VD.grad]


@pytest.mark.parametrize(("ours", "theirs"), SAME_LOSS)
@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_both_sides_of_a_loss_compute_the_same(ours: str, theirs: str, precision: str, most: float) -> None:
    """Up to a constant: App. K's KL has the target's entropy in it, as ours has."""
    if why := losses.missing(theirs):
        pytest.skip(f"{theirs}: {why}")
    given = losses.inputs(replace(SMALL, precision=precision))
    for one, other in zip(taken(ours, given), taken(theirs, given), strict=True):
        assert float((one - other).norm() / other.norm()) < most


def test_every_loss_that_runs_here_takes_a_step() -> None:
    given = losses.inputs(SMALL)
    for name in losses.LOSSES:
        if losses.missing(name) is None:
            assert all(bool(part.isfinite().all()) for part in taken(name, given)), name
    taken(losses.SEKD, given)
    assert given.hidden_ND.grad is not None
    assert int((given.hidden_ND.grad.abs().sum(1) > 0).sum()) == 2  # a fifth of the positions meets the head


def test_the_floor_is_three_products() -> None:
    given = losses.inputs(SMALL, teacher=False)
    with torch.no_grad():
        logits_NV = given.hidden_ND @ given.weight_VD.T
        meant = logits_NV @ given.weight_VD, logits_NV.T @ given.hidden_ND
    found = losses.step_on(losses.PRODUCTS, given)()
    assert isinstance(found, tuple)
    assert all(torch.allclose(one, other) for one, other in zip(found, meant, strict=True))


def test_kept_classes_differ_so_that_a_scatter_that_overwrites_is_a_sum() -> None:
    ids_NK = losses.inputs(SMALL, teacher=False).target.ids_NK
    assert all(len(set(row)) == SMALL.kept for row in ids_NK.tolist())


def test_the_error_is_seen() -> None:
    given = losses.inputs(SMALL, teacher=False)
    exact = losses.doubled(given)
    losses.step_on(losses.LISTED, exact)()
    losses.step_on(losses.RSKD, given)()
    assert 0 < losses.error(given, exact) < 1e-5
    assert given.weight_VD.grad is not None
    given.weight_VD.grad *= 1.01
    assert losses.error(given, exact) == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("name", draws.METHODS)
def test_every_way_to_draw_draws_from_the_teacher(name: str) -> None:
    logits_NV = draws.logits(draws.Sizes(positions=1, classes=6)) / 6
    ids_NK, counts_NK = draws.METHODS[name](logits_NV.expand(300, -1), 40, torch.Generator().manual_seed(0))
    assert bool((counts_NK.sum(1) == 40).all())
    share_V = torch.zeros(6).scatter_add_(0, ids_NK.flatten(), counts_NK.flatten()) / (300 * 40)
    torch.testing.assert_close(share_V, logits_NV[0].softmax(0), rtol=0, atol=0.02)
    for row, counts in zip(ids_NK[:20].tolist(), counts_NK[:20].tolist(), strict=True):
        kept = [each for each, count in zip(row, counts, strict=True) if count]
        assert len(set(kept)) == len(kept)


STORED = rows.Sizes(sequences=rows.IN_SHARD + 32, length=3, classes=1000, draws=20)


@pytest.fixture(scope="module")
def drawn() -> rows.Rows:
    return rows.drawn(STORED)


def test_what_is_stored_are_draws(drawn: rows.Rows) -> None:
    assert np.allclose(drawn.weights_BLK.sum(-1), 1)
    assert ((drawn.weights_BLK > 0).sum(-1) == drawn.lengths_BL).all()
    assert 2 < drawn.lengths_BL.mean() < 15 and drawn.ids_BLK.max() < STORED.classes


@pytest.mark.parametrize("name", stores.stores(STORED.classes, STORED.draws))
def test_every_store_gives_back_the_same_rows(name: str, drawn: rows.Rows, tmp_path: Path) -> None:
    store = stores.stores(STORED.classes, STORED.draws)[name]
    store.write(tmp_path, drawn)
    read = store.opened(tmp_path)
    for sequences_B in (np.arange(16, 32), np.array([7]), np.arange(rows.IN_SHARD, rows.IN_SHARD + 16)):
        ids_BLK, weights_BLK = read(sequences_B)
        assert ids_BLK.dtype == np.int64 and weights_BLK.dtype == np.float32
        found, meant = (
            by_class(ids_BLK, weights_BLK),
            by_class(drawn.ids_BLK[sequences_B], drawn.weights_BLK[sequences_B]),
        )
        assert found.keys() == meant.keys()
        np.testing.assert_allclose(list(found.values()), list(meant.values()), rtol=1e-3)


def by_class(ids_BLK: np.ndarray, weights_BLK: np.ndarray) -> dict[tuple[int, ...], float]:
    """(sequence, position, class) -> weight, in that order."""
    return {
        (int(b), int(m), int(ids_BLK[b, m, k])): float(weights_BLK[b, m, k])
        for b, m, k in sorted(np.argwhere(weights_BLK > 0).tolist(), key=lambda at: (at[0], at[1], ids_BLK[tuple(at)]))
    }


def test_files_refuse_what_they_cannot_read_at_once(drawn: rows.Rows, tmp_path: Path) -> None:
    store = stores.SafeTensors()
    store.write(tmp_path, drawn)
    with pytest.raises(ValueError, match="neighbouring"):
        store.opened(tmp_path)(np.array([3, 5]))


def test_training_and_caching_go_the_suite_s_own_way(tmp_path: Path) -> None:
    scale = str(write_scale(tmp_path / "scale"))
    here = Place(torch.device("cpu"), False, tmp_path / "results", tmp_path / "artifacts")
    with training.bench(here, scale, steps=16) as bench:
        assert (tmp_path / "artifacts" / "text").is_dir()
        manifest = read_manifest(bench.folder)
        assert manifest.positions == 16 * bench.tokens
        for contender in bench.students(steps=12):
            contender.step()
            contender.step()  # begins anew where the cache ends
        room = tmp_path / "room"
        room.mkdir()
        passes = bench.teachers(2, room)
        assert [each.name for each in passes] == [training.FORWARD, training.SOFTMAX, training.CACHING]
        for each in passes:
            assert each.units == 2
            each.step()
        made = read_manifest(room / "0")
        assert made.positions == 2 * bench.tokens_of_pass
        assert made.header == manifest.header
    assert not bench.folder.exists()


# memory


def takes(megabytes: int) -> Callable[[], object]:
    return lambda: torch.zeros(megabytes * 2**20, dtype=torch.uint8)


def fails(message: str) -> Callable[[], object]:
    raise ValueError(message)


def dies(alone: bool) -> Callable[[], object]:
    return (lambda: os.kill(os.getpid(), signal.SIGKILL)) if alone else (lambda: None)


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="resident memory is measured on Linux")
def test_memory_is_that_of_the_step_alone() -> None:
    found = memory.peaks(takes, {"little": ((1,), (8,)), "much": ((1,), (200,)), "after": ((300,), (8,))})
    assert found["peak_bytes"]["much"] == pytest.approx(200 * 2**20, abs=4 * 2**20)
    assert found["peak_bytes"]["after"] == pytest.approx(found["peak_bytes"]["little"], abs=4 * 2**20)


@pytest.mark.skipif(not memory.CLEAR.exists(), reason="resident memory is measured on Linux")
def test_who_runs_out_of_memory_is_left_out_and_what_went_wrong_is_told() -> None:
    assert memory.peaks(dies, {"victim": ((False,), (True,))}) == {"peak_bytes": {}}
    with pytest.raises(ValueError, match="no such thing"):
        memory.peaks(fails, {"wrong": (("no such thing",), ("",))})


# what is left

MACHINE = Machine("AMD EPYC <7>", 2, 2, 2**34, None, {"torch": "2"}, "abc", (0.1, 2.0))
TIMES = {"RS-KD": [1.0, 1.1, 0.9], "one-hot": [1.0, 1.0, 1.0], "cross_entropy on full logits": [2.0, 2.0, 2.0]}
CASE: dict[str, int | str] = {"positions": 512, "classes": 100_278, "width": 1024, "kept": 12, "precision": "float32"}
STEP = Group("loss", "step", CASE, losses.CROSS_ENTROPY, seconds=TIMES, missing={"Liger-Kernel": "runs on a GPU only"})
PEAKS = Group(
    "loss", "memory", CASE, losses.CROSS_ENTROPY, values={"peak_bytes": {"RS-KD": 2.0**28, "one-hot": 2.0**28}}
)
GROWN = [
    Group(
        "loss", "growth", CASE | {"kept": kept}, losses.CROSS_ENTROPY, "kept", TIMES, {"peak_bytes": {"RS-KD": 2.0**20}}
    )
    for kept in (4, 12)
]
CREWS = [
    Group("cache", "growth", {"workers": count}, varied="workers", seconds={"cache": [1.0] * 3}) for count in (0, 2)
]


def planted(*groups: Group) -> Result:
    return Result(MACHINE, "2026-11-25T12:00:00+00:00", 100.0, False, list(groups))


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / f"{MACHINE.slug}.json"
    assert path.name == "amd-epyc-7-2-cores.json"
    whole = planted(STEP, PEAKS, *GROWN, *CREWS)
    result.write(whole, [verdict.plain() for verdict in bars.judged(whole, bars.bars())], path)
    assert result.read(path) == whole
    content = json.loads(path.read_text())
    assert content["groups"][0]["ratios"]["RS-KD"] == {"median": 0.5, "low": 0.46, "high": 0.54}
    assert {bar["state"] for bar in content["bars"]} == {"met", "not measured here"}
    path.write_text(path.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(ValueError, match="format 0"):
        result.read(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="no result of make bench"):
        result.read(path)


def bar(**fields: object) -> bars.Bar:
    stated = {"text": "", "part": "loss", "name": "step", "measure": "time", "ours": "RS-KD", "theirs": "one-hot"}
    return bars.Bar(**(stated | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (bar(at_most=1.0), "met"),
        (bar(at_most=0.99), "not met"),
        (bar(at_least=1.01), "not met"),
        (bar(at_most=0.5, theirs=losses.CROSS_ENTROPY), "met"),
        (bar(at_least=2.0, theirs=losses.CROSS_ENTROPY, measure="rate"), "met"),
        (bar(at_most=0.99, theirs="", measure="seconds"), "not met"),
        (bar(at_most=1.0, name="memory", measure="peak_bytes"), "met"),
        (bar(at_most=2**27, name="memory", measure="peak_bytes", theirs=""), "not met"),
        (bar(at_most=1.0, case={"positions": 512, "precision": "float32"}), "met"),
        (bar(at_most=1.0, case={"positions": 2048}), "not measured here"),
        (bar(at_most=1.0, theirs="Liger-Kernel"), "not measured here"),
        (bar(at_most=1.0, device="cuda"), "not measured here"),
        (bar(at_most=1.0, by="something else"), "not measured here"),
    ],
)
def test_bars_are_judged(given: bars.Bar, state: str) -> None:
    found = bars.verdict(given, planted(PEAKS, STEP))
    assert found.state == state
    assert (found.measured is None) == bool(found.why) == (state == "not measured here")


def test_a_contender_that_is_missing_says_why() -> None:
    assert bars.verdict(bar(at_most=1.0, theirs="Liger-Kernel"), planted(STEP)).why == "runs on a GPU only"


def test_every_bar_on_file_asks_for_what_is_measured() -> None:
    known = {*losses.LOSSES, losses.PRODUCTS, *draws.METHODS, *draws.TARGETS, draws.LOGSUMEXP, draws.READ}
    known |= {*stores.stores(2, 1), training.CE, training.RSKD, training.SECOND}
    known |= {training.READING, training.FORWARD, training.CACHING}
    on_file = bars.bars()
    assert len(on_file) > 20
    for each in on_file:
        assert (each.at_most is None) != (each.at_least is None), each
        if not each.by:
            assert each.part in parts.PARTS and each.ours in known and each.theirs in {"", *known}, each


def test_the_page_says_it_all(tmp_path: Path) -> None:
    whole = planted(STEP, PEAKS, *GROWN, *CREWS)
    verdicts = bars.judged(whole, bars.bars())
    text = page.write(whole, verdicts, tmp_path / "index.html").read_text()
    assert text.count("<svg") == 4  # time, memory, growth; growth of the cache
    assert "AMD EPYC &lt;7&gt;" in text and "runs on a GPU only" in text
    for verdict in verdicts:
        assert str(page.Markup.escape(verdict.bar.text)) in text
    assert "0.500 (0.460 to 0.540)" in text and "256 MiB" in text
    assert "<script" not in text and "<link" not in text


# the command


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Words that send what is made to a folder of the test; the parts measure nothing."""
    for name, groups in (("loss", [STEP]), ("draws", []), ("cache", []), ("training", [])):
        monkeypatch.setitem(parts.PARTS, name, lambda effort, groups=groups: iter(groups))
    return ["--results", str(tmp_path / "results"), "--build", str(tmp_path / "build")]


@pytest.mark.parametrize(("words", "kept"), [([], True), (["loss"], False), (["--quick"], False)])
def test_only_whole_runs_are_results(
    words: list[str], kept: bool, made: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main([*words, *made])
    assert len(list((tmp_path / "results").glob("*.json"))) == kept
    assert len(list((tmp_path / "build").glob("*.json"))) == (not kept)
    assert (tmp_path / "build" / "index.html").exists()
    said = capsys.readouterr()
    assert "RS-KD" in said.out and "not measured here" in said.out
    assert "loss: step" in said.err


def test_mistakes_get_one_line(made: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Unknown part 'los'. Known: loss, draws, cache, training."):
        command.main(["los", *made])
    with pytest.raises(SystemExit, match="no result of make bench"):
        command.main(["--show", str(tmp_path / "absent.json"), *made])

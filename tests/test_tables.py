"""What a printed exhibit says, in each of its forms, and the command line that prints it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from planted import exhibit, plant, plant_all, plant_exhibit, top_k
from rich.console import Console

from analysis import tables, terminal
from analysis.__main__ import main
from analysis.claims import STATES
from analysis.ledger import ledger, tally
from analysis.load import Record, records, shown_at
from analysis.matching import matches
from analysis.sheet import OURS, Sheet, sheet
from paper_tables.spec import Claim, load, names

ROOT = Path(__file__).parent.parent


@cache
def logged_here() -> list[Record]:
    return shown_at("laptop", ROOT / "results")


def better(first: str, second: str, name: str) -> Claim:
    return Claim(
        id=name,
        text=f"{first} beats {second}.",
        where="Section 2",
        relation="order",
        column="lm_loss",
        rows=[first, second],
    )


def made(logged: Path, local: Path | None = None, **fields) -> Sheet:
    return sheet(exhibit(**fields), "laptop", {"logged": records(logged), "yours": records(local) if local else []})


def cell(of: Sheet, row: str, column: str, voice: str = "logged") -> str:
    return of.text(of.exhibit.row(row), of.exhibit.column(column), voice)


def printed(of: Sheet, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    terminal.show(of, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_cell_has_mean_interval_and_seeds(tmp_path: Path) -> None:
    plant_all(tmp_path)
    # 3.82, 3.84, 3.80: sd 0.02, t(2, 0.975) = 4.3027, half-width 4.3027 * 0.02 / sqrt(3)
    assert cell(made(tmp_path), "CE", "lm_loss") == "3.820 ± 0.050 (3)"
    assert cell(made(tmp_path), "CE", "lm_loss", "published") == "2.81"
    assert cell(made(tmp_path), "CE", "lm_loss", "yours") == ""
    assert cell(made(tmp_path), "FullKD", "gap_closed") == "100.0 ± 0.0 (3)"


def test_one_seed_and_missing_seeds(tmp_path: Path) -> None:
    plant_all(tmp_path, {"CE": (3.8, 3.9, 3.7), "Top-K 12": (4.1,), "FullKD": (3.4, 3.5)})
    assert cell(made(tmp_path), "Top-K 12", "lm_loss") == "4.100 (1 of 3)"
    assert cell(made(tmp_path), "FullKD", "lm_loss").endswith("(2 of 3)")
    plant_all(tmp_path / "b", {"CE": (3.467,)})
    assert cell(made(tmp_path / "b"), "CE", "lm_loss") == "3.467 (1)"


def test_divergence_is_shown(tmp_path: Path) -> None:
    plant_all(tmp_path, {"CE": (3.8, 3.9), "FullKD": (3.4, 3.5)})
    for seed in (0, 1):
        plant(tmp_path, "topk", top_k(12), seed, {"lm_loss": None}, diverged=True)
    assert cell(made(tmp_path), "Top-K 12", "lm_loss") == "∞ (2)"
    assert cell(made(tmp_path), "Top-K 12", "gap_closed") == "diverged (2)"
    assert cell(made(tmp_path), "Top-K 12", "ece", "published") == "∞"


def test_divergence_of_some_seeds_is_shown(tmp_path: Path) -> None:
    plant(tmp_path, "topk", top_k(12), 0, {"lm_loss": None}, diverged=True)
    plant(tmp_path, "topk", top_k(12), 1, {"lm_loss": 3.0})
    assert cell(made(tmp_path), "Top-K 12", "lm_loss") == "∞ in 1 (2)"


def test_the_header_says_scale_words_corpus_seeds_and_hardware(tmp_path: Path) -> None:
    plant_all(tmp_path)
    text = " ".join(made(tmp_path).header)
    for word in ("laptop", "student 300M: llama", "tokens 10B: 819,200", "stdlib (c0ffee)", "3 seeds", "cores 2"):
        assert word in text


def test_empty_columns_have_a_footnote(tmp_path: Path) -> None:
    plant_all(tmp_path)
    assert made(tmp_path).title(exhibit().column("zero_shot")).endswith("[1]")
    assert "[1] 0-shot score: comes with a later issue." in made(tmp_path).notes


def test_rows_without_a_run_are_named(tmp_path: Path) -> None:
    plant_all(tmp_path, {"CE": (3.8,)})
    assert "logged: no finished run for 'Top-K 12', 'FullKD'." in made(tmp_path).notes


def test_what_was_left_out_is_said(tmp_path: Path) -> None:
    plant_all(tmp_path)
    plant(tmp_path, "full-other", {}, 5, {"lm_loss": 1.0}, corpus="beef")
    assert any("corpus beef instead of c0ffee" in note for note in made(tmp_path).notes)
    assert "(3)" in cell(made(tmp_path), "FullKD", "lm_loss")


def test_bad_news_comes_first(tmp_path: Path) -> None:
    plant_all(tmp_path, {"CE": (3.8, 3.81), "Top-K 12": (3.8, 3.82), "FullKD": (3.4, 3.41)})
    claims = [
        better("FullKD", "CE", "good"),
        Claim(id="none", text="t", where="w", relation="order", column="zero_shot", rows=["CE", "FullKD"]),
        better("CE", "Top-K 12", "unclear"),
        better("CE", "FullKD", "bad"),
    ]
    found = made(tmp_path, claims=claims).verdicts
    assert [claim.id for _, claim, _ in found] == ["bad", "unclear", "none", "good"]


def test_each_voice_is_judged_by_its_own_records(tmp_path: Path) -> None:
    plant_all(tmp_path / "a", {"CE": (3.8, 3.81), "FullKD": (3.4, 3.41)})
    plant_all(tmp_path / "b", {"CE": (3.4, 3.41), "FullKD": (3.8, 3.81)})
    found = made(tmp_path / "a", tmp_path / "b", claims=[better("FullKD", "CE", "x")]).verdicts
    assert [(voice, verdict.state) for voice, _, verdict in found] == [("yours", "fails"), ("logged", "holds")]


@pytest.mark.parametrize("width", [70, 100, 300])
def test_the_terminal_is_never_overrun(tmp_path: Path, width: int) -> None:
    plant_all(tmp_path)
    text = printed(made(tmp_path, tmp_path), width)
    assert max(map(len, text.splitlines())) <= width
    assert text.count("Top-K 12 ") == {70: 4, 100: 3, 300: 1}[width]
    for number in ("3.820 ± 0.050 (3)", "2.81", "-99"):
        assert number in text


def test_csv_is_long_and_tidy(tmp_path: Path) -> None:
    plant_all(tmp_path)
    lines = list(csv.DictReader(io.StringIO(tables.tidy(made(tmp_path)))))
    assert next(iter(lines[0])) == "row"
    by_key = {(line["row"], line["column"], line["voice"]): line for line in lines}
    logged = by_key["CE", "lm_loss", "logged"]
    assert float(logged["value"]) == pytest.approx(3.82) and logged["seeds"] == logged["seeds_expected"] == "3"
    assert float(logged["low"]) == pytest.approx(3.82 - 4.302653 * 0.02 / math.sqrt(3))
    assert by_key["Top-K 12", "ece", "published"]["value"] == "inf"
    assert ("CE", "zero_shot", "logged") not in by_key


def test_markdown_has_a_grid_of_equal_lines(tmp_path: Path) -> None:
    plant_all(tmp_path)
    grid = [line for line in tables.markdown(made(tmp_path)).splitlines() if line.startswith("|")]
    assert len(grid) == 5 and {line.count("|") for line in grid} == {14}


def test_runs_of_another_numerics_are_told_from_no_runs(tmp_path: Path) -> None:
    """CE's runs are of another loss; Top-K was never run. What needs CE waits, its share of the gap as well."""
    full = {"FullKD": (3.46, 3.47, 3.45)}
    plant_all(tmp_path, full)
    plant_all(tmp_path, {"CE": (3.8, 3.9)}, numerics={"loss": 0})
    claims = [better("FullKD", "CE", "waits"), better("FullKD", "Top-K 12", "never-run")]
    gap = Claim(id="gap", text="t", where="w", relation="within", column="gap_closed", rows=["FullKD"], low=50)
    of = made(tmp_path, claims=[*claims, gap])
    assert {claim.id: verdict.state for _, claim, verdict in of.verdicts} == {
        "waits": "waiting", "never-run": "untested", "gap": "waiting",
    }  # fmt: skip
    assert "logged: runs exist for 'CE', of another numerics." in of.notes
    assert "logged: no finished run for 'Top-K 12'." in of.notes
    assert of.status == "partly" and any(line.startswith("Partly replicated: nothing logged") for line in of.header)
    assert "WAITING" in printed(of, 120) and "**waiting**" in tables.markdown(of)
    plant_all(tmp_path / "whole")
    whole = made(tmp_path / "whole")
    assert whole.status == "replicated" and not any("artly" in line for line in whole.header)
    assert made(tmp_path / "nothing").status == "replicated"


@pytest.mark.parametrize("name", names())
def test_no_row_of_what_is_called_replicated_is_empty_although_runs_of_it_are_logged(name: str) -> None:
    given, logged = load(name), logged_here()
    of = sheet(given, "laptop", {"logged": logged, "yours": []})
    filled = {row for row, _ in of.cells["logged"]}
    empty = [row for row in given.rows if row.recipe is not None and row.label not in filled]
    # by what is on file, not by what was chosen of it
    run = {row.label for row in empty if any(matches(given.recipe_of(row) or {}, record) for record in logged)}
    assert of.status != "replicated" or not run
    told = [note for note in of.notes if note.startswith("logged: no finished run for ")]
    assert not any(repr(label) in note for label in run for note in told)


def test_latex_is_escaped(tmp_path: Path) -> None:
    plant_all(tmp_path)
    text = tables.latex(made(tmp_path))
    assert r"Top-K \& 100 \% planted\_numbers" in text and r"3.820 $\pm$ 0.050 (3)" in text and r"$\infty$" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert [line.replace(r"\&", "").count("&") for line in body] == [12, 12, 12]


def arguments(tmp_path: Path, *first: str) -> list[str]:
    return [*first, "--scale", "laptop", "--results", str(tmp_path / "results"), "--build", str(tmp_path / "build")]


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table6 = load("rskd/table06")
    plant_exhibit(tmp_path / "results" / "laptop", table6)
    plant_exhibit(tmp_path / "results" / "local" / "laptop", table6, seeds=1)
    unfinished = plant(tmp_path / "results" / "laptop", "begun", {}, 0, {})
    (unfinished / "summary.json").unlink()
    assert main(arguments(tmp_path, "table", "rskd/table06")) == 0
    out = capsys.readouterr().out
    assert "HOLDS" in out and "FAILS" in out and "1 unfinished runs" in out
    assert {path.name for path in (tmp_path / "build" / "rskd").iterdir()} == {
        "table06.md",
        "table06.csv",
        "table06.tex",
    }


def test_verdicts_of_all_exhibits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "verdicts")) == 0
    lines = capsys.readouterr().out.splitlines()
    reprints = [name for name in names() if load(name).reprints]
    assert len(lines) == sum(len(load(name).claims) for name in names() if name not in reprints) + len(reprints)
    told = [line for line in lines if " untested " not in line or " reprint " in line]
    for line, name in zip(told, reprints, strict=True):  # one line in the place of its claims
        there = load(name).reprints
        assert line.split()[:2] == [name, "reprint"] and line.endswith(
            f"({there}): logged {len(load(there).claims)} untested."
        )


@pytest.mark.parametrize("name", [name for name in names() if load(name).reprints])
def test_a_reprint_points_to_the_verdicts_of_its_exhibit_and_is_not_counted_again(tmp_path: Path, name: str) -> None:
    given = load(name)
    there = load(given.reprints)
    plant_exhibit(tmp_path / "logged", there)
    plant_exhibit(tmp_path / "yours", there)
    voices = {voice: records(tmp_path / voice) for voice in OURS}
    of, other = (sheet(exhibit, "laptop", voices) for exhibit in (given, there))
    assert of.verdicts == [] and of.status == "reprint"
    states = {
        voice: Counter(verdict.state for spoken, _, verdict in other.verdicts if spoken == voice) for voice in OURS
    }
    pointer = of.header[-1]
    said = re.fullmatch(rf"Verdicts of RS-KD Table \d \({given.reprints}\): logged (.+); yours (.+)\.", pointer)
    assert said and sum(states["logged"].values()) == len(there.claims)
    for voice, text in zip(OURS, said.groups(), strict=True):
        found = {word if word in STATES else f"{word}s": int(n) for n, word in map(str.split, text.split(", "))}
        assert found == dict(states[voice])
    assert " ".join(pointer.split()) in " ".join(printed(of, 120).split()) and pointer in tables.markdown(of)
    entries = [entry for entry in ledger(voices, ["rskd"]) if entry.exhibit in (name, there.name)]
    assert tally(entries)["rskd"]["ours"] == {state: states["logged"][state] for state in STATES}
    assert all(
        entry.reprints == there.name and entry.published.state != "untested" for entry in entries if not entry.ours
    )


def test_open_verdicts_say_what_to_run_fewest_seeds_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Following the advice fills the seeds that the claim asks for."""
    table6 = load("rskd/table06")
    plant_exhibit(tmp_path / "results" / "laptop", table6)
    for path in (tmp_path / "results" / "laptop").glob("*/summary.json"):  # noise as large as what sets rows apart
        summary = json.loads(path.read_text())
        noise = np.random.default_rng(sum(map(ord, path.parent.name))).normal(0, 0.2)
        summary["metrics"] = {name: value + noise for name, value in summary["metrics"].items()}
        path.write_text(json.dumps(summary))
    assert main(arguments(tmp_path, "verdicts", "--open")) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if not line.startswith(" " * 11)]
    more = [math.inf if head.split()[0] == "?" else int(head.split()[0]) for head in heads]
    assert more == sorted(more) and len(more) > 2 and 1 <= more[0] <= 20
    advice = lines[1].split("#")[0].split()
    assert advice[:3] == ["python", "-m", "workflow"] and advice[4:6] == ["--scale", "laptop"]
    assert advice[3] == heads[0].split()[2]
    seeds = [int(seed) for seed in advice[-1].split(",")]
    assert seeds == list(range(3, 3 + int(more[0]))) and "run" in lines[1].split("#")[1]


@pytest.mark.parametrize("command", ["table", "figure"])
def test_bad_input_is_one_line_and_2(tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, command, "rskd/table99")) == 2
    error = capsys.readouterr().err
    assert "rskd/table99" in error and error.count("\n") == 1


def test_a_broken_record_is_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (plant(tmp_path / "results" / "laptop", "full", {}, 0, {}) / "summary.json").write_text("{")
    assert main(arguments(tmp_path, "table", "rskd/table06")) == 2
    assert "summary.json" in capsys.readouterr().err


@pytest.mark.parametrize("name", names())
def test_every_exhibit_on_file_prints(tmp_path: Path, name: str) -> None:
    given = load(name)
    empty = sheet(given, "laptop", {"logged": [], "yours": []})
    assert printed(empty, 120) and tables.markdown(empty) and tables.latex(empty) and tables.tidy(empty)
    plant_exhibit(tmp_path, given)
    full = sheet(given, "laptop", {"logged": records(tmp_path), "yours": []})
    measured = {column.key for column in given.columns if not column.why}
    run = {row.label for row in given.rows if row.recipe is not None}
    states = {
        verdict.state
        for _, claim, verdict in full.verdicts
        if {*claim.columns, claim.column} - {""} <= measured and set(claim.rows) <= run
    }
    assert given.status == "published" or "untested" not in states
    assert printed(full, 120)
    assert given.status == "published" or "± " in tables.markdown(full)


def test_tables_import_neither_matplotlib_nor_torch() -> None:
    code = "import sys, analysis.__main__, analysis.terminal; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "analysis.terminal" in loaded and not loaded & {"torch", "matplotlib", "scipy.stats", "replication"}


def test_an_accuracy_stands_beside_its_interval_and_chance(tmp_path: Path) -> None:
    """By seed the mean of both; only where the record has them, and in percent where the column is."""
    given = load("rskd/table22")
    stated = given.recipe_of_cell(given.rows[0], given.columns[0])
    assert stated is not None and stated["probe"] == "zero_shot"
    for seed, accuracy in enumerate((0.25, 0.27)):
        beside = {"arc_easy_low": accuracy - 0.02, "arc_easy_high": accuracy + 0.02, "arc_easy_chance": 0.25}
        plant(tmp_path, "run", stated, seed, {"arc_easy": accuracy, "piqa": 0.5, **beside}, recipe=stated)
    made = sheet(given, "laptop", {"logged": records(tmp_path), "yours": []})
    arc, piqa = (made.text(given.rows[0], given.column(key), "logged") for key in ("arc_easy", "piqa"))
    assert arc.startswith("26.000 ± ") and arc.endswith("(2) [24.0 to 28.0, chance 25.0]")
    assert piqa.endswith("(2)") and any("what guessing reaches" in note for note in made.notes)

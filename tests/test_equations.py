"""paper_tables/equations: each equation against the oracle, what is found wrong, and that a planted error is found."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equation_oracles import ORACLES, PRINTED, WITHOUT

from paper_tables.equations import EQUATIONS, findings
from paper_tables.equations.equation import AGREE, Equation, arguments, compared, found, words

BY_NAME = {equation.name: equation for equation in EQUATIONS}
FINDINGS = dict(zip(BY_NAME, findings(), strict=True))

# What is wrong, and how badly: a change of either is to be noticed.
WRONG = {
    "rskd/appA5-ghost-tail": ("contradictory", "the whole loss's gradient is called that of its ghost term"),
    "rskd/sec4-proposal": ("inconsistent", "teacher ** tau does not sum to one"),
    "rskd/sec4-temperature": ("contradictory", "tau is called a temperature and is an inverse one"),
    "rskd/sec4-sum-of-ce": ("inconsistent", "the sum over draws is N times the loss"),
    "rskd/sec4-unbiased": ("inconsistent", "normalised ratios are biased unless tau is one"),
    "rskd/sec7.1-variance": ("inconsistent", "a normalised estimate may vary least at a tau far from one"),
    "rskd/appK-draws": ("inconsistent", "a repeated draw is overwritten"),
    "rskd/appK-kl-div": ("inconsistent", "the default reduction divides by the vocabulary too"),
    "rskd/appK-alpha": ("contradictory", "alpha weighs the other loss than in the text"),
    "rskd/appK-mlp-search": ("inconsistent", "the search may return V, or a class of probability zero"),
    "rskd/appK-toy-sampling": ("inconsistent", "a round is divided and added after every draw"),
    "rskd/appK-toy-unique": ("inconsistent", "the classes of every prefix are added up"),
    "rskd/appD1-128": ("inconsistent", "128 does not fit into 7 bits"),
    "sekd/sec7.1-full": ("inconsistent", "2 bytes a class are 20,000 TB"),
    "sekd/sec7.1-id-bits": ("inconsistent", "Qwen3's vocabulary needs 18 bits"),
    "sekd/sec7.1-unique": ("inconsistent", "U draws are fewer than U different classes"),
    "tad/eq2-kth": ("inconsistent", "the k - 1 first tokens are taken out, not the k - 1 most probable"),
    "tad/eq12-cases": ("inconsistent", "subscript i where the sum runs over k"),
    "tad/eq13": ("inconsistent", "the last sum runs over the teacher"),
    "tad/sec2.1-stronger": ("contradictory", "the tail's gradient may be weaker than that of KL"),
    "tad/sec2.1-tail-rises": ("contradictory", "a step may lower the tail mass"),
    "tad/sec2.1-second-term": ("contradictory", "the second term may lower the tail mass"),
    "sekd/eq3": ("inconsistent", "the teacher on a drawn subset is biased"),
    "sekd/eq6": ("inconsistent", "with ties no threshold gives exactly that many"),
    "sekd/eq4-drawn": ("inconsistent", "an indicator forgets how often a position was drawn"),
    "sekd/appA-zero-weight": ("inconsistent", "a position of weight zero is never drawn"),
    "sekd/sec5-corrected": ("inconsistent", "1 / q alone is N times Full KD"),
    "sekd/code-sample-ratio": ("contradictory", "the mean of positions' ratios is not the ratio of the losses"),
    "sekd/code-proposal": ("inconsistent", "positions are drawn from a softmax of the teacher's entropies"),
    "sekd/code-corrected": ("inconsistent", "the corrected draws lack 1 / N"),
    "sekd/code-random-count": ("inconsistent", "random positions are rounded down"),
    "sekd/code-length": ("inconsistent", "a short sequence gives as many positions as one of mean length"),
    "sekd/code-gls-switch": ("inconsistent", "the switch that GLS needs off is always on"),
    "sekd/code-ratio-entropy": ("inconsistent", "the entropy is divided by log V"),
    "sekd/code-counts": ("inconsistent", "counts are rounded to a grid of 127"),
    "sekd/code-ids": ("inconsistent", "17 bits cut ids of 131,072 and more"),
    "sekd/code-tail-entropy": ("inconsistent", "drawn without replacement, averaged as if with"),
    "sekd/code-cache-key": ("inconsistent", "all rows of a batch have one key"),
    "salt/eq3": ("contradictory", "rho is called a temperature and is an inverse one"),
    "salt/eq10": ("inconsistent", "tokens outside the top k count as zeros instead of being removed"),
    "salt/eq11": ("contradictory", "tau is called an inverse temperature and is a temperature"),
    "salt/alg1": ("inconsistent", "theta_n has seen n - 1 steps"),
    "salt/eq69": ("inconsistent", "(1 - omega) needs its square"),
    "salt/sec3.3-variance": ("contradictory", "the sum of V_t may grow with omega"),
    "salt/eq57": ("contradictory", "a subgaussian bound for lambda >= 0 says nothing of the other side"),
    "salt/eq60": ("inconsistent", "a factor N too many"),
    "salt/eq53": ("inconsistent", "R where R^omega is meant"),
    "salt/eq21": ("inconsistent", "the truth in the place of the label"),
    "salt/eq23": ("inconsistent", "M stands under a root"),
    "salt/eq64": ("contradictory", "the best model of a class is not the truth, and errors are summed over tokens"),
}
RIGHT = [equation for equation in EQUATIONS if equation.name not in WRONG]
MENDED = [equation for equation in EQUATIONS if equation.mended]


def at(side: Any, state: Any) -> np.ndarray:
    return np.asarray(np.real(side(**arguments(state))), float).ravel()


# the collection


def test_every_equation_is_found_once() -> None:
    assert len(BY_NAME) == len(EQUATIONS) == len(FINDINGS)
    for equation, finding in zip(EQUATIONS, FINDINGS.values(), strict=True):
        assert finding.relation == f"{equation.id}: {equation.statement}"
        assert (finding.paper, finding.exhibit, finding.place) == (
            equation.paper,
            f"{equation.paper}/equations",
            equation.where,
        )


@pytest.mark.parametrize("paper", ["rskd", "tad", "sekd", "salt"])
def test_every_paper_has_right_and_wrong_ones(paper: str) -> None:
    severities = {finding.severity for finding in FINDINGS.values() if finding.paper == paper}
    assert "consistent" in severities and len(severities) > 1


def test_states_can_be_read_off_and_typed_in_again() -> None:
    for equation in EQUATIONS:
        for state in equation.states:
            typed = eval(f"dict({words(state)})", {"nan": float("nan")})
            assert words(typed) == words(state)


def test_a_process_that_only_audits_is_quick_and_loads_no_torch() -> None:
    code = (
        "import sys, time\nfrom paper_tables.equations import findings\nfound = findings()\n"
        "assert 'torch' not in sys.modules\nprint(len(found), time.process_time())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    count, seconds = output.stdout.split()
    assert int(count) == len(EQUATIONS)
    assert float(seconds) < 3  # 0.8 on an idle core, the audit's own imports included


ROOT = Path(__file__).resolve().parent.parent

# against the oracle


def test_every_equation_has_an_oracle_or_a_reason() -> None:
    assert ORACLES.keys() | WITHOUT.keys() == BY_NAME.keys()
    assert not ORACLES.keys() & WITHOUT.keys()


@pytest.mark.parametrize("name", ORACLES)
def test_what_follows_agrees_with_the_oracle(name: str) -> None:
    for state in BY_NAME[name].states:
        expected = at(ORACLES[name], state)
        np.testing.assert_allclose(
            at(BY_NAME[name].truth, state), expected, rtol=AGREE, atol=AGREE, err_msg=words(state)
        )


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_printed_wrong_agrees_with_the_oracle_s_printed_version(name: str) -> None:
    for state in BY_NAME[name].states:
        expected = at(PRINTED[name], state)
        np.testing.assert_allclose(at(BY_NAME[name].printed, state), expected, rtol=AGREE, atol=AGREE)


# verdicts


def test_exactly_these_are_wrong() -> None:
    wrong = {name: finding.severity for name, finding in FINDINGS.items() if finding.severity != "consistent"}
    assert wrong == {name: severity for name, (severity, _) in WRONG.items()}


@pytest.mark.parametrize("equation", RIGHT, ids=lambda equation: equation.name)
def test_what_is_right_is_confirmed_on_all_states(equation: Equation) -> None:
    for state in equation.states:
        printed, truth = at(equation.printed, state), at(equation.truth, state)
        slack = 1e-9 * np.maximum(1, abs(truth))
        if equation.relation != "at most":
            assert (truth >= printed - slack).all(), words(state)
        if equation.relation != "at least":
            assert (truth <= printed + slack).all(), words(state)
    assert not equation.meant and equation.mended is None


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_comes_with_a_counterexample(name: str) -> None:
    """The finding alone says where: the state it prints, typed in again, gives the two values it prints."""
    equation, finding = BY_NAME[name], FINDINGS[name]
    printed, where = finding.printed.split(" at ", 1)
    state, _, entry = where.partition(", entry ")
    typed = eval(f"dict({state})", {"nan": float("nan")})
    said, truth = at(equation.printed, typed), at(equation.truth, typed)
    index = int(entry or 0)
    assert f"{said[index]:.6g}" == printed
    assert f"{truth[index]:.6g}" == finding.follows.split(",")[0]
    assert finding.low == finding.high == pytest.approx(truth[index])
    assert abs(said[index] - truth[index]) > 1e-6
    assert finding.note == f"Meant: {equation.meant}" and equation.meant


@pytest.mark.parametrize("equation", MENDED, ids=lambda equation: equation.name)
def test_what_was_meant_holds(equation: Equation) -> None:
    assert equation.mended is not None
    for state in equation.states:
        assert not compared(equation, equation.mended, state).apart.any(), words(state)


@pytest.mark.parametrize("name", [name for name, (severity, _) in WRONG.items() if severity == "contradictory"])
def test_contradictory_means_another_sign_or_a_broken_bound(name: str) -> None:
    equation = BY_NAME[name]
    comparisons = [compared(equation, equation.printed, state) for state in equation.states]
    if equation.relation == "equals":
        assert any((each.printed * each.truth < 0).any() for each in comparisons)
    else:
        assert any(each.apart.any() for each in comparisons)


# planted errors


def turned(equation: Equation) -> Equation:
    return replace(equation, printed=lambda **state: -np.asarray(equation.printed(**state), float))


def shifted(equation: Equation, by: float) -> Equation:
    return replace(equation, printed=lambda **state: np.asarray(equation.truth(**state), float) + by)


@pytest.mark.parametrize("equation", RIGHT, ids=lambda equation: equation.name)
def test_a_planted_error_is_found(equation: Equation) -> None:
    nonzero = any(abs(at(equation.printed, state)).max() > 1e-6 for state in equation.states)
    if equation.relation == "equals":
        if nonzero:
            assert found(turned(equation)).severity in ("inconsistent", "contradictory")
        assert found(shifted(equation, 1e-4)).severity in ("inconsistent", "contradictory")
        assert found(shifted(equation, 1e-13)).severity == "consistent"
    else:
        beyond, within = (-1e-4, 1e-4) if equation.relation == "at most" else (1e-4, -1e-4)
        assert found(shifted(equation, beyond)).severity == "contradictory"
        assert found(shifted(equation, within)).severity == "consistent"


def plain(printed: Any, truth: Any, relation: Any = "equals") -> Equation:
    states = ({"value": (1.0, 2.0)}, {"value": (3.0, -4.0)})
    return Equation("rskd", "eq0", "nowhere", "planted", printed, truth, states, relation)


def test_the_first_state_that_fails_is_shown_and_an_opposite_sign_before_it() -> None:
    smaller = found(plain(lambda value: value / 2, lambda value: value))
    assert smaller.severity == "inconsistent" and smaller.printed == "1 at value = (1.0, 2.0), entry 1"
    turned_round = found(plain(lambda value: abs(value), lambda value: value))
    assert turned_round.severity == "contradictory" and turned_round.printed == "4 at value = (3.0, -4.0), entry 1"
    assert turned_round.follows == "-4"


def test_a_zero_against_a_number_is_no_other_sign() -> None:
    assert found(plain(lambda value: 0 * value, lambda value: value)).severity == "inconsistent"


def test_an_undefined_printed_value_is_a_finding() -> None:
    assert found(plain(lambda value: value / 0 * 0, lambda value: value)).severity == "inconsistent"
    assert found(plain(lambda value: value + np.nan, lambda value: value, "at most")).severity == "contradictory"


def test_sides_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="rskd/eq0: one side has shape"):
        found(plain(lambda value: value.sum(), lambda value: value))


def test_a_consistent_finding_says_on_how_many_states() -> None:
    finding = found(plain(lambda value: value, lambda value: value))
    assert finding.printed == "1 at value = (1.0, 2.0), entry 0, and so at 1 more"
    assert (finding.severity, finding.note) == ("consistent", "")

"""An equation as printed beside what follows from its definitions, and the finding that executing both makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paper_tables.finding import Finding, Severity

Array = NDArray[Any]
Side = Callable[..., Any]  # takes a state's entries by name, returns a number or an array
State = Mapping[str, Any]  # numbers and tuples of numbers: to be read off a finding and typed in again
AGREE = 1e-9  # relative to the larger side, absolute below one: what rounding of floats may hide


@dataclass(frozen=True)
class Equation:
    paper: str
    id: str
    where: str  # the paper's number, section or listing
    statement: str  # what is printed, in our words
    printed: Side  # the printed side
    truth: Side  # what follows from definitions: by differentiation, enumeration, direct evaluation
    states: tuple[State, ...]  # plain ones first: the first that fails is the counterexample shown
    relation: Literal["equals", "at most", "at least"] = "equals"  # the truth is said to be ... the printed side
    meant: str = ""  # what it should say, where it is wrong
    mended: Side | None = None  # the printed side of what was meant

    @property
    def name(self) -> str:
        return f"{self.paper}/{self.id}"


@dataclass(frozen=True)
class Comparison:
    """Both sides at one state, flat, and where they are further apart than the relation allows."""

    state: State
    printed: Array
    truth: Array
    apart: NDArray[np.bool_]

    @property
    def opposite(self) -> NDArray[np.bool_]:
        return self.apart & (self.printed * self.truth < 0) & (np.minimum(abs(self.printed), abs(self.truth)) > AGREE)


def arguments(state: State) -> dict[str, Any]:
    """A state as its equation's sides take it. New arrays each time: a listing may write into them."""
    return {name: np.array(value) if isinstance(value, tuple) else value for name, value in state.items()}


def compared(equation: Equation, side: Side, state: State) -> Comparison:
    """`side` (the printed one or the mended one) against the truth."""
    with np.errstate(all="ignore"):  # a printed formula may well divide by zero: that is then the finding
        said, truth = (np.asarray(each(**arguments(state)), float) for each in (side, equation.truth))
    if said.shape != truth.shape:
        raise ValueError(f"{equation.name}: one side has shape {said.shape}, the truth {truth.shape}.")
    said, truth = said.ravel(), truth.ravel()
    slack = AGREE * np.maximum(1, np.maximum(abs(said), abs(truth)))
    excess = {"equals": abs(said - truth), "at most": truth - said, "at least": said - truth}[equation.relation]
    return Comparison(state, said, truth, ~(excess <= slack) & (said != truth))  # not <=: NaN is apart from everything


def found(equation: Equation) -> Finding:
    comparisons = [compared(equation, equation.printed, state) for state in equation.states]
    severity: Severity = "consistent"
    shown, entry = comparisons[0], 0
    wrong = [each for each in comparisons if each.apart.any()]
    if wrong:
        reversed_ = [each for each in wrong if each.opposite.any() or equation.relation != "equals"]
        severity = "contradictory" if reversed_ else "inconsistent"
        shown = (reversed_ or wrong)[0]
        candidates = shown.opposite if shown.opposite.any() else shown.apart
        entry = int(np.argmax(np.where(candidates, np.nan_to_num(abs(shown.printed - shown.truth), nan=np.inf), -1)))
    where = words(shown.state) + (f", entry {entry}" if len(shown.truth) > 1 else "")
    others = f", and so at {len(comparisons) - 1} more" if not wrong and len(comparisons) > 1 else ""
    truth = float(shown.truth[entry])
    return Finding(
        paper=equation.paper,
        exhibit=f"{equation.paper}/equations",
        place=equation.where,
        relation=f"{equation.id}: {equation.statement}",
        printed=f"{shown.printed[entry]:.6g} at {where}{others}",
        follows=f"{truth:.6g}" + ("" if equation.relation == "equals" else f", said to be {equation.relation} that"),
        low=truth,
        high=truth,
        severity=severity,
        note=f"Meant: {equation.meant}" if equation.meant else "",
    )


def words(state: State) -> str:
    return ", ".join(f"{name} = {value}" for name, value in state.items())

"""Checkpoints: of a run that goes on, by any number of processes; and of a finished student, for Hugging Face."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from transformers import PreTrainedModel

from replication.data.tokenizer import Tokenizer
from replication.machine.notes import note
from replication.machine.processes import World

Learnt = dict[str, torch.Tensor]  # what a position policy has learnt so far; most have nothing


def save(
    folder: Path, step: int, student: nn.Module, optimiser: torch.optim.Optimizer, learnt: Learnt, world: World
) -> None:
    """`folder`/<step>, complete by its rename; then older ones go."""
    place, draft = folder / f"{step:09}", folder / "draft"
    if world.first:
        shutil.rmtree(draft, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    world.wait()
    with alone_is_meant(), as_it_was(folder):
        dcp.save(state_of(student, optimiser, learnt), checkpoint_id=draft)
    world.wait()
    if world.first:
        shutil.rmtree(place, ignore_errors=True)
        draft.rename(place)
        for old in steps(folder)[:-1]:
            shutil.rmtree(old)
    world.wait()


def restore(folder: Path, student: nn.Module, optimiser: torch.optim.Optimizer, learnt: Learnt) -> int:
    """The step to go on from; 0 without a checkpoint. The number of processes may be another than at saving.

    What was `learnt` is read into the tensors that are given.
    """
    found = steps(folder)
    if not found:
        return 0
    state = state_of(student, optimiser, learnt)
    try:
        with alone_is_meant(), as_it_was(folder):
            dcp.load(state, checkpoint_id=found[-1])
    except Exception as error:  # whatever a file that is not what it was leads to
        words = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(
            f"The checkpoint {found[-1]} cannot be read ({words}). Delete it: the run goes on from the one before, or "
            "begins again."
        ) from error
    set_state_dict(student, optimiser, model_state_dict=state["student"], optim_state_dict=state["optimiser"])
    return int(found[-1].name)


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def weights_of(student: nn.Module) -> dict[str, Any]:
    """The whole weights of `student.model`, on the CPU; in the first process only, but all must ask."""
    state = get_model_state_dict(student, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name.removeprefix("model."): weight for name, weight in state.items()}


def steps(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())


def state_of(student: nn.Module, optimiser: torch.optim.Optimizer, learnt: Learnt) -> dict[str, Any]:
    weights, moments = get_state_dict(student, optimiser)
    return {"student": weights, "optimiser": moments, **({"positions": learnt} if learnt else {})}


@contextmanager
def as_it_was(folder: Path) -> Iterator[None]:
    """What torch's and Rust's writers met with, as itself: Ctrl-C a KeyboardInterrupt, a full disk an OSError."""
    try:
        yield
    except (CheckpointException, Exception) as error:
        met: BaseException = error
        if isinstance(error, CheckpointException):
            met = next(inner for inner, _ in error.failures.values())
        if number := system_error(met):
            raise OSError(number, os.strerror(number), str(folder)) from error
        if met is error:
            raise
        raise met from error


def system_error(error: BaseException | None) -> int:
    """The number of what the system refused, wherever it stands in a chain of errors or in their words; else 0."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            return error.errno
        if said := re.search(r"(?:os error |code: )([0-9]+)", str(error)):
            return int(said[1])
        error = error.__cause__ or error.__context__
    return 0


@contextmanager
def alone_is_meant() -> Iterator[None]:
    """One process saves by itself; torch warns that it might have been meant otherwise."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def publish(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """A checkpoint that AutoModelForCausalLM and AutoTokenizer load, complete or not there at all."""
    draft = folder.with_name(folder.name + ".draft")
    with as_it_was(folder):
        model.save_pretrained(draft)
        tokenizer.save(draft)
    if not tokenizer.comes_back(draft):
        note(
            f"beside a {model.config.model_type}, AutoTokenizer splits as that family does: load the tokenizer of "
            f"{folder} by PreTrainedTokenizerFast.from_pretrained"
        )
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)

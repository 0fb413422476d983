"""The training loop: one for teachers and for students of every method."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from replication.cache.reader import Reader
from replication.caching import Need, model_folder, teacher_for
from replication.evaluate.language_model import Tally
from replication.loss import distillation_loss
from replication.machine import Machine
from replication.model import build, load, logits_of, parameters
from replication.packing import Packing
from replication.recipe import Different, changed, resolved
from replication.record import Record, provenance, seed_for
from replication.run import Data, Run, data_for, order_of
from replication.scale import Optimiser
from replication.supervision import FromCache, FromOtherContext, FromTeacher, FromText, Supervision


def record_of(run: Run, machine: Machine) -> Record:
    return Record(machine.results / run.scale.name / run.id)


def train(run: Run, machine: Machine) -> Record:
    """Train and evaluate one run; does nothing if its record is complete, resumes if it was cut off.

    Leaves the record and, under artifacts, a Hugging Face checkpoint with its tokenizer.
    """
    record = record_of(run, machine)
    if record.done:
        return record
    data = data_for(run, machine.artifacts)
    open_record(record, run, data)
    vocabulary = data.tokenizer.vocabulary
    teacher = None if run.recipe.teacher == "none" else teacher_for(run, machine)
    student = starting_point(run, data).to(machine.device)
    supervision = supervision_of(run, data, teacher, machine)
    optimiser = torch.optim.AdamW(
        student.parameters(),
        lr=run.role.optimiser.peak_rate,
        betas=(run.role.optimiser.beta1, run.role.optimiser.beta2),
        weight_decay=0.0,  # RS-KD Table 17 says Adam and states no decay
        fused=True,
    )
    checkpoint = machine.artifacts / run.scale.name / "checkpoints" / f"{run.id}.pt"
    step = restore(checkpoint, student, optimiser)
    record.resume_at(step)

    batch = run.role.optimiser.batch
    order = order_of(run, data)
    began = step, time.perf_counter()
    progress = tqdm(total=run.steps, initial=step, desc=run.id, unit="step", mininterval=2.0)
    while step < run.steps:
        indices_B = order[np.arange(step * batch, (step + 1) * batch) % len(order)]
        rows = torch.from_numpy(data.train.rows(indices_B)).to(machine.device)
        tokens_BL, labels_BL = rows[:, :-1], rows[:, 1:]
        target = supervision(indices_B, tokens_BL, labels_BL)
        kd_weight, ce_weight = run.recipe.schedule(step / run.steps)
        rate = learning_rate(step, run.steps, run.role.optimiser)
        for group in optimiser.param_groups:
            group["lr"] = rate
        with machine.precision():
            logits_BLV = logits_of(student, tokens_BL, vocabulary)
        loss = distillation_loss(
            logits_BLV, labels_BL, target, run.recipe.divergence, run.recipe.positions, kd_weight, ce_weight
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(student.parameters(), run.role.optimiser.clip)
        nats, gradient_norm = float(loss.detach()), float(norm)
        if not math.isfinite(nats) or not math.isfinite(gradient_norm):
            record.log(step=step + 1, loss=nats, learning_rate=rate, gradient_norm=gradient_norm)
            record.finish({"lm_loss": math.inf}, {}, diverged=True)
            return record
        optimiser.step()
        step += 1
        progress.update()
        if step % run.scale.log_every == 0 or step == run.steps:
            tokens = step * batch * run.length
            seconds = round(time.perf_counter() - record.started, 3)
            record.log(
                step=step,
                tokens=tokens,
                loss=nats,
                learning_rate=rate,
                gradient_norm=gradient_norm,
                seconds=seconds,
            )
        if step % run.scale.checkpoint_every == 0:
            save(checkpoint, step, student, optimiser)
    progress.close()
    speed = (step - began[0]) * batch * run.length / max(time.perf_counter() - began[1], 1e-9)

    metrics, curves = evaluate(student, teacher, data.validation, run.scale.evaluation_sequences, vocabulary, machine)
    if isinstance(supervision, FromCache | FromOtherContext):
        manifest = supervision.reader.manifest
        metrics["unique_classes"] = manifest.classes / manifest.positions
    metrics["parameters"] = parameters(student)
    publish(student, data, model_folder(run, machine))
    record.finish(metrics, curves, tokens_per_second=round(speed, 1))
    checkpoint.unlink(missing_ok=True)
    return record


def open_record(record: Record, run: Run, data: Data) -> None:
    record.open(
        {
            **provenance(),
            "run_id": run.id,
            "recipe": resolved(run.recipe),
            "changed": changed(run.recipe),
            "scale": run.scale.name,
            "settings": run.settings(),
            "seed": run.seed,
            "corpus": data.corpus,
            "packing": data.train.fingerprint,
        }
    )


def starting_point(run: Run, data: Data) -> PreTrainedModel:
    """The student before its first step; under one seed every method starts from the same weights."""
    if run.recipe.student in run.scale.roles:
        seed = seed_for(run.seed, "init") % 2**63
        return build(run.role, data.tokenizer.vocabulary, run.length, data.tokenizer.end_of_text, seed).train()
    return load(run.recipe.student).float().train()


def supervision_of(run: Run, data: Data, teacher: PreTrainedModel | None, machine: Machine) -> Supervision:
    if not run.recipe.uses_teacher:
        return FromText()
    assert teacher is not None
    if not run.recipe.cached:
        return FromTeacher(teacher, run.recipe.target, data.tokenizer.vocabulary, run.seed, machine)
    need = Need(run)
    reader = Reader(need.folder(machine), need.expected(data, teacher))
    packing, rows_S = need.rows(data)
    if isinstance(run.recipe.alignment, Different):
        return FromOtherContext(reader, run.recipe.target, data.train, packing, rows_S)
    return FromCache(reader, run.recipe.target, rows_S)


def learning_rate(step: int, steps: int, optimiser: Optimiser) -> float:
    """Linear warm-up, then cosine from peak to final (RS-KD Tables 17 to 19)."""
    warmup = round(optimiser.warmup * steps)
    if step < warmup:
        return optimiser.peak_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return optimiser.final_rate + (optimiser.peak_rate - optimiser.final_rate) * (1 + math.cos(math.pi * done)) / 2


@torch.no_grad()
def evaluate(
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    held_out: Packing,
    sequences: int,
    vocabulary: int,
    machine: Machine,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics and curves on the first `sequences` held-out rows (all of them if there are fewer)."""
    student.eval()
    tally = Tally()
    for indices_B in np.array_split(np.arange(min(sequences, len(held_out))), max(1, sequences // 16)):
        if not len(indices_B):
            continue
        rows = torch.from_numpy(held_out.rows(indices_B)).to(machine.device)
        with machine.precision():
            logits_NV = logits_of(student, rows[:, :-1], vocabulary).flatten(0, 1)
            teacher_NV = None if teacher is None else logits_of(teacher, rows[:, :-1], vocabulary).flatten(0, 1)
        tally.add(logits_NV, rows[:, 1:].flatten(), teacher_NV)
    return tally.metrics(teacher is not None), {"reliability": tally.calibration.curve()}


def save(path: Path, step: int, student: PreTrainedModel, optimiser: torch.optim.Optimizer) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    torch.save({"step": step, "student": student.state_dict(), "optimiser": optimiser.state_dict()}, draft)
    draft.replace(path)


def restore(path: Path, student: PreTrainedModel, optimiser: torch.optim.Optimizer) -> int:
    """The step to go on from; 0 without a checkpoint."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    student.load_state_dict(state["student"])
    optimiser.load_state_dict(state["optimiser"])
    return state["step"]


def publish(student: PreTrainedModel, data: Data, folder: Path) -> None:
    """A checkpoint that AutoModelForCausalLM and AutoTokenizer load, complete or not there at all."""
    draft = folder.with_name(folder.name + ".draft")
    student.save_pretrained(draft)
    data.tokenizer.save(draft)
    if folder.exists():
        for old in folder.iterdir():
            old.unlink()
        folder.rmdir()
    draft.rename(folder)

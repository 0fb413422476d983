"""A student and its loss as one module: what DistributedDataParallel and FSDP wrap, and what one step calls."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replication.axes.hidden import NoHidden
from replication.axes.loss import distillation_loss
from replication.axes.targets.base import AnyTarget
from replication.axes.targets.drawing import Randomness
from replication.axes.writing import MiniLLM
from replication.experiment.recipe import Recipe
from replication.fused.head import TeacherStates
from replication.fused.loss import fused_loss
from replication.model.decoder import logits_and_states_of, logits_of
from replication.model.initialise import ends_of_parts
from replication.model.output_head import head_of, hidden_of, scaling_of, states_of
from replication.training.policy import Rollout, minillm_loss


class Student(nn.Module):
    """`student(tokens, labels, target, progress)` is the recipe's loss; no N x V logits where a head makes them.

    `positions` is the recipe's policy or, of one that learns from step to step, its state.
    """

    def __init__(self, model: PreTrainedModel, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        self.model, self.recipe, self.vocabulary = model, recipe, vocabulary
        self.scaling = scaling_of(model, vocabulary)
        self.positions = recipe.positions.begun(next(model.parameters()).device)

    def forward(
        self,
        tokens_BL: Tensor,
        labels_BL: Tensor,
        target: AnyTarget | TeacherStates,
        progress: float,
        generator: Randomness | None = None,
        mask_BL: Tensor | None = None,
        rollout: Rollout | None = None,
    ) -> Tensor:
        if rollout is not None:
            assert isinstance(self.recipe.writing, MiniLLM)
            known = target.whole() if isinstance(target, TeacherStates) else target
            logits_BLV = logits_of(self.model, tokens_BL, self.vocabulary)
            return minillm_loss(logits_BLV, labels_BL, known, rollout, self.recipe.writing)
        how = (self.recipe.divergence, self.positions, *self.recipe.schedule(progress), progress, generator)
        compared = not isinstance(self.recipe.hidden, NoHidden) and self.recipe.schedule(progress)[0] > 0
        if self.scaling is not None:
            head = head_of(self.model, self.vocabulary, self.scaling)
            every = compared and self.recipe.hidden.layers == "every"
            states = states_of(self.model, tokens_BL) if every else [hidden_of(self.model, tokens_BL)]
            beside_N = self.beside(states, target) if compared else None
            return fused_loss(states[-1], head, labels_BL, target, *how, beside_N, mask_BL)
        whole = target.whole() if isinstance(target, TeacherStates) else target
        if not compared:
            logits_BLV = logits_of(self.model, tokens_BL, self.vocabulary)
            return distillation_loss(logits_BLV, labels_BL, whole, *how, None, mask_BL)
        logits_BLV, states = logits_and_states_of(self.model, tokens_BL, self.vocabulary)
        return distillation_loss(logits_BLV, labels_BL, whole, *how, self.beside(states, target), mask_BL)

    def beside(self, states: list[Tensor], target: AnyTarget | TeacherStates) -> Tensor:
        """What the recipe's term on hidden states adds at each position; `states` [B, L, D] end with the last ones."""
        if not isinstance(target, TeacherStates):
            raise ValueError(
                f"Hidden {type(self.recipe.hidden).__name__} needs the teacher's hidden states, and this teacher's "
                "logits are more than its head times them, so that only they are handed on. Leave hidden out."
            )
        theirs = [target.hidden_ND]
        if self.recipe.hidden.layers == "every":
            theirs = [target.layers[number] for number in ends_of_parts(len(states), len(target.layers))]
        mine = [states_BLD.flatten(0, 1) for states_BLD in states[-len(theirs) :]]
        return self.recipe.hidden(torch.stack(mine), torch.stack(theirs))

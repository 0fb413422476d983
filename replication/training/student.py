"""A student and its loss as one module: what DistributedDataParallel and FSDP wrap, and what one step calls."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from replication.axes.divergences import ForwardKL
from replication.axes.hidden import NoHidden
from replication.axes.loss import distillation_loss
from replication.axes.positions import AllPositions
from replication.axes.schedules import begun
from replication.axes.targets.base import AnyTarget, DenseTarget, one_hot
from replication.axes.targets.drawing import Randomness
from replication.axes.targets.kept import Full
from replication.axes.writing import MiniLLM
from replication.experiment.recipe import Recipe
from replication.fused.head import Head, TeacherStates
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
        self.pace = begun(recipe.schedule)

    def forward(
        self,
        tokens_BL: Tensor,
        labels_BL: Tensor,
        target: AnyTarget | TeacherStates,
        progress: float,
        generator: Randomness | None = None,
        mask_BL: Tensor | None = None,
        rollout: Rollout | None = None,
        look: bool = False,
    ) -> Tensor:
        """`look`: the pace is to see how far the student is behind its teacher on these labels."""
        if rollout is not None:
            assert isinstance(self.recipe.writing, MiniLLM)
            known = target.whole() if isinstance(target, TeacherStates) else target
            logits_BLV = logits_of(self.model, tokens_BL, self.vocabulary)
            return minillm_loss(logits_BLV, labels_BL, known, rollout, self.recipe.writing)
        how = (self.recipe.divergence, self.positions, *self.pace(progress), progress, generator)
        compared = not isinstance(self.recipe.hidden, NoHidden) and self.pace(progress)[0] > 0
        if self.scaling is not None:
            head = head_of(self.model, self.vocabulary, self.scaling)
            every = compared and self.recipe.hidden.layers == "every"
            states = states_of(self.model, tokens_BL) if every else [hidden_of(self.model, tokens_BL)]
            if look:
                own = on_labels(states[-1].detach(), head, labels_BL, mask_BL)
                self.pace.see(own - self.teachers_loss(labels_BL, target, mask_BL))
            beside_N = self.beside(states, target) if compared else None
            return fused_loss(states[-1], head, labels_BL, target, *how, beside_N, mask_BL)
        whole = target.whole() if isinstance(target, TeacherStates) else target
        beside_N = None
        if compared:
            logits_BLV, states = logits_and_states_of(self.model, tokens_BL, self.vocabulary)
            beside_N = self.beside(states, target)
        else:
            logits_BLV = logits_of(self.model, tokens_BL, self.vocabulary)
        if look:
            own = plain_loss(logits_BLV.detach(), labels_BL, mask_BL)
            self.pace.see(own - self.teachers_loss(labels_BL, target, mask_BL))
        return distillation_loss(logits_BLV, labels_BL, whole, *how, beside_N, mask_BL)

    @torch.no_grad()
    def teachers_loss(self, labels_BL: Tensor, target: AnyTarget | TeacherStates, mask_BL: Tensor | None) -> Tensor:
        """The teacher's own cross-entropy on the labels, whatever exponent its target has."""
        if isinstance(target, TeacherStates):
            return on_labels(target.hidden_ND.view(*labels_BL.shape, -1), target.head, labels_BL, mask_BL)
        assert isinstance(target, DenseTarget) and isinstance(self.recipe.target, Full)
        logits_NV = target.probs_NV.log() / self.recipe.target.exponent
        return plain_loss(logits_NV.view(*labels_BL.shape, -1), labels_BL, mask_BL)

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


@torch.no_grad()
def on_labels(hidden_BLD: Tensor, head: Head, labels_BL: Tensor, mask_BL: Tensor | None) -> Tensor:
    """Cross-entropy of the labels, nats a position that is trained."""
    plain = one_hot(labels_BL.flatten()), ForwardKL(), AllPositions(), 0.0, 1.0
    return fused_loss(hidden_BLD, head, labels_BL, *plain, mask_BL=mask_BL)


@torch.no_grad()
def plain_loss(logits_BLV: Tensor, labels_BL: Tensor, mask_BL: Tensor | None) -> Tensor:
    plain = one_hot(labels_BL.flatten()), ForwardKL(), AllPositions(), 0.0, 1.0
    return distillation_loss(logits_BLV, labels_BL, *plain, 0.0, None, None, mask_BL)

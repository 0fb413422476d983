"""A student and its loss as one module: what DistributedDataParallel and FSDP wrap, and what one step calls."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PreTrainedModel

from replication import fused, loss
from replication.head import TeacherStates
from replication.model import head_of, hidden_of, is_linear, logits_of
from replication.recipe import Recipe
from replication.targets import AnyTarget


class Student(nn.Module):
    """`student(tokens, labels, target, progress)` is the recipe's loss; no N x V logits where the head is linear."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        self.model, self.recipe, self.vocabulary = model, recipe, vocabulary
        self.fused = is_linear(model, vocabulary)

    def forward(
        self, tokens_BL: Tensor, labels_BL: Tensor, target: AnyTarget | TeacherStates, progress: float
    ) -> Tensor:
        recipe, weights = self.recipe, self.recipe.schedule(progress)
        if self.fused:
            states_BLD, head = hidden_of(self.model, tokens_BL), head_of(self.model, self.vocabulary)
            return fused.distillation_loss(
                states_BLD, head, labels_BL, target, recipe.divergence, recipe.positions, *weights
            )
        logits_BLV = logits_of(self.model, tokens_BL, self.vocabulary)
        whole = target.whole() if isinstance(target, TeacherStates) else target
        return loss.distillation_loss(logits_BLV, labels_BL, whole, recipe.divergence, recipe.positions, *weights)

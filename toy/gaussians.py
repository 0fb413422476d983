"""Gaussian classes about known centres: points to learn from, and the truth about each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class Problem:
    """Points about class centres, isotropic Gaussian noise, equal priors. Centres [V, D] and widths [V], float64."""

    centres_VD: Tensor
    sigma_V: Tensor

    def batch(self, size: int, dtype: torch.dtype, random: Generator) -> tuple[Tensor, Tensor]:
        """Fresh points [N, D] and their classes [N]."""
        shape = (size, self.centres_VD.shape[1])
        labels_N = torch.randint(len(self.sigma_V), shape[:1], device=random.device, generator=random)
        noise_ND = torch.randn(shape, dtype=dtype, device=random.device, generator=random)
        return self.centres_VD.to(dtype)[labels_N] + self.sigma_V.to(dtype)[labels_N, None] * noise_ND, labels_N

    def log_posterior(self, points_ND: Tensor) -> Tensor:
        """log P(class | point), [N, V] float64: Bayes's rule for N(centre, sigma^2 I) at equal priors."""
        # about the middle of the centres: the narrowest classes divide what the subtraction cancels by 1e-6 and less
        middle_D = self.centres_VD.mean(0)
        points_ND, centres_VD = points_ND.double() - middle_D, self.centres_VD - middle_D
        squares_NV = points_ND.square().sum(1, keepdim=True) + centres_VD.square().sum(1)
        distance_NV = (squares_NV - 2 * points_ND @ centres_VD.T).clamp_min(0)
        log_density_NV = -distance_NV / (2 * self.sigma_V.square()) - points_ND.shape[1] * self.sigma_V.log()
        return log_density_NV.log_softmax(1)


def drawn(classes: int, dimensions: int, sigma: float, random: Generator) -> Problem:
    """Centres uniform in the unit cube, widths uniform up to `sigma` (RS-KD App. K)."""
    look: dict[str, Any] = {"dtype": torch.float64, "device": random.device, "generator": random}
    centres_VD = torch.rand(classes, dimensions, **look)
    # one minus: a uniform number may be 0, and a class without width has no density
    return Problem(centres_VD, sigma * (1 - torch.rand(classes, **look)))

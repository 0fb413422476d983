"""A hundred classes of images of our own, for a machine without CIFAR-100: textured blobs, ten outlines in ten grains.

The class is 10 * outline + grain. What the class decides (the angle of the grain, the depth of the outline's lobes) is
drawn with a spread about the class's own value, so that neighbouring classes overlap and no network reaches 100 %.
"""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor

from replication.seeds import generator

OUTLINES, GRAINS, SIDE = 10, 10, 32
ANGLE_SPREAD = math.radians(4.5)  # grains lie 10 degrees apart: a perfect eye tells about three of four
DEPTH_SPREAD = 0.05
CHUNK = 1000  # images at a time


def split(name: str, images: int) -> tuple[Tensor, Tensor]:
    """`images` pictures [N, 32, 32, 3] uint8 and their labels [N] int64, as many of each class; always the same."""
    draws = generator(0, "shapes", name)
    labels_N = (torch.arange(images) % (OUTLINES * GRAINS))[torch.randperm(images, generator=draws)]
    return torch.cat([picture(labels_C, draws) for labels_C in labels_N.split(CHUNK)]), labels_N


def picture(labels_N: Tensor, draws: Generator) -> Tensor:
    """One picture per label, [N, 32, 32, 3] uint8: a blob with grain on a ground with other grain, and noise."""
    n = len(labels_N)
    outline_N, grain_N = labels_N // GRAINS, labels_N % GRAINS

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=draws)

    def normal(spread: float) -> Tensor:
        return spread * torch.randn(n, 1, 1, generator=draws)

    axis = torch.linspace(-1, 1, SIDE)
    x_NHW, y_NHW = axis[None, None, :] - uniform(-0.25, 0.25), axis[None, :, None] - uniform(-0.25, 0.25)
    # two to six lobes, shallow or deep
    lobes_N11 = (2 + outline_N // 2)[:, None, None]
    depth_N11 = (0.12 + 0.2 * (outline_N % 2))[:, None, None] + normal(DEPTH_SPREAD)
    wave_NHW = (lobes_N11 * (torch.atan2(y_NHW, x_NHW) + uniform(0, 2 * math.pi))).cos()
    edge_NHW = uniform(0.5, 0.75) * (1 + depth_N11 * wave_NHW)
    inside_NHW = ((edge_NHW - (x_NHW**2 + y_NHW**2).sqrt()) * 12).sigmoid()

    # leaning left or right by 0 to 90 degrees: a picture seen in a mirror keeps its class
    lean_N11 = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    angle_N11 = lean_N11 * (grain_N * math.pi / 2 / (GRAINS - 1))[:, None, None] + normal(ANGLE_SPREAD)
    across_NHW = x_NHW * angle_N11.cos() + y_NHW * angle_N11.sin()
    grain_NHW = 0.5 + 0.5 * (uniform(9, 14) * across_NHW + uniform(0, 2 * math.pi)).sin()
    other_N11 = uniform(0, math.pi)
    ground_NHW = (uniform(4, 16) * (x_NHW * other_N11.cos() + y_NHW * other_N11.sin()) + uniform(0, 2 * math.pi)).sin()

    light_N4C = torch.rand(n, 4, 3, generator=draws)[:, :, None, None, :]  # of grain (twice), ground, and its waves
    blob = light_N4C[:, 0] + (light_N4C[:, 1] - light_N4C[:, 0]) * grain_NHW[..., None]
    ground = light_N4C[:, 2] + 0.3 * (light_N4C[:, 3] - 0.5) * ground_NHW[..., None]
    colour = ground + (blob - ground) * inside_NHW[..., None]
    noise = 0.08 * torch.randn(n, SIDE, SIDE, 3, generator=draws)
    return ((colour + noise).clamp(0, 1) * 255).round().to(torch.uint8)

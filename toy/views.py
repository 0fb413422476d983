"""Training images as a network sees them: in a new order each epoch, cropped at random places and mirrored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn.functional import pad

BORDER = 4  # black pixels on each side, of which a crop shows at most as many (He et al. 2016, Section 4.2)


@dataclass(frozen=True, eq=False)
class Views:
    """`images_NHWC` uint8 without border, `labels_N` int64; channels are scaled by these images' mean and deviation."""

    images_NHWC: Tensor
    labels_N: Tensor
    padded_NHWC: Tensor
    mean_C: Tensor
    deviation_C: Tensor

    @classmethod
    def of(cls, pixels: np.ndarray, labels: np.ndarray, device: torch.device) -> Views:
        images_NHWC = torch.from_numpy(pixels).to(device)
        flat_MC = pixels.reshape(-1, pixels.shape[-1])
        # one: a channel that never changes is not divided by zero
        mean, deviation = flat_MC.mean(0, dtype=np.float64), flat_MC.std(0, dtype=np.float64).clip(min=1)
        return cls(
            images_NHWC,
            torch.from_numpy(labels).long().to(device),
            pad(images_NHWC, (0, 0, BORDER, BORDER, BORDER, BORDER)),
            torch.tensor(mean, dtype=torch.get_default_dtype(), device=device),
            torch.tensor(deviation, dtype=torch.get_default_dtype(), device=device),
        )

    def epoch(self, batch: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
        """Images [B, C, H, W] float32 and labels [B], each image at most once; the rest below a batch is left out."""
        n, (height, width) = len(self.labels_N), self.images_NHWC.shape[1:3]
        order_N = torch.randperm(n, generator=generator)
        top_N, left_N = torch.randint(0, 2 * BORDER + 1, (2, n), generator=generator)
        mirrored_N = torch.rand(n, generator=generator) < 0.5
        across_W = torch.arange(width)
        row_NH = top_N[:, None] + torch.arange(height)
        column_NW = left_N[:, None] + torch.where(mirrored_N[:, None], across_W.flip(0), across_W)
        for at in range(0, n - batch + 1, batch):
            chosen = slice(at, at + batch)
            index_B, row_BH, column_BW = (
                part[chosen].to(self.labels_N.device) for part in (order_N, row_NH, column_NW)
            )
            seen_BHWC = self.padded_NHWC[index_B[:, None, None], row_BH[:, :, None], column_BW[:, None, :]]
            yield self.scaled(seen_BHWC), self.labels_N[index_B]

    def scaled(self, images_NHWC: Tensor) -> Tensor:
        """[N, C, H, W] in torch's default precision, float32, in the layout of the device."""
        scaled_NHWC = (images_NHWC.to(self.mean_C.dtype) - self.mean_C) / self.deviation_C
        return scaled_NHWC.permute(0, 3, 1, 2).contiguous(memory_format=layout(scaled_NHWC.device))


def layout(device: torch.device) -> torch.memory_format:
    """How images and filters lie in memory: channels last where that is safe."""
    # on a CPU torch 2.13's backward pass then writes past its buffers unless channels come in eights
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format

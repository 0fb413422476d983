"""A residual network for small images (He et al. 2016): ResNet-18 where `blocks` is 2 and `width` is 64."""

from __future__ import annotations

from collections import OrderedDict

from torch import Generator, Tensor, nn

from replication.axes.targets.base import at_least_one

STAGES = 4  # each twice as wide as the one before and, from the second on, half as high and wide


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: the basic block of He et al., Figure 2."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            convolution(before, width, stride), nn.BatchNorm2d(width), nn.ReLU(),
            convolution(width, width, 1), nn.BatchNorm2d(width),
        )  # fmt: skip
        same = stride == 1 and before == width
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x_BDHW: Tensor) -> Tensor:
        return (self.path(x_BDHW) + self.shortcut(x_BDHW)).relu()


def convolution(before: int, width: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, stride, padding=1, bias=False)


def resnet(width: int, blocks: int, stem: int, classes: int, generator: Generator) -> nn.Sequential:
    """Images [B, 3, H, W] to logits [B, classes]. The first convolution is 3 x 3 with stride `stem`, without pooling.

    `width` channels in the first of four stages of `blocks` blocks. Weights are drawn from `generator` alone, so that
    one seed gives one network. Raises ValueError for sizes below one.
    """
    for name, value in (("width", width), ("blocks", blocks), ("stem", stem), ("classes", classes)):
        at_least_one(name, value)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = nn.Sequential(convolution(3, width, stem), nn.BatchNorm2d(width), nn.ReLU())
    before = width
    for stage in range(STAGES):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers[f"stage{stage + 1}block{block + 1}"] = Block(before, width * 2**stage, stride)
            before = width * 2**stage
    layers["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    layers["head"] = nn.Linear(before, classes)
    network = nn.Sequential(layers)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            nn.init.zeros_(module.bias)
    return network

"""What networks of several resolutions share: their shape, the stem, and the heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.models.resnet import Bottleneck, convolution, init_convolutions
from poise.nn.multiscale import Scales


@dataclass(frozen=True)
class Architecture:
    """The shape of a network of several resolutions, which `MDEQ` and its explicit peer `MultiscaleNet` read alike.

    `channels`: of each scale, the finest first. `expansion`, `groups`, `dropout`, `weight_norm`: as in
    `MultiscaleCell`. `downsamplings`: how many of the stem's two convolutions have stride 2: 0 for pictures of about
    32x32, 2 for larger ones. `in_channels`: of the pictures. `head_width`, `head_features`: of the classification head
    (`ClassificationHead`).
    """

    channels: tuple[int, ...]
    expansion: int = 5
    groups: int = 8
    dropout: float = 0.0
    weight_norm: bool = True
    downsamplings: int = 0
    in_channels: int = 3
    head_width: int = 26
    head_features: int = 2048


@dataclass(frozen=True)
class Predictions:
    """What the heads say of a batch; None where the network has no such head."""

    classes: Tensor | None  # logits (batch, classes)
    pixels: Tensor | None  # logits (batch, pixel_classes, height, width), of the pictures' size


class MultiscaleNetwork(nn.Module, ABC):
    """A stem, a trunk that returns feature maps at several scales, and one head or both on them.

    `classes`, `pixel_classes`: of the classification and of the segmentation head; None leaves a head out, and with
    both, one trunk serves both tasks. A subclass brings the trunk, in `scales`.
    """

    def __init__(self, architecture: Architecture, classes: int | None, pixel_classes: int | None) -> None:
        super().__init__()
        for name, number in (("classes", classes), ("pixel_classes", pixel_classes)):
            if number is not None and number < 1:
                raise ValueError(f"{type(self).__name__}({name}={number}) tells nothing apart; pass at least 1.")
        if architecture.downsamplings not in (0, 1, 2):
            raise ValueError(
                f"downsamplings={architecture.downsamplings} of the stem's two convolutions; pass 0, 1 or 2."
            )
        self.architecture = architecture
        self.stem = build_stem(architecture.in_channels, architecture.channels[0], architecture.downsamplings)
        self.classifier = (
            None
            if classes is None
            else ClassificationHead(architecture.channels, classes, architecture.head_width, architecture.head_features)
        )
        self.segmenter = None if pixel_classes is None else SegmentationHead(architecture.channels, pixel_classes)

    @abstractmethod
    def scales(self, x: Tensor) -> Scales:
        """Return the trunk's feature maps of pictures (B, in_channels, H, W), the finest first."""

    def heads(self, scales: Scales, size: Sequence[int]) -> Predictions:
        """Return what every head says of feature maps of pictures with that height and width."""
        return Predictions(
            None if self.classifier is None else self.classifier(scales),
            None if self.segmenter is None else self.segmenter(scales, size),
        )

    def forward(self, x: Tensor) -> Predictions:
        """Return the predictions of all heads, the trunk being evaluated once, for pictures (B, in_channels, H, W)."""
        return self.heads(self.scales(x), x.shape[-2:])

    def classify(self, x: Tensor) -> Tensor:
        """Return logits (B, classes) of pictures (B, in_channels, H, W)."""
        if self.classifier is None:
            raise ValueError(f"this {type(self).__name__} has no classification head; make it with classes=10.")
        return self.classifier(self.scales(x))

    def segment(self, x: Tensor) -> Tensor:
        """Return logits (B, pixel_classes, H, W) of every pixel of pictures (B, in_channels, H, W)."""
        if self.segmenter is None:
            raise ValueError(f"this {type(self).__name__} has no segmentation head; make it with pixel_classes=11.")
        return self.segmenter(self.scales(x), x.shape[-2:])


class ClassificationHead(nn.Module):
    """Every scale made wider, brought down to the coarsest and summed, then pooled.

    A bottleneck takes scale i to 4 `width` 2^i channels; 3x3 convolutions of stride 2 carry the running sum from scale
    to scale, a 1x1 convolution makes it `features` channels, and a linear layer reads their mean over positions. As in
    HRNet (Wang et al. 2020, "Deep high-resolution representation learning", section 4), which multiscale DEQ takes its
    heads from.
    """

    def __init__(self, channels: tuple[int, ...], classes: int, width: int, features: int) -> None:
        super().__init__()
        widths = [width * 2**scale for scale in range(len(channels))]
        out = [each * Bottleneck.expansion for each in widths]
        self.increase = nn.ModuleList(Bottleneck(*sizes) for sizes in zip(channels, widths, strict=True))
        self.down = nn.ModuleList(
            nn.Sequential(*convolution(before, after, 3, 2), nn.ReLU(inplace=True)) for before, after in pairwise(out)
        )
        self.final = nn.Sequential(*convolution(out[-1], features, 1), nn.ReLU(inplace=True))
        self.linear = nn.Linear(features, classes)
        init_convolutions(self)

    def forward(self, scales: Scales) -> Tensor:
        """Return logits (B, classes)."""
        y, *others = (increase(part) for increase, part in zip(self.increase, scales, strict=True))
        for down, other in zip(self.down, others, strict=True):
            y = other + down(y)
        return self.linear(self.final(y).mean(dim=(2, 3)))


class SegmentationHead(nn.Module):
    """Every scale brought up to the finest, concatenated, and classified pixel by pixel by two 1x1 convolutions.

    Bilinear, to the finest scale as to the pictures' size. As in HRNet (Wang et al. 2020, section 5).
    """

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        width = sum(channels)
        self.mix = nn.Sequential(*convolution(width, width, 1), nn.ReLU(inplace=True))
        self.linear = nn.Conv2d(width, classes, 1)
        init_convolutions(self)

    def forward(self, scales: Scales, size: Sequence[int]) -> Tensor:
        """Return logits (B, classes, *size)."""
        finest = scales[0].shape[-2:]
        together = torch.cat([resized(part, finest) for part in scales], dim=1)
        return resized(self.linear(self.mix(together)), size)


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, C, *size) by bilinear interpolation; the same tensor where it has that size."""
    same = tuple(x.shape[-2:]) == tuple(size)
    return x if same else F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def build_stem(in_channels: int, width: int, downsamplings: int) -> nn.Sequential:
    """Return two 3x3 convolutions with batch norm and ReLU, the first `downsamplings` of them of stride 2."""
    first, second = (2 if place < downsamplings else 1 for place in range(2))
    stem = nn.Sequential(
        *convolution(in_channels, width, 3, first),
        nn.ReLU(inplace=True),
        *convolution(width, width, 3, second),
        nn.ReLU(inplace=True),
    )
    init_convolutions(stem)
    return stem

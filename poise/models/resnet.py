"""Residual networks for pictures: an encoder, or a classifier where a head is asked for."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

Stem = Literal["imagenet", "cifar", "stride2"]


class BasicBlock(nn.Module):
    """relu(x + BN(conv3x3(relu(BN(conv3x3(x)))))), the shortcut projected where the shape changes."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *convolution(in_channels, channels, 3, stride), nn.ReLU(inplace=True), *convolution(channels, channels, 3)
        )
        self.shortcut = shortcut(in_channels, channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, H / stride, W / stride) of x (B, in_channels, H, W)."""
        return (self.shortcut(x) + self.residual(x)).relu_()


class Projection(nn.Conv2d):
    """A 1x1 convolution of every `stride`-th row and column.

    The pixels are picked first: the convolution with that stride writes past its weights' gradient where it has 2 to 7
    channels in channels-last, on CPUs with AVX2 and no AVX-512 (oneDNN issue 6035).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, 1, bias=False)
        self.step = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, out_channels, H / stride, W / stride), rounded up, of x (B, in_channels, H, W)."""
        return super().forward(x[..., :: self.step, :: self.step])


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, the last to four times the channels; the stride is the 3x3's."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.residual = nn.Sequential(
            *convolution(in_channels, channels, 1),
            nn.ReLU(inplace=True),
            *convolution(channels, channels, 3, stride),
            nn.ReLU(inplace=True),
            *convolution(channels, out_channels, 1),
        )
        self.shortcut = shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, 4 channels, H / stride, W / stride) of x (B, in_channels, H, W)."""
        return (self.shortcut(x) + self.residual(x)).relu_()


class ResNet(nn.Module):
    """Stem, four stages of residual blocks at widths `width` times 1, 2, 4 and 8, and the mean over positions.

    `layers`: blocks of each stage. `n_classes`: of a linear head; None returns the means themselves. `features`: how
    many numbers it returns a sample, with a head or without.
    `stem`: "imagenet" is a 7x7 convolution of stride 2 and a max-pool of stride 2; "cifar" a 3x3 of stride 1, for
    pictures of about 32x32; "stride2" a 3x3 of stride 2, a quarter of its cost. `zero_init_residual`: blocks begin as
    their shortcut (Goyal et al. 2017).

    He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition", table 1; the stride of a bottleneck
    in its 3x3 convolution as in Goyal et al. (2017), "Accurate, large minibatch SGD". `resnet18(width=8, stem="cifar",
    n_classes=10)` has 176 thousand parameters: the explicit peer of `MDEQ("tiny")`, which has 173.

    >>> resnet18(stem="cifar")(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 512])
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        *,
        width: int = 64,
        in_channels: int = 3,
        n_classes: int | None = None,
        stem: Stem = "imagenet",
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"ResNet(width={width}) has no channels; pass at least 1, such as 64.")
        self.stem = build_stem(stem, in_channels, width)
        blocks: list[nn.Module] = []
        channels = width
        for stage, depth in enumerate(layers):
            for place in range(depth):
                stride = 2 if stage > 0 and place == 0 else 1
                blocks.append(block(channels, width * 2**stage, stride))
                channels = width * 2**stage * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.features = n_classes or channels
        self.head = nn.Identity() if n_classes is None else nn.Linear(channels, n_classes)
        init_convolutions(self)
        if zero_init_residual:
            for each in blocks:
                nn.init.zeros_(each.residual[-1].weight)  # type: ignore[index, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features), which with a head are logits, of pictures (B, in_channels, H, W)."""
        return self.head(self.blocks(self.stem(x)).mean(dim=(2, 3)))


def resnet18(**options: Any) -> ResNet:
    """Return a ResNet-18 of basic blocks; options as of `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


def resnet34(**options: Any) -> ResNet:
    """Return a ResNet-34 of basic blocks; options as of `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


def resnet50(**options: Any) -> ResNet:
    """Return a ResNet-50 of bottlenecks; options as of `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)


def build_stem(kind: Stem, in_channels: int, width: int) -> nn.Sequential:
    """Return the layers before the blocks, (B, in_channels, H, W) to (B, width, ...)."""
    if kind == "imagenet":
        first = convolution(in_channels, width, 7, 2)
        return nn.Sequential(*first, nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1))
    if kind in ("cifar", "stride2"):
        return nn.Sequential(*convolution(in_channels, width, 3, 1 if kind == "cifar" else 2), nn.ReLU(inplace=True))
    raise ValueError(f"stem={kind!r} is unknown; pass 'imagenet', 'cifar' or 'stride2'.")


def convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a padded square convolution and the batch norm after it, which has the bias of both."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    return conv, nn.BatchNorm2d(out_channels)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Return the identity, or a 1x1 projection where channels or resolution change."""
    if in_channels == out_channels and stride == 1:
        return nn.Identity()
    return nn.Sequential(Projection(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))


def init_convolutions(module: nn.Module) -> None:
    """Draw kernels from N(0, 2 / fan_out) (He et al. 2015)."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

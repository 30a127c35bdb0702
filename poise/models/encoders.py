"""Encoders of vectors and pictures, (B, ...) -> (B, features): equilibrium networks, each beside its explicit peer."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.linear import GMRES
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.models.resnet import BasicBlock, convolution, init_convolutions
from poise.nn.cells.convolutional import ConvCell
from poise.nn.cells.dense import DenseCell
from poise.nn.equilibrium import Equilibrium


class DenseEncoder(nn.Module):
    """Linear layers with batch norm and ReLU between them, over flattened samples.

    `sizes`: features from the input to the output, as in (144, 256, 256, 128). `batch_norm=False`: without it.
    """

    def __init__(self, sizes: tuple[int, ...], *, batch_norm: bool = True) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"DenseEncoder(sizes={sizes}) has no layer; pass at least an input and an output size.")
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(sizes[:-1]):
            layers.append(nn.Linear(before, after, bias=not batch_norm))
            layers += [nn.BatchNorm1d(after), nn.ReLU()] if batch_norm else [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))
        self.features = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, sizes[-1]) of x (B, ...) with sizes[0] numbers a sample."""
        return self.layers(x)


class EquilibriumEncoder(nn.Module):
    """A stem, an equilibrium and a head; several views are solved together.

    `stem`: from the input to what the cell injects. `head`: from the state to (B, features). `encode_views` asks that
    the cell's `inject` take a tuple of views, as `DenseCell` and `ConvCell` do.
    """

    def __init__(self, stem: nn.Module, equilibrium: Equilibrium, head: nn.Module, features: int) -> None:
        super().__init__()
        self.stem = stem
        self.equilibrium = equilibrium
        self.head = head
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of x (B, ...)."""
        return self.head(self.solve(x).state)

    def encode_views(self, *views: Tensor) -> tuple[Tensor, ...]:
        """Return the features of each view, all in one solve.

        Batch norm sees each view by itself, as if each were encoded alone; the equilibrium is each sample's own, so
        that neighbours do not matter. The head looks at all views together and must look at one sample alone.
        """
        return self.head(self.solve(*views).state).split([len(view) for view in views])

    def solve(self, *views: Tensor) -> Solution:
        """Return the equilibrium of one batch, or of several one after another along the batch."""
        stemmed = tuple(self.stem(view) for view in views)
        return self.equilibrium.solve(stemmed[0] if len(stemmed) == 1 else stemmed)


class DEQDenseEncoder(EquilibriumEncoder):
    """z* = relu(W z* + BN(U x)) of flattened samples x, then a linear layer.

    `bound`: of the spectral norm of W (`DenseCell`). Its peer is `DenseEncoder((in_features, width, width, features))`,
    where W is applied once.
    """

    def __init__(
        self,
        in_features: int,
        width: int,
        features: int,
        *,
        bound: float = 0.9,
        batch_norm: bool = True,
        solver: Solver = Anderson(rtol=1e-3, max_steps=50),
        adjoint: Adjoint = Implicit(GMRES(rtol=1e-3)),
        eval_solver: Solver | None = None,
    ) -> None:
        cell = DenseCell(in_features, width, bound=bound, batch_norm=batch_norm)
        equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)
        super().__init__(nn.Flatten(), equilibrium, nn.Linear(width, features), features)


class ConvEncoder(nn.Module):
    """3x3 convolutions of the given strides, residual blocks at one resolution, and the mean over positions.

    `stem`: channels of the convolutions before the last one, which leads to `width`; None makes all as wide.
    `features`: of a linear layer at the end; None returns the `width` means themselves.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        features: int | None = None,
        *,
        strides: tuple[int, ...] = (2, 2),
        stem: tuple[int, ...] | None = None,
        n_blocks: int = 1,
    ) -> None:
        super().__init__()
        self.stem = _convolutions((in_channels, *_stem_channels(strides, stem, width), width), strides)
        self.blocks = nn.Sequential(*(BasicBlock(width, width) for _ in range(n_blocks)))
        self.head = _pooled(width, features)
        self.features = features or width
        init_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (B, features) of pictures (B, in_channels, H, W)."""
        return self.head(self.blocks(self.stem(x)))


class DEQConvEncoder(EquilibriumEncoder):
    """Convolutions, the equilibrium of one residual block, and the mean over positions: the peer of `ConvEncoder`.

    `strides`, `stem`: of the 3x3 convolutions before the equilibrium, as in the peer; the last one injects. `groups`:
    of its group norms. With one block, the peer has as many parameters at the same width.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        features: int | None = None,
        *,
        strides: tuple[int, ...] = (2, 2),
        stem: tuple[int, ...] | None = None,
        groups: int = 8,
        solver: Solver = Anderson(rtol=1e-3, max_steps=50),
        adjoint: Adjoint = Implicit(GMRES(rtol=1e-3)),
        eval_solver: Solver | None = None,
    ) -> None:
        channels = (in_channels, *_stem_channels(strides, stem, width))
        convolutions = _convolutions(channels, strides[:-1])
        init_convolutions(convolutions)
        cell = ConvCell(channels[-1], width, stride=strides[-1], groups=groups)
        equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)
        super().__init__(convolutions, equilibrium, _pooled(width, features), features or width)


def _stem_channels(strides: tuple[int, ...], stem: tuple[int, ...] | None, width: int) -> tuple[int, ...]:
    if not strides or min(strides) < 1:
        raise ValueError(f"strides={strides} name no convolution; pass one of at least 1 for each, as in (2, 2).")
    if stem is None:
        return (width,) * (len(strides) - 1)
    if len(stem) != len(strides) - 1 or any(channels < 1 for channels in stem):
        raise ValueError(
            f"stem={stem} names the channels of {len(stem)} convolutions before the last, and strides={strides} has "
            f"{len(strides) - 1}; pass one of at least 1 for each."
        )
    return stem


def _convolutions(channels: tuple[int, ...], strides: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after, stride in zip(channels[:-1], channels[1:], strides, strict=True):
        layers += [*convolution(before, after, 3, stride), nn.ReLU()]
    return nn.Sequential(*layers)


def _pooled(width: int, features: int | None) -> nn.Sequential:
    # A group-normalised state has means of zero over its groups: what is averaged is its positive part.
    pooled: list[nn.Module] = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*pooled, *([] if features is None else [nn.Linear(width, features)]))

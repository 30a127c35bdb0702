"""Multiscale DEQ: one equilibrium of several resolutions, for classification, segmentation, or both at once."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from poise.fixed_point.adjoints import Adjoint, Implicit
from poise.fixed_point.linear import GMRES
from poise.fixed_point.solution import Solution
from poise.fixed_point.solvers import Anderson, Solver
from poise.models.multiscale import Architecture, MultiscaleNetwork
from poise.nn.cells.multiscale import MultiscaleCell
from poise.nn.equilibrium import Equilibrium
from poise.nn.multiscale import Scales

# The trunks of the published models. The widths of the heads are chosen here, for the published numbers of parameters.
PRESETS: Mapping[str, Architecture] = MappingProxyType(
    {
        "tiny": Architecture((24, 24), dropout=0.25, head_width=8, head_features=384),
        "cifar": Architecture((32, 64, 128, 256), dropout=0.3, head_width=9, head_features=1680),
        "small": Architecture((32, 64, 128, 256), downsamplings=2),
        "large": Architecture((80, 160, 320, 640), downsamplings=2),
        "xl": Architecture((88, 176, 352, 704), expansion=6, downsamplings=2, head_width=14, head_features=1024),
    }
)

# The state is large beside the cell's work: type 2 with a short history takes as many evaluations here, and a step of
# it costs 7 % of one where a step of the solver's own default costs 24 % (four scales, batch 16).
SOLVER = Anderson(rtol=1e-3, max_steps=30, form="type2", history=5)
ADJOINT = Implicit(GMRES(rtol=1e-3))


class MDEQ(MultiscaleNetwork):
    """Stem, the equilibrium of a `MultiscaleCell`, and a head for classification, one for segmentation, or both.

    `architecture`: an `Architecture`, or the name of a preset. `classes`, `pixel_classes`: of the heads; with both, one
    equilibrium serves two tasks. `solver`, `adjoint`, `eval_solver`: as in `Equilibrium`. To train it shallow
    first, as published, set `model.equilibrium.solver = Picard(rtol=None, max_steps=5)` and
    `model.equilibrium.adjoint = Unrolled()`, and set them back after that.

    Parameters in millions, here and as published, with 10 classes for CIFAR-10, 1000 for ImageNet, 19 pixel classes for
    Cityscapes:

    | preset | data | here | published |
    |---|---|---|---|
    | tiny | CIFAR-10 | 0.173 | 0.17 |
    | cifar | CIFAR-10 | 9.9 | 10 |
    | small, large, xl | ImageNet | 17.7, 64.0, 81.2 | 18, 63, 81 |
    | small, large, xl | Cityscapes | 9.0, 55.9, 79.5 | 7.8, 53, 71 |

    For Cityscapes the published totals are less than what the trunk's own widths come to (8.7, 54.4 and 77.7 without
    stem and head), so no head could reach them.

    Bai, Koltun and Kolter (2020), "Multiscale Deep Equilibrium Models", sections 3 and 4.

    >>> model = MDEQ("tiny", classes=10, pixel_classes=3)
    >>> predictions = model(torch.zeros(2, 3, 32, 32))
    >>> predictions.classes.shape, predictions.pixels.shape
    (torch.Size([2, 10]), torch.Size([2, 3, 32, 32]))
    """

    def __init__(
        self,
        architecture: Architecture | str = "tiny",
        *,
        classes: int | None = None,
        pixel_classes: int | None = None,
        solver: Solver = SOLVER,
        adjoint: Adjoint = ADJOINT,
        eval_solver: Solver | None = None,
    ) -> None:
        shape = named(architecture)
        super().__init__(shape, classes, pixel_classes)
        cell = MultiscaleCell(
            shape.channels,
            expansion=shape.expansion,
            groups=shape.groups,
            dropout=shape.dropout,
            weight_norm=shape.weight_norm,
        )
        self.equilibrium = Equilibrium(cell, solver, adjoint, eval_solver)

    def solve(self, x: Tensor) -> Solution:
        """Return the equilibrium of pictures (B, in_channels, H, W); its state is a tuple of feature maps.

        `model.heads(solution.state, x.shape[-2:])` are then its predictions.
        """
        return self.equilibrium.solve(self.stem(x))

    def scales(self, x: Tensor) -> Scales:
        """Return the equilibrium's feature maps, the finest first."""
        return self.solve(x).state


def named(architecture: Architecture | str) -> Architecture:
    """Return a preset by its name; an architecture passes through."""
    if isinstance(architecture, Architecture):
        return architecture
    if architecture not in PRESETS:
        raise ValueError(
            f"architecture={architecture!r} is no preset; pass one of {', '.join(PRESETS)}, or an Architecture."
        )
    return PRESETS[architecture]

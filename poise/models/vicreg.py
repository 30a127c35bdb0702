"""VICReg's network: two branches of encoder and expander, which may share everything or nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn


class Expander(nn.Sequential):
    """Linear, batch norm and ReLU for each size but the last, then a linear layer without bias.

    `sizes`: from the encoder's features to the embedding's dimensions, as in (2048, 8192, 8192, 8192); a last bias
    would move no term of the loss. `normalised=False`: no batch norm. Bardes, Ponce and LeCun (2022), section 4.2.
    """

    def __init__(self, sizes: tuple[int, ...], normalised: bool = True) -> None:
        if len(sizes) < 2:
            raise ValueError(f"Expander(sizes={sizes}) has no layer; pass at least the features and the dimensions.")
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes[:-1]):
            layers.append(nn.Linear(before, after, bias=not normalised))  # batch norm has a bias of its own
            if normalised:
                layers.append(nn.BatchNorm1d(after))
            layers.append(nn.ReLU())
        super().__init__(*layers, nn.Linear(sizes[-2], sizes[-1], bias=False))
        self.sizes = tuple(sizes)


class VICReg(nn.Module):
    """Two branches x -> encoder -> expander -> z, whose embeddings a loss compares.

    `encoder`: any module from a batch (B, ...) to features (B, F). `expander`: from those to embeddings (B, D), such as
    `Expander`. `other_encoder`, `other_expander`: those of the second branch; None shares the first's. A copy makes
    branches that differ in weights, another network branches that differ in architecture, or in the kind of input they
    take; what the branches must have in common is D alone. Bardes, Ponce and LeCun (2022), figure 1.

    Where the branches share an encoder that has `encode_views` (the equilibrium encoders here), both views go through
    one solve; batch norm still sees each view by itself, as in two calls.

    >>> model = VICReg(resnet18(), Expander((512, 2048, 2048)))
    >>> VICRegLoss()(*model(view_1, view_2)).total.backward()
    """

    def __init__(
        self,
        encoder: nn.Module,
        expander: nn.Module,
        other_encoder: nn.Module | None = None,
        other_expander: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.expander = expander
        self.other_encoder = other_encoder
        self.other_expander = other_expander
        for each, then in (self.branch(0), self.branch(1)):
            _check_fit(each, then)
        dimensions = [then.sizes[-1] for _, then in (self.branch(0), self.branch(1)) if isinstance(then, Expander)]
        if len(set(dimensions)) > 1:
            raise ValueError(
                f"the branches end in {dimensions[0]} and {dimensions[1]} dimensions, which no loss compares; give "
                "both expanders one last size."
            )

    def branch(self, index: int) -> tuple[nn.Module, nn.Module]:
        """Return the encoder and the expander of branch 0 or 1."""
        if index not in (0, 1):
            raise ValueError(f"branch={index!r} is neither 0 nor 1; pass one of them.")
        if index == 0:
            return self.encoder, self.expander
        encoder = self.encoder if self.other_encoder is None else self.other_encoder
        return encoder, self.expander if self.other_expander is None else self.other_expander

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, D) of both views, x1 by branch 0 and x2 by branch 1."""
        return self.expand(*self.encode(x1, x2))

    def encode(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features (B, F) of both views; in one solve where the branches share an equilibrium encoder."""
        together: Callable[..., tuple[Tensor, ...]] | None = getattr(self.encoder, "encode_views", None)
        # Views of another size, small crops say, are solved apart.
        if together is None or self.branch(1)[0] is not self.encoder or x1.shape[1:] != x2.shape[1:]:
            return self.features(x1, 0), self.features(x2, 1)
        first, second = together(x1, x2)
        return _checked(first), _checked(second)

    def expand(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings (B, D) of the features of both views."""
        return self.branch(0)[1](first), self.branch(1)[1](second)

    def features(self, x: Tensor, branch: int = 0) -> Tensor:
        """Return the encoder's features (B, F) of a batch, which is what a probe looks at."""
        return _checked(self.branch(branch)[0](x))


def _check_fit(encoder: nn.Module, expander: nn.Module) -> None:
    """Refuse an encoder whose features the expander does not take, where both say how many they are."""
    features = getattr(encoder, "features", None)
    if isinstance(features, int) and isinstance(expander, Expander) and expander.sizes[0] != features:
        raise ValueError(
            f"{type(encoder).__name__} returns {features} features and the expander takes {expander.sizes[0]}; pass "
            f"Expander(({features}, ...))."
        )


def _checked(features: Tensor) -> Tensor:
    if features.dim() != 2:
        raise ValueError(
            f"an encoder returns features (B, F), and this one returned {tuple(features.shape)}; pool or flatten them."
        )
    return features

"""Views of vectors (B, D) and series (B, ..., T): noise, masks, shifts and scalings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.drawing import below, check_pair, check_range, floating, per_sample, uniform


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of this standard deviation added to every value."""

    std: float = 0.1

    def __post_init__(self) -> None:
        check_range("Noise", "std", self.std, 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each sample with noise of its own."""
        floating("Noise", x)
        return x + self.std * torch.randn(x.shape, generator=generator, device=generator.device).to(x)


@dataclass(frozen=True)
class Masking:
    """Every value replaced with this probability by `value`, the mean of standardised features."""

    probability: float = 0.2
    value: float = 0.0

    def __post_init__(self) -> None:
        check_range("Masking", "probability", self.probability, 0, 1)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each sample with values of its own masked."""
        floating("Masking", x)
        hidden = torch.rand(x.shape, generator=generator, device=generator.device) < self.probability
        return x.masked_fill(hidden.to(x.device), self.value)


@dataclass(frozen=True)
class SpanMasking:
    """A run of places of the last dimension replaced by `value`, as in SpecAugment (Park et al. 2019).

    Its length is uniform in 0 to `longest`, its place uniform among those where it is whole.
    """

    longest: int
    value: float = 0.0

    def __post_init__(self) -> None:
        check_range("SpanMasking", "longest", self.longest, 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each series (B, ..., T) with a run of its own masked."""
        floating("SpanMasking", x)
        batch, whole = len(x), x.shape[-1]
        if self.longest > whole:
            raise ValueError(f"SpanMasking(longest={self.longest}) exceeds a series of {whole}; pass at most that.")
        length = below(torch.full((batch,), self.longest + 1, device=x.device), generator)
        start = below(whole - length + 1, generator)
        places = torch.arange(whole, device=x.device)
        start, length = per_sample(start, x), per_sample(length, x)
        return x.masked_fill((places >= start) & (places < start + length), self.value)


@dataclass(frozen=True)
class Shift:
    """The last dimension moved by a whole number of places, uniform in -most to most.

    Zeros enter at the end that is left, or where `wrap` what went out at the other.
    """

    most: int
    wrap: bool = False

    def __post_init__(self) -> None:
        check_range("Shift", "most", self.most, 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each series (B, ..., T) moved by a number of its own."""
        floating("Shift", x)
        whole = x.shape[-1]
        drawn = below(torch.full((len(x),), 2 * self.most + 1, device=x.device), generator) - self.most
        come_from = torch.arange(whole, device=x.device) - per_sample(drawn, x)
        moved = x.gather(-1, come_from.remainder(whole).expand_as(x))
        return moved if self.wrap else torch.where((come_from >= 0) & (come_from < whole), moved, 0.0)


@dataclass(frozen=True)
class Scaling:
    """Each sample multiplied by a factor of its own, uniform in low to high."""

    low: float = 0.8
    high: float = 1.2

    def __post_init__(self) -> None:
        check_pair("Scaling", "low, high", (self.low, self.high), 0)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return each sample scaled."""
        floating("Scaling", x)
        return x * per_sample(uniform(self.low, self.high, len(x), generator, x), x)

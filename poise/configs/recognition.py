"""Settings that `classify`, `segment` and `multitask` share: the network of several resolutions and what it sees."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from poise.configs.base import AdjointConfig, RegularizationConfig, SolverConfig, require, require_positive

# In training a fixed budget, as published for pictures.
SOLVER = SolverConfig(name="anderson", rtol=None, max_steps=5, form="type2", history=5)
EVAL_SOLVER = SolverConfig(name="anderson", rtol=1e-3, max_steps=30, form="type2", history=5)
ADJOINT = AdjointConfig(name="phantom", steps=3)
# Residuals of training were lower with the penalty on digits, 0.02 against 0.06 (trial).
REGULARIZATION = RegularizationConfig(jacobian_weight=0.4, jacobian_frequency=0.1)


@dataclass(frozen=True)
class MultiscaleConfig:
    """The network."""

    kind: Literal["deq", "explicit"] = "deq"
    """deq: an MDEQ, one multiscale block at its equilibrium; explicit: such blocks stacked, weights of their own"""
    channels: tuple[int, ...] = (24, 24)
    """of each scale, the finest first; every further scale has half the height and width"""
    expansion: int = 5
    """a residual block is so many times as wide inside (Bai et al. 2020); 1 gives 4 explicit blocks equal parameters"""
    layers: int = 4
    """explicit: blocks"""
    groups: int = 8
    """of the group norms (Bai et al. 2020)"""
    dropout: float = 0.0
    """drawn once a solve; published 0.25 to 0.3 for runs of many epochs (Bai et al. 2020)"""
    weight_norm: bool = True
    """of the residual blocks and the last convolutions (Bai et al. 2020)"""
    downsamplings: int = 0
    """convolutions of stride 2 in the stem: 0 for pictures of about 32x32, 2 for large ones (Bai et al. 2020)"""
    head_width: int = 8
    """classification: channels of its bottleneck at the finest scale; twice as many at each further one"""
    head_features: int = 384
    """classification: features that the last linear layer reads"""

    def __post_init__(self) -> None:
        require_positive(self, "expansion", "layers", "groups", "head_width", "head_features")
        require(
            len(self.channels) >= 1 and all(width > 0 and width % self.groups == 0 for width in self.channels),
            f"channels are {list(self.channels)}; pass one or more multiples of groups, which is {self.groups}.",
        )
        require(0 <= self.dropout < 1, f"dropout is {self.dropout}; it must be in [0, 1).")
        require(self.downsamplings in (0, 1, 2), f"downsamplings is {self.downsamplings}; pass 0, 1 or 2.")


@dataclass(frozen=True)
class FullResolutionConfig:
    """How `poise evaluate` and validation look at whole pictures."""

    window: tuple[int, int] | None = None
    """height and width of overlapping windows; null segments a picture at once"""
    overlap: float = 0.33
    """least part of a window that the next one sees again"""
    scales: tuple[float, ...] = ()
    """`poise evaluate` averages over pictures made larger and smaller as well, with mirror images where views flip;
    published 0.5 to 1.75 (Wang et al. 2020); none is measured unless named"""

    def __post_init__(self) -> None:
        require(0 <= self.overlap < 1, f"overlap is {self.overlap}; it must be in [0, 1).")
        for name in ("window", "scales"):
            numbers = getattr(self, name) or ()
            fits = all(0 < number < inf for number in numbers)
            require(fits, f"{name} is {list(numbers)}; pass finite numbers above 0.")

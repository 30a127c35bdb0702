"""Settings that `classify`, `segment` and `multitask` share; each of them adds its own after these."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from poise.configs.base import (
    AdjointConfig,
    OptimizerConfig,
    PretrainingConfig,
    RegularizationConfig,
    SolverConfig,
    TrainerConfig,
    require,
    require_positive,
)
from poise.configs.samples import SamplesConfig

Normalisation = Literal["data", "cifar10", "imagenet"]

# In training a fixed budget, as published for pictures.
SOLVER = SolverConfig(name="anderson", rtol=None, max_steps=5, form="type2", history=5)
EVAL_SOLVER = SolverConfig(name="anderson", rtol=1e-3, max_steps=30, form="type2", history=5)
ADJOINT = AdjointConfig(name="phantom", steps=3)
# Residuals of training were lower with the penalty on digits, 0.02 against 0.06 (trial).
REGULARIZATION = RegularizationConfig(jacobian_weight=0.4, jacobian_frequency=0.1)


@dataclass(frozen=True)
class PictureViewsConfig:
    """What training sees of a picture."""

    flip: bool = False
    """mirror images of half of the pictures; not of digits or letters"""
    colour: float = 0.0
    """brightness, contrast and saturation change by this part at most"""
    normalise: Normalisation = "data"
    """mean and deviation of each channel: of the first training pictures, or as published"""

    def __post_init__(self) -> None:
        require(0 <= self.colour < 1, f"colour is {self.colour}; it must be in [0, 1).")


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


@dataclass(frozen=True)
class RecognitionConfig:
    """What runs on pictures depend on; the defaults are those for scenes."""

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, batches, views and dropout"""
    init_from: str | None = None
    """folder of a run of classify, segment or multitask whose stem and trunk this one starts from"""
    data: SamplesConfig = SamplesConfig(path="scenes", batch_size=16, eval_batch_size=50)
    """samples"""
    views: PictureViewsConfig = PictureViewsConfig()
    """views"""
    model: MultiscaleConfig = MultiscaleConfig(channels=(16, 32, 32), downsamplings=1)
    """network"""
    solver: SolverConfig = SOLVER
    """solver in training; a fixed budget, as published for pictures"""
    eval_solver: SolverConfig = EVAL_SOLVER
    """solver of validation"""
    adjoint: AdjointConfig = ADJOINT
    """gradient of the equilibrium"""
    regularization: RegularizationConfig = REGULARIZATION
    """what keeps equilibria easy to find; residuals of training were lower with it on digits (trial)"""
    pretraining: PretrainingConfig = PretrainingConfig()
    """shallow training at first"""
    optimizer: OptimizerConfig = OptimizerConfig(warmup_steps=50)
    """optimizer"""
    trainer: TrainerConfig = TrainerConfig(max_steps=600, val_check_interval=200, checkpoint_every_n_steps=100)
    """engine"""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be in [0, 2**32).")

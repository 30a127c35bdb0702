"""Settings of `poise train segment`. The defaults are the recipe `segment-scenes`."""

from dataclasses import dataclass
from typing import Literal

from poise.configs.base import (
    AdjointConfig,
    OptimizerConfig,
    PretrainingConfig,
    RegularizationConfig,
    SolverConfig,
    TrainerConfig,
    require,
)
from poise.configs.recognition import (
    ADJOINT,
    EVAL_SOLVER,
    REGULARIZATION,
    SOLVER,
    FullResolutionConfig,
    MultiscaleConfig,
)
from poise.configs.samples import SamplesConfig


@dataclass(frozen=True)
class SegmentViewsConfig:
    """What training sees of a picture and its label map."""

    size: tuple[int, int] | None = None
    """height and width of a cut at a random place; null is the whole picture"""
    scale: tuple[float, float] = (1.0, 1.0)
    """size: pictures are made larger or smaller by a factor in this range first; published 0.5 to 2 (Wang et al.
    2020)"""
    flip: bool = False
    """mirror images of half of the pictures; not of digits or letters"""
    colour: float = 0.0
    """brightness, contrast and saturation change by this part at most"""
    normalise: Literal["data", "cifar10", "imagenet"] = "data"
    """mean and deviation of each channel: of the first training pictures, or as published"""

    def __post_init__(self) -> None:
        require(0 <= self.colour < 1, f"colour is {self.colour}; it must be in [0, 1).")
        low, high = self.scale
        require(0 < low <= high, f"scale is {list(self.scale)}; pass two factors above 0, the smaller first.")
        require(
            self.size is not None or self.scale == (1.0, 1.0),
            f"scale is {list(self.scale)} without a size; name the views.size of what is cut out.",
        )
        require(self.size is None or min(self.size) > 0, f"size is {self.size}; pass a height and a width above 0.")


@dataclass(frozen=True)
class SegmentConfig:
    """Everything that a segmentation run depends on."""

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, batches, views and dropout"""
    init_from: str | None = None
    """folder of a run of classify, segment or multitask whose stem and trunk this one starts from"""
    data: SamplesConfig = SamplesConfig(path="scenes", batch_size=16, eval_batch_size=50)
    """samples"""
    views: SegmentViewsConfig = SegmentViewsConfig()
    """views"""
    model: MultiscaleConfig = MultiscaleConfig(channels=(16, 32, 32), downsamplings=1)
    """network"""
    full_resolution: FullResolutionConfig = FullResolutionConfig()
    """whole pictures"""
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

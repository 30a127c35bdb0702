"""Settings of `poise train multitask`. The defaults are the recipe `multitask-scenes`."""

from dataclasses import dataclass

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
from poise.configs.segment import SegmentViewsConfig


@dataclass(frozen=True)
class MultitaskLossConfig:
    """What both heads' cross-entropies are multiplied by in the loss."""

    classes: float = 1.0
    """of the picture's class"""
    pixels: float = 20.0
    """of the classes of its pixels, their mean; on scenes 1 leaves mean IoU 11 points behind a head alone, 20 none"""

    def __post_init__(self) -> None:
        for name in ("classes", "pixels"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0.")
        require(self.classes + self.pixels > 0, "classes and pixels are both 0; let one of them weigh something.")


@dataclass(frozen=True)
class MultitaskConfig:
    """Everything that a run of two heads on one trunk depends on."""

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, batches, views and dropout"""
    init_from: str | None = None
    """folder of a run of classify, segment or multitask whose stem and trunk this one starts from"""
    data: SamplesConfig = SamplesConfig(path="scenes", batch_size=16, eval_batch_size=50)
    """samples, with a class each and one at each pixel"""
    views: SegmentViewsConfig = SegmentViewsConfig()
    """views"""
    model: MultiscaleConfig = MultiscaleConfig(channels=(16, 32, 32), downsamplings=1)
    """network"""
    loss: MultitaskLossConfig = MultitaskLossConfig()
    """objective"""
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

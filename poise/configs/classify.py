"""Settings of `poise train classify`. The defaults are the recipe `classify-digits`."""

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
    require_positive,
)
from poise.configs.recognition import ADJOINT, EVAL_SOLVER, REGULARIZATION, SOLVER, MultiscaleConfig
from poise.configs.samples import SamplesConfig


@dataclass(frozen=True)
class ClassifyViewsConfig:
    """What training sees of a picture."""

    padding: int = 1
    """zeros around a picture before a cut of its size at a random place; 4 for CIFAR (He et al. 2016)"""
    flip: bool = False
    """mirror images of half of the pictures; not of digits or letters"""
    size: int | None = None
    """side of a cut of random area and proportions instead (Szegedy et al. 2015); 224 for ImageNet"""
    scale: tuple[float, float] = (0.08, 1.0)
    """size: of the area (Szegedy et al. 2015)"""
    colour: float = 0.0
    """brightness, contrast and saturation change by this part at most"""
    normalise: Literal["data", "cifar10", "imagenet"] = "data"
    """mean and deviation of each channel: of the first training pictures, or as published"""

    def __post_init__(self) -> None:
        require(self.padding >= 0, f"padding is {self.padding}; it must be at least 0.")
        require(0 <= self.colour < 1, f"colour is {self.colour}; it must be in [0, 1).")
        require_positive(self, "size")
        low, high = self.scale
        require(0 < low <= high <= 1, f"scale is {list(self.scale)}; pass two parts in (0, 1], the smaller first.")


@dataclass(frozen=True)
class ClassifierConfig(MultiscaleConfig):
    """The network."""

    kind: Literal["deq", "explicit", "resnet"] = "deq"  # type: ignore[assignment]  # one more than elsewhere
    """deq: an MDEQ, one multiscale block at its equilibrium; explicit: such blocks stacked; resnet: a ResNet"""
    width: int = 8
    """resnet: channels of its first stage; 8 is ResNet-18 with the parameters of MDEQ tiny, 64 the published width"""
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    """resnet: residual blocks of each stage; 2, 2, 2, 2 is ResNet-18"""
    resnet_stem: Literal["stride2", "cifar", "imagenet"] = "cifar"
    """resnet: how it begins"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "width")
        require(all(depth > 0 for depth in self.blocks), f"blocks are {list(self.blocks)}; pass numbers above 0.")


@dataclass(frozen=True)
class ClassifyConfig:
    """Everything that a classification run depends on."""

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, batches, views and dropout"""
    init_from: str | None = None
    """folder of a run of classify, segment or multitask whose stem and trunk this one starts from"""
    data: SamplesConfig = SamplesConfig(batch_size=64)
    """samples"""
    views: ClassifyViewsConfig = ClassifyViewsConfig()
    """views"""
    model: ClassifierConfig = ClassifierConfig()
    """network"""
    label_smoothing: float = 0.0
    """part of the target that is spread over all classes"""
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
    trainer: TrainerConfig = TrainerConfig(max_steps=400, val_check_interval=100, checkpoint_every_n_steps=100)
    """engine"""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be in [0, 2**32).")
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"label_smoothing is {smoothing}; it must be in [0, 1).")

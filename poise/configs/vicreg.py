"""Settings of `poise train vicreg`. The defaults are the recipe `vicreg-digits`."""

from dataclasses import dataclass
from typing import Literal

from poise.configs.base import (
    AdjointConfig,
    OptimizerConfig,
    SolverConfig,
    TrainerConfig,
    require,
    require_positive,
)


@dataclass(frozen=True)
class DigitsConfig:
    """Scikit-learn's digits, each view at a place of its own on a canvas."""

    side: int = 12
    """of the canvas, 8 being the digit's; on 16 the task is harder (trial)"""
    gain: float = 0.2
    """a view is brighter or darker by this part at most (trial)"""
    noise: float = 0.05
    """standard deviation of the noise in a view (trial)"""
    batch_size: int = 256
    """samples a training batch and device; 1,297 make five batches an epoch (trial)"""
    eval_batch_size: int = 500
    """samples an evaluation batch; changes speed only"""
    few: int = 10
    """labels a class of the few-label probe"""

    def __post_init__(self) -> None:
        require(self.side >= 8, f"side is {self.side}; a digit has 8 pixels a side, so pass at least 8.")
        require(0 <= self.gain < 1, f"gain is {self.gain}; it must be in [0, 1).")
        require(self.noise >= 0, f"noise is {self.noise}; it must be at least 0.")
        require(
            2 <= self.batch_size <= 1297,
            f"batch_size is {self.batch_size}; the loss needs at least 2, and the set has 1,297.",
        )
        require_positive(self, "eval_batch_size", "few")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder, which is kept, and the expander, which is not."""

    kind: Literal["dense", "deq"] = "dense"
    """dense: two hidden layers; deq: the second one at its equilibrium, with as many parameters"""
    width: int = 256
    """hidden features (trial)"""
    features: int = 128
    """features of the encoder, which the probes look at (trial)"""
    bound: float = 0.9
    """deq: of the spectral norm of its matrix, below 1 so that it contracts (trial)"""
    expander: tuple[int, ...] = (128, 128)
    """sizes of the expander's layers; the last is the embedding's (trial)"""
    batch_norm: bool = True
    """in the encoder and between the expander's layers"""

    def __post_init__(self) -> None:
        require_positive(self, "width", "features", "bound")
        require(
            len(self.expander) >= 1 and all(size > 0 for size in self.expander),
            f"expander is {self.expander}; pass at least one size above 0.",
        )


@dataclass(frozen=True)
class LossConfig:
    """What is minimised."""

    name: Literal["vicreg", "barlow"] = "vicreg"
    """VICReg, or Barlow Twins, whose decorrelation it builds on"""
    convention: Literal["authors", "paper", "vicregl"] = "authors"
    """whose factors: the published code's, its paper's, or VICRegL's"""
    invariance: float = 25.0
    """weight of the difference of views (Bardes et al. 2022)"""
    variance: float = 25.0
    """weight of the hinge that keeps standard deviations up (Bardes et al. 2022)"""
    covariance: float = 1.0
    """weight of squared covariances (Bardes et al. 2022)"""
    barlow_weight: float = 0.0051
    """weight of Barlow Twins' squared correlations (Zbontar et al. 2021)"""

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance", "barlow_weight"):
            require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}; it must be at least 0.")


@dataclass(frozen=True)
class VICRegConfig:
    """Everything that a VICReg run depends on."""

    recipe: str | None = None
    """name of the recipe that these settings come from"""
    seed: int = 0
    """seed of weights, batches and views"""
    data: DigitsConfig = DigitsConfig()
    """pictures and their views"""
    model: EncoderConfig = EncoderConfig()
    """network"""
    loss: LossConfig = LossConfig()
    """objective"""
    solver: SolverConfig = SolverConfig(name="anderson", rtol=1e-3, max_steps=50)
    """solver in training; 0.1 trains as well at fewer evaluations (trial)"""
    eval_solver: SolverConfig = SolverConfig(name="anderson", rtol=1e-4)
    """solver of the probes"""
    adjoint: AdjointConfig = AdjointConfig(name="implicit", rtol=1e-3)
    """gradient of the equilibrium"""
    optimizer: OptimizerConfig = OptimizerConfig(
        name="adamw", lr=3e-3, weight_decay=1e-6, betas=(0.9, 0.999), warmup_steps=50, final_lr_ratio=0.0
    )
    """optimizer"""
    trainer: TrainerConfig = TrainerConfig(
        max_steps=300, gradient_clip_val=None, val_check_interval=100, checkpoint_every_n_steps=100
    )
    """engine"""
    look_every_n_steps: int = 50
    """steps between looks for a collapse"""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be in [0, 2**32).")
        require_positive(self, "look_every_n_steps")

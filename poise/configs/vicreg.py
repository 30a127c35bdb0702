"""Settings of `poise train vicreg`. The defaults are the recipe `vicreg-digits`."""

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
from poise.configs.samples import SamplesConfig

EncoderKind = Literal["dense", "deq", "conv", "deq-conv", "resnet"]


@dataclass(frozen=True)
class ViewsConfig:
    """What makes two views of a sample."""

    name: Literal["placed", "cifar", "imagenet", "noise"] = "placed"
    """placed: at random on a canvas; cifar, imagenet: cuts, flips and colours as published; noise: for vectors too"""
    size: int = 12
    """of the canvas or the cut; a digit has 8 pixels a side, and on a canvas of 16 the task is harder (trial)"""
    gain: float = 0.2
    """placed, noise: a view is brighter or darker by this part at most (trial)"""
    noise: float = 0.05
    """placed, noise: standard deviation of what is added to each value (trial)"""
    masking: float = 0.0
    """noise: part of the values that a view hides"""

    def __post_init__(self) -> None:
        require_positive(self, "size")
        require(0 <= self.gain < 1, f"gain is {self.gain}; it must be in [0, 1).")
        require(self.noise >= 0, f"noise is {self.noise}; it must be at least 0.")
        require(0 <= self.masking < 1, f"masking is {self.masking}; it must be in [0, 1).")


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder, which is kept, and the expander, which is not."""

    kind: EncoderKind = "dense"
    """dense: two hidden layers; conv: a residual block after a stem; deq, deq-conv: these at an equilibrium; resnet"""
    width: int = 256
    """hidden features, or channels; for a resnet those of its first stage (trial)"""
    features: int | None = 128
    """features of the encoder, which the probes look at; null: those of the network without a last linear layer"""
    stem: tuple[int, ...] = (32, 64)
    """conv, deq-conv: channels of the convolutions of stride 2 before the one that leads to `width`"""
    blocks: tuple[int, int, int, int] = (1, 1, 1, 1)
    """resnet: residual blocks of each stage; 2, 2, 2, 2 at width 64 is ResNet-18"""
    resnet_stem: Literal["stride2", "cifar", "imagenet"] = "stride2"
    """resnet: how it begins"""
    bound: float = 0.9
    """deq: of the spectral norm of its matrix, below 1 so that it contracts (trial)"""
    expander: tuple[int, ...] = (128, 128)
    """sizes of the expander's layers; the last is the embedding's (trial)"""
    batch_norm: bool = True
    """in dense encoders and between the expander's layers"""

    def __post_init__(self) -> None:
        require_positive(self, "width", "features", "bound")
        for name in ("expander", "blocks", "stem"):
            sizes = getattr(self, name)
            require(
                (len(sizes) >= 1 or name == "stem") and all(size > 0 for size in sizes),
                f"{name} is {list(sizes)}; pass at least one size above 0.",
            )


@dataclass(frozen=True)
class OtherConfig:
    """The encoder of the second view."""

    kind: Literal["shared", "separate", "dense", "deq", "conv", "deq-conv", "resnet"] = "shared"
    """shared: the first's; separate: like the first with weights of its own, as two kinds of input need; or another"""
    width: int | None = None
    """hidden features, or channels, of another; null is as many as the first's"""
    shared_expander: bool = False
    """one expander for both, where the encoders are two"""

    def __post_init__(self) -> None:
        require_positive(self, "width")


@dataclass(frozen=True)
class ProbeConfig:
    """What the features are measured by; nothing here reaches the encoder."""

    few: tuple[int, ...] = (10,)
    """labels a class of the few-label probes; the first is followed during training"""
    draws: int = 1
    """draws of the few labels, whose accuracies are averaged"""
    placements: tuple[int, int] = (4, 2)
    """placed: times that each training and each test sample is placed"""
    fine_tune: tuple[int, ...] = (10,)
    """labels a class with which `poise evaluate` trains the whole encoder on, and one from scratch beside it"""
    fine_tune_steps: int = 300
    """steps of that (trial)"""
    fine_tune_lr: float = 1e-3
    """AdamW's step of that (trial)"""

    def __post_init__(self) -> None:
        require_positive(self, "draws", "fine_tune_steps", "fine_tune_lr")
        for name in ("few", "fine_tune", "placements"):
            numbers = getattr(self, name)
            require(
                (len(numbers) >= 1 or name == "fine_tune") and all(number > 0 for number in numbers),
                f"{name} is {list(numbers)}; pass numbers above 0.",
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
    data: SamplesConfig = SamplesConfig()
    """samples"""
    views: ViewsConfig = ViewsConfig()
    """views"""
    model: EncoderConfig = EncoderConfig()
    """network"""
    other: OtherConfig = OtherConfig()
    """second branch"""
    loss: LossConfig = LossConfig()
    """objective"""
    solver: SolverConfig = SolverConfig(name="anderson", rtol=1e-3, max_steps=50)
    """solver in training; 0.1 trains as well at fewer evaluations (trial)"""
    eval_solver: SolverConfig = SolverConfig(name="anderson", rtol=1e-4)
    """solver of the probes"""
    adjoint: AdjointConfig = AdjointConfig(name="implicit", rtol=1e-3)
    """gradient of the equilibrium"""
    regularization: RegularizationConfig = RegularizationConfig()
    """what keeps equilibria easy to find"""
    pretraining: PretrainingConfig = PretrainingConfig()
    """shallow training at first"""
    optimizer: OptimizerConfig = OptimizerConfig(
        name="adamw", lr=3e-3, weight_decay=1e-6, betas=(0.9, 0.999), warmup_steps=50, final_lr_ratio=0.0
    )
    """optimizer"""
    trainer: TrainerConfig = TrainerConfig(
        max_steps=600, gradient_clip_val=None, val_check_interval=100, checkpoint_every_n_steps=100
    )
    """engine"""
    probe: ProbeConfig = ProbeConfig()
    """probes"""
    look_every_n_steps: int = 50
    """steps between looks for a collapse"""

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, f"seed is {self.seed}; it must be in [0, 2**32).")
        require_positive(self, "look_every_n_steps")
        require(self.data.batch_size >= 2, f"data.batch_size is {self.data.batch_size}; the loss needs at least 2.")

"""Settings of `poise train classify`. The defaults are the recipe `classify-digits`."""

from dataclasses import dataclass
from typing import Literal

from poise.configs.base import TrainerConfig, require, require_positive
from poise.configs.recognition import MultiscaleConfig, PictureViewsConfig, RecognitionConfig
from poise.configs.samples import SamplesConfig


@dataclass(frozen=True)
class ClassifyViewsConfig(PictureViewsConfig):
    """What training sees of a picture."""

    padding: int = 1
    """zeros around a picture before a cut of its size at a random place; 4 for CIFAR (He et al. 2016)"""
    size: int | None = None
    """side of a cut of random area and proportions instead (Szegedy et al. 2015); 224 for ImageNet"""
    scale: tuple[float, float] = (0.08, 1.0)
    """size: of the area (Szegedy et al. 2015)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.padding >= 0, f"padding is {self.padding}; it must be at least 0.")
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
class ClassifyConfig(RecognitionConfig):
    """Everything that a classification run depends on."""

    data: SamplesConfig = SamplesConfig(batch_size=64)
    """samples"""
    views: ClassifyViewsConfig = ClassifyViewsConfig()
    """views"""
    model: ClassifierConfig = ClassifierConfig()
    """network"""
    trainer: TrainerConfig = TrainerConfig(max_steps=400, val_check_interval=100, checkpoint_every_n_steps=100)
    """engine"""
    label_smoothing: float = 0.0
    """part of the target that is spread over all classes"""

    def __post_init__(self) -> None:
        super().__post_init__()
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, f"label_smoothing is {smoothing}; it must be in [0, 1).")

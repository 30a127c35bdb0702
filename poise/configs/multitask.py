"""Settings of `poise train multitask`. The defaults are the recipe `multitask-scenes`."""

from dataclasses import dataclass

from poise.configs.base import require
from poise.configs.recognition import FullResolutionConfig, RecognitionConfig
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
class MultitaskConfig(RecognitionConfig):
    """Everything that a run of two heads on one trunk depends on."""

    views: SegmentViewsConfig = SegmentViewsConfig()
    """views"""
    loss: MultitaskLossConfig = MultitaskLossConfig()
    """objective"""
    full_resolution: FullResolutionConfig = FullResolutionConfig()
    """whole pictures"""

"""Settings of `poise train segment`. The defaults are the recipe `segment-scenes`."""

from dataclasses import dataclass

from poise.configs.base import require
from poise.configs.recognition import FullResolutionConfig, PictureViewsConfig, RecognitionConfig


@dataclass(frozen=True)
class SegmentViewsConfig(PictureViewsConfig):
    """What training sees of a picture and its label map."""

    size: tuple[int, int] | None = None
    """height and width of a cut at a random place; null is the whole picture"""
    scale: tuple[float, float] = (1.0, 1.0)
    """size: pictures are made larger or smaller by a factor in this range first; published 0.5 to 2 (Wang et al.
    2020)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.scale
        require(0 < low <= high, f"scale is {list(self.scale)}; pass two factors above 0, the smaller first.")
        require(
            self.size is not None or self.scale == (1.0, 1.0),
            f"scale is {list(self.scale)} without a size; name the views.size of what is cut out.",
        )
        require(self.size is None or min(self.size) > 0, f"size is {self.size}; pass a height and a width above 0.")


@dataclass(frozen=True)
class SegmentConfig(RecognitionConfig):
    """Everything that a segmentation run depends on."""

    views: SegmentViewsConfig = SegmentViewsConfig()
    """views"""
    full_resolution: FullResolutionConfig = FullResolutionConfig()
    """whole pictures"""

"""`segment`: the class of each pixel, by an MDEQ or an explicit network of several resolutions."""

from __future__ import annotations

from typing import ClassVar

from poise.configs.segment import SegmentConfig
from poise.tasks.recognition import RecognitionTask
from poise.tasks.recognition_samples import Heads


class SegmentTask(RecognitionTask):
    """The class of each pixel, by an MDEQ or an explicit network of several resolutions."""

    task_name = "segment"
    config_type = SegmentConfig
    reads: ClassVar[Heads] = Heads(pixels=True)

    config: SegmentConfig

    def loss_weights(self) -> tuple[float, float]:
        """Return the weights of both losses."""
        return 0.0, 1.0

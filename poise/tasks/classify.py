"""`classify`: the class of each picture, by an MDEQ or an explicit network."""

from __future__ import annotations

from typing import ClassVar

from poise.configs.classify import ClassifyConfig
from poise.tasks.recognition import RecognitionTask
from poise.tasks.recognition_samples import Heads


class ClassifyTask(RecognitionTask):
    """The class of each picture, by an MDEQ or an explicit network."""

    task_name = "classify"
    config_type = ClassifyConfig
    reads: ClassVar[Heads] = Heads(classes=True)

    config: ClassifyConfig

    def loss_weights(self) -> tuple[float, float]:
        """Return the weights of both losses."""
        return 1.0, 0.0

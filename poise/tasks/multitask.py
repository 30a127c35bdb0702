"""`multitask`: the class of each picture and of each of its pixels, by two heads on one trunk."""

from __future__ import annotations

from typing import ClassVar

from poise.configs.multitask import MultitaskConfig
from poise.tasks.recognition import RecognitionTask
from poise.tasks.recognition_samples import Heads


class MultitaskTask(RecognitionTask):
    """The class of each picture and of each of its pixels, by two heads on one trunk."""

    task_name = "multitask"
    config_type = MultitaskConfig
    reads: ClassVar[Heads] = Heads(classes=True, pixels=True)

    config: MultitaskConfig

    def loss_weights(self) -> tuple[float, float]:
        """Return the weights of both losses."""
        return self.config.loss.classes, self.config.loss.pixels

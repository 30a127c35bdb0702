"""Settings of labelled sets, the same for every task that reads one."""

from dataclasses import dataclass

from poise.configs.base import require, require_positive


@dataclass(frozen=True)
class SamplesConfig:
    """What is read and how many samples go together."""

    path: str = "digits"
    """digits, mnist, cifar10, mfeat, mfeat:KIND,KIND (two of its kinds of feature), scenes or camvid (a class at each
    pixel), or a folder: of pictures by class, or of pictures and label pictures"""
    limit: int | None = None
    """of the training samples, only so many from the first on; null is all"""
    size: int | None = None
    """side that the pictures of a folder are cut and resampled to; null where all have one size"""
    batch_size: int = 256
    """samples a training batch and device (trial)"""
    eval_batch_size: int = 500
    """samples an evaluation batch; changes speed only"""

    def __post_init__(self) -> None:
        require(bool(self.path), "path is empty; name a set, such as digits, or a folder.")
        require_positive(self, "limit", "size", "batch_size", "eval_batch_size")

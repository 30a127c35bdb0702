"""Views one after another, and those that networks were published with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from poise.data.views.blur import GaussianBlur
from poise.data.views.colour import ColourJitter, Grayscale, Normalise, Solarise
from poise.data.views.drawing import View
from poise.data.views.geometry import HorizontalFlip, RandomCrop, RandomResizedCrop
from poise.data.views.scenes import ComposedScenes, RandomScaledCrop, SceneFlip

IMAGENET = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
CIFAR10 = Normalise(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


@dataclass(frozen=True)
class Composed:
    """Views applied in order, all drawing from one generator."""

    views: tuple[View, ...]

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return a view of each sample."""
        for view in self.views:
            x = view(x, generator)
        return x


def vicreg_views(size: int = 224, normalise: Normalise = IMAGENET) -> tuple[Composed, Composed]:
    """Return the views of the two branches (Bardes et al. 2022, appendix C): they differ in blur and solarisation.

    The first blurs always and solarises never, the second blurs one in ten and solarises one in five, as the authors'
    code has it for ImageNet at 224. Computed in floating point, without rounding to bytes between the steps.
    """
    return (
        Composed((*_common(size, 0.08), GaussianBlur(probability=1.0), Solarise(probability=0.0), normalise)),
        Composed((*_common(size, 0.08), GaussianBlur(probability=0.1), Solarise(probability=0.2), normalise)),
    )


def vicreg_cifar_views(size: int = 32, normalise: Normalise = CIFAR10) -> tuple[Composed, Composed]:
    """Return the views of the two branches for CIFAR, alike: larger cuts, no blur, one in ten solarised.

    The settings of solo-learn's recipe for VICReg (da Costa et al. 2022), behind its 92.07 % on CIFAR-10.
    """
    view = Composed((*_common(size, 0.2), Solarise(probability=0.1), normalise))
    return view, view


def cifar_views(size: int = 32, padding: int = 4, normalise: Normalise = CIFAR10) -> Composed:
    """Return what ResNets are trained with on CIFAR: a cut of the padded picture and its mirror image in one of two.

    He, Zhang, Ren and Sun (2016), "Deep residual learning for image recognition", section 4.2.
    """
    return Composed((RandomCrop(size, padding), HorizontalFlip(0.5), normalise))


def segmentation_views(size: tuple[int, int], normalise: Normalise = IMAGENET) -> ComposedScenes:
    """Return what networks of many resolutions are trained with on street scenes, cut to `size` (H, W).

    Scales of 0.5 to 2 and the mirror image in one of two: Wang et al. (2020), "Deep high-resolution representation
    learning for visual recognition", section 5, whose settings the MDEQ takes over (Bai, Koltun and Kolter 2020).
    """
    return ComposedScenes((RandomScaledCrop(size, (0.5, 2.0)), SceneFlip(0.5)), (normalise,))


def _common(size: int, smallest: float) -> tuple[View, ...]:
    crop = RandomResizedCrop(size, scale=(smallest, 1.0))
    return crop, HorizontalFlip(0.5), ColourJitter(0.4, 0.4, 0.2, 0.1, probability=0.8), Grayscale(0.2)
